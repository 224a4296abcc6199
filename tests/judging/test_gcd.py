"""GCD without TensorFlow: the networks are the published ones, no face is never clear, no pickle is ever run."""

from __future__ import annotations

import csv
import hashlib
import json
import pickle
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from resurgence_harness.bench.judged import judgments
from resurgence_harness.errors import JudgeError, UserError
from resurgence_harness.judging import gcd_conversion
from resurgence_harness.judging.__main__ import main as conversions
from resurgence_harness.judging.contract import NO_FACE, accuracy_of, check_names
from resurgence_harness.judging.gcd import Gcd, face_of, largest_group, recognised
from resurgence_harness.judging.gcd_networks import Recogniser
from resurgence_harness.judging.mtcnn import FaceDetector, RefineNet, _crop, _pooled, _scales, kept, shares
from resurgence_harness.judging.weights import Weights, digest_of
from resurgence_harness.specs import Probe, Prompt
from resurgence_harness.statistics import Evidence, Rate

pytestmark = pytest.mark.slow

NAMES = ("Ada Quill", "Bram Holt", "Cleo Marsh")
PLACES = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}


# The published files, made of random numbers


def published_names(recogniser: Recogniser) -> dict[str, torch.Tensor]:
    """A recogniser's state under the names of Giphy's pickle."""
    state = {}
    for name, value in recogniser.state_dict().items():
        head, _, rest = name.partition(".")
        if head in PLACES:
            state[f"model.stem.{PLACES[head]}.{rest}"] = value
        elif head == "centres":
            state["center_loss_criterion.centers"] = value
        else:
            state[f"model.{ {'embed': 'fc1', 'classify': 'fc2'}[head] }.{rest}"] = value
    return state


def tensorflow_table(network: torch.nn.Module, last: int) -> dict[str, dict[str, np.ndarray]]:
    """One of the detector's networks as its .npy holds it: kernels [x, y, in, out], matrices [in, out]."""
    table: dict[str, dict[str, np.ndarray]] = {}
    for name, value in network.state_dict().items():
        layer, kind = name.split(".")
        layer = layer.replace("dense", "conv").replace("_", "-")
        if layer.startswith("prelu"):
            table[layer.replace("prelu", "PReLU") if last == 1 else layer] = {"alpha": value.numpy()}
        else:
            array = value.numpy()
            row = table.setdefault(layer, {})
            row["biases" if kind == "bias" else "weights"] = array.transpose(range(array.ndim)[::-1]).copy()
    if last == 3:
        table["conv6-3"] = {"weights": np.zeros((256, 10), np.float32), "biases": np.zeros(10, np.float32)}
    return table


def varied(network: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Every tensor random, batch statistics too: a mistake in any of them shows."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if "running_var" in name:
            value.copy_(torch.rand(value.shape, generator=generator) + 0.1)
        elif value.is_floating_point():
            scale = 0.3 if value.ndim < 2 else (2 / value[0].numel()) ** 0.5
            about = 1.0 if value.ndim < 2 and name.endswith("weight") else 0.0  # else nothing reaches the end
            value.copy_(torch.randn(value.shape, generator=generator) * scale + about)
    return network.eval()


def resources(folder: Path, recogniser: Recogniser, detector: FaceDetector) -> dict[str, str]:
    """Giphy's archive in a folder; the sha256 of the detector's files."""
    for part in ("face_recognition", "face_detection"):
        (folder / part).mkdir(parents=True)
    state = OrderedDict(published_names(recogniser))
    told = {
        "epoch": 3,
        "loss": 0.5,
        "optimizer_state": {"state": {0: {"momentum": torch.ones(2)}}},
        "model_state": state,
    }
    torch.save(told, folder / gcd_conversion.RECOGNISER)
    with (folder / gcd_conversion.LABELS).open("w", newline="") as stream:
        rows = [[f"{name.replace(' ', '_')}_[m.0{k}]", k] for k, name in enumerate(NAMES)]
        csv.writer(stream).writerows([["Label", "Index"], *rows])
    for k, network in enumerate((detector.pnet, detector.rnet, detector.onet), 1):
        np.save(
            folder / f"face_detection/det{k}.npy", np.array(tensorflow_table(network, k), object), allow_pickle=True
        )
    return {file: digest_of(folder / file) for file in gcd_conversion.DETECTOR}


def small() -> Recogniser:
    """GCD's recogniser, narrow and shallow."""
    return varied(Recogniser(width=4, depths=(1, 2, 1, 1), embedding=6, names=len(NAMES)), 1)


def rigged(*, sees: bool) -> tuple[Recogniser, FaceDetector]:
    """A detector that sees faces everywhere, or nowhere, and a recogniser that says Bram Holt."""
    recogniser, detector = small(), varied(FaceDetector(), 2)
    with torch.no_grad():
        for head in (detector.pnet.conv4_1, detector.rnet.dense5_1, detector.onet.dense6_1):
            head.weight.zero_()
            head.bias.copy_(torch.tensor([0.0, 4.0 if sees else -4.0]))
        for head in (detector.pnet.conv4_2, detector.rnet.dense5_2, detector.onet.dense6_2):
            head.weight.zero_()
            head.bias.zero_()
        recogniser.classify.weight.zero_()
        recogniser.classify.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
    return recogniser, detector


@pytest.fixture
def archive(tmp_path):
    """(folder, sha256 of the detector's files) of a published archive."""
    return tmp_path / "resources", resources(tmp_path / "resources", small(), varied(FaceDetector(), 2))


def judge_of(folder: Path, *, sees: bool) -> Gcd:
    """The judge over rigged networks, converted and pinned."""
    pins = resources(folder / "resources", *rigged(sees=sees))
    gcd_conversion.convert(folder / "resources", folder / "gcd.safetensors", detector=pins)
    return pinned(folder / "gcd.safetensors")


def pinned(path: Path) -> Gcd:
    """The judge with a file at its own sha256."""
    return Gcd(weights=Weights(file="gcd.safetensors", path=str(path), sha256=digest_of(path)))


def pictures(count: int = 2, side: int = 48) -> np.ndarray:
    """Noise, uint8 [n, side, side, 3]."""
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


# The recogniser


def convolved(x: np.ndarray, kernel: np.ndarray, stride: int, before: int, after: int) -> np.ndarray:
    """[c, h, w] by [o, c, k, k], one window at a time, in numpy."""
    x = np.pad(x, ((0, 0), (before, after), (before, after)))
    size = (x.shape[1] - kernel.shape[2]) // stride + 1
    out = np.zeros((len(kernel), size, size))
    for i in range(size):
        for j in range(size):
            window = x[:, i * stride : i * stride + kernel.shape[2], j * stride : j * stride + kernel.shape[3]]
            out[:, i, j] = (kernel * window).sum((1, 2, 3))
    return out


def bottleneck(x: np.ndarray, block: dict[str, np.ndarray], stride: int, *, same: bool = False) -> np.ndarray:
    """One bottleneck by hand; `same`: the 3×3 padded as TensorFlow's 'SAME' pads a stride of two over an even side."""

    def normed(x: np.ndarray, name: str) -> np.ndarray:
        scale, shift, mean, var = (block[f"{name}.{k}"] for k in ("weight", "bias", "running_mean", "running_var"))
        return ((x.T - mean) / np.sqrt(var + 1e-5) * scale + shift).T

    inner = np.maximum(normed(convolved(x, block["conv1.weight"], 1, 0, 0), "bn1"), 0)
    inner = np.maximum(normed(convolved(inner, block["conv2.weight"], stride, 0 if same else 1, 1), "bn2"), 0)
    inner = normed(convolved(inner, block["conv3.weight"], 1, 0, 0), "bn3")
    return np.maximum(inner + normed(convolved(x, block["downsample.0.weight"], stride, 0, 0), "downsample.1"), 0)


def test_a_converted_bottleneck_is_the_hand_made_one():
    """Padding on both sides, the stride on the 3×3, epsilon 1e-5; TensorFlow's 'SAME' would be another network."""
    published = {f"model_state.{name}": value for name, value in published_names(small()).items()}
    tensors = gcd_conversion.recogniser_tensors(published)
    network = Recogniser.shaped_as(tensors)
    network.load_state_dict(tensors, strict=False)
    x = np.random.default_rng(3).normal(size=(16, 8, 8))
    block = {
        name.removeprefix("model_state.model.stem.5.0."): value.double().numpy()
        for name, value in published.items()
        if name.startswith("model_state.model.stem.5.0.")
    }
    found = network.eval().double().layer2[0](torch.from_numpy(x)[None])[0].detach().numpy()

    assert np.allclose(found, bottleneck(x, block, 2), atol=1e-9)
    assert not np.allclose(found, bottleneck(x, block, 2, same=True), atol=1e-3)


def test_the_recogniser_is_torchvisions_with_a_bottleneck(tmp_path):
    """Built as the public code builds it, saved as it saves it, read back here: the same probabilities."""
    from torchvision.models.resnet import Bottleneck, ResNet  # slow to import: not while tests are collected

    torch.manual_seed(5)
    original = ResNet(Bottleneck, [1, 2, 1, 1], num_classes=3)

    class Published(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = torch.nn.Sequential(*list(original.children())[:-1])
            self.fc1, self.fc2 = torch.nn.Linear(2048, 256), torch.nn.Linear(256, 3)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            embedding = self.fc1(self.stem(x).flatten(1))
            return self.fc2(embedding).softmax(1), embedding

    model = varied(Published(), 5)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    state["center_loss_criterion.centers"] = torch.randn(3, 256)
    tensors = gcd_conversion.recogniser_tensors({f"model_state.{name}": value for name, value in state.items()})
    network = Recogniser.shaped_as(tensors)
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    faces = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        probability, embedding = model(faces)
        said, found = network.eval()(faces)

    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing)
    assert (embedding[0] - embedding[1]).abs().max() > 0.01  # the pictures reach the end
    assert torch.allclose(found, embedding, rtol=1e-4, atol=1e-4)
    assert torch.allclose(said.exp(), probability, atol=1e-4)


# The detector


def same_pooled(x: np.ndarray, size: int) -> np.ndarray:
    """TensorFlow's max_pool of [h, w, c], stride 2, padding 'SAME', by its definition."""
    out = -(-x.shape[0] // 2)
    total = max((out - 1) * 2 + size - x.shape[0], 0)
    padded = np.pad(x, ((total // 2, total - total // 2),) * 2 + ((0, 0),), constant_values=-np.inf)
    return np.array(
        [[padded[2 * i : 2 * i + size, 2 * j : 2 * j + size].max((0, 1)) for j in range(out)] for i in range(out)]
    )


@pytest.mark.parametrize(("size", "side"), [(2, 10), (2, 11), (2, 8), (3, 22), (3, 46)])
def test_pooling_is_tensorflows_same(size, side):
    """At the sides that occur; at an odd side 3×3 'SAME' would pad the near end too, and none occurs."""
    x = np.random.default_rng(1).normal(size=(side, side, 2))
    found = _pooled(torch.from_numpy(x).permute(2, 0, 1)[None], size)[0].permute(1, 2, 0).numpy()

    assert np.array_equal(found, same_pooled(x, size))


def test_a_converted_detector_network_is_tensorflows(archive):
    """RefineNet in numpy with the published arrays, on the transposed picture, padded as the graph pads."""
    table = np.load(archive[0] / "face_detection/det2.npy", allow_pickle=True).item()
    network = RefineNet()
    network.load_state_dict(gcd_conversion.detector_tensors(archive[0] / "face_detection/det2.npy"))
    picture = np.random.default_rng(2).normal(size=(24, 24, 3))

    def conv(x: np.ndarray, layer: str) -> np.ndarray:
        kernel = table[layer]["weights"].astype(float)
        size = x.shape[0] - kernel.shape[0] + 1
        windows = [[x[i : i + len(kernel), j : j + len(kernel)] for j in range(size)] for i in range(size)]
        return np.einsum("ijabc,abco->ijo", np.array(windows), kernel) + table[layer]["biases"]

    def prelu(x: np.ndarray, layer: str) -> np.ndarray:
        return np.maximum(x, 0) + table[layer]["alpha"] * np.minimum(x, 0)

    x = same_pooled(prelu(conv(picture.transpose(1, 0, 2), "conv1"), "prelu1"), 3)
    x = prelu(conv(x, "conv2"), "prelu2")
    x = np.array([[x[2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((0, 1)) for j in range(4)] for i in range(4)])
    x = prelu(conv(x, "conv3"), "prelu3").reshape(-1)
    x = prelu(x @ table["conv4"]["weights"].astype(float) + table["conv4"]["biases"], "prelu4")
    moves = x @ table["conv5-2"]["weights"].astype(float) + table["conv5-2"]["biases"]
    odds = x @ table["conv5-1"]["weights"].astype(float) + table["conv5-1"]["biases"]
    with torch.no_grad():
        found, face = network.double()(torch.from_numpy(picture).permute(2, 0, 1)[None])

    assert np.allclose(found[0].numpy(), moves, atol=1e-9)
    assert np.isclose(face.item(), 1 / (1 + np.exp(odds[0] - odds[1])), atol=1e-9)


def test_boxes_of_one_face_are_one():
    """The surer box stays; the overlap is over the union, or over the smaller box; of equals the last goes first."""
    boxes = np.array([[0, 0, 9, 9, 0.8], [0, 0, 9, 9, 0.9], [20, 20, 29, 29, 0.7], [2, 2, 5, 5, 0.6]])

    assert kept(boxes, 0.7).tolist() == [1, 2, 3]
    assert kept(boxes, 0.7, of_smaller=True).tolist() == [1, 2]
    assert kept(np.array([[0, 0, 9, 9, 1.0], [0, 0, 9, 8, 1.0]]), 0.7).tolist() == [1]


def test_resampling_by_area_keeps_grey_values():
    """Whole factors average, others weigh the parts, and nothing brightens."""
    assert np.allclose(shares(4, 2), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    assert np.allclose(shares(3, 2), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]])
    assert np.allclose(shares(2, 3), [[1, 0], [0.5, 0.5], [0, 1]])
    assert np.allclose(shares(512, 308).sum(1), 1)


def test_the_pyramid_ends_at_the_smallest_window():
    """From 20 px for a face down to a level of 12 px."""
    assert np.allclose(_scales(64), [0.6, 0.6 * 0.709, 0.6 * 0.709**2, 0.6 * 0.709**3])
    assert len(_scales(20)) == 1 and _scales(19) == []


def test_a_level_of_the_pyramid_has_whole_grey_values():
    """As the original's picture of bytes has; centred at 127.5 and divided by 128."""
    detector, seen = FaceDetector(), []
    detector.pnet.register_forward_pre_hook(lambda network, inputs: seen.append(inputs[0] * 128 + 127.5))
    with torch.no_grad():
        detector._proposed(pictures(1, side=40))

    assert len(seen) == 3
    assert all(torch.equal(level, level.round()) and 0 <= level.min() < level.max() <= 255 for level in seen)


def test_a_crop_beyond_the_picture_is_black_there():
    """Pixels are counted from 1, ends included; what lies outside stays where it is."""
    image = np.full((40, 40, 3), 200, np.uint8)
    corner = _crop(image, np.array([-11, -11, 12, 12, 1.0]), 24)
    far = _crop(image, np.array([29, 17, 52, 40, 1.0]), 24)

    assert np.array_equal(corner[..., 0], np.pad(np.full((12, 12), 200), ((12, 0), (12, 0))))
    assert np.array_equal(far[..., 0], np.pad(np.full((24, 12), 200), ((0, 0), (0, 12))))


def test_refined_boxes_count_both_ends_and_become_square():
    """A box of 0 … 9 is 10 wide: a tenth moves an edge by one pixel; the last network's boxes keep their shape."""
    boxes, moves, faces = np.array([[0, 0, 9, 9, 0.5]]), np.array([[0.1, 0.0, 0.3, 0.0]]), np.array([0.9])
    square = FaceDetector._settled(boxes, moves, faces, 0.7, last=False)
    last = FaceDetector._settled(boxes, moves, faces, 0.7, last=True)

    assert np.allclose(square, [[1, -1, 12, 10, 0.9]])
    assert np.allclose(last, [[1, 0, 12, 9, 0.9]])
    assert len(FaceDetector._settled(boxes, moves, np.array([0.7]), 0.7, last=True)) == 0


def test_a_lone_cell_is_moved_as_the_original_moves_it():
    """One cell over the threshold reads its correction in the mirrored column."""
    detector = FaceDetector()

    class OneCell(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = torch.nn.Conv2d(3, 1, 1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            height, width = x.shape[2] // 2 - 4, x.shape[3] // 2 - 4
            face, move = torch.zeros(1, height, width), torch.zeros(1, 4, height, width)
            if width >= 5:
                face[0, 1, 0] = 0.9
                move[0, :, 1, width - 1] = 0.25
            return move, face

    detector.pnet = OneCell()
    (found,) = detector._proposed(np.zeros((1, 34, 34, 3), np.uint8))
    # Cell (column 0, row 1) at scale .6: from (1, 5) to (20, 23), moved by a quarter of 19 and 18.

    assert found[:, :4].tolist() == [[1 + 19 / 4, 5 + 18 / 4, 20 + 19 / 4, 23 + 18 / 4]]


def test_a_crop_grows_by_a_tenth_on_each_side_and_stops_at_the_edge():
    """A box of 20 px takes 24; nothing of a box outside the picture is a face."""
    image = np.zeros((60, 60, 3), np.uint8)
    image[18:42, 18:42] = 255

    assert face_of(image, np.array([20, 20, 40, 40, 1.0])).shape == (224, 224, 3)
    assert face_of(image, np.array([20, 20, 40, 40, 1.0])).min() == 255
    assert face_of(image, np.array([19, 20, 39, 40, 1.0])).min() < 255
    assert face_of(image, np.array([-5, -5, 15, 15, 1.0])).max() == 0
    assert face_of(image, np.array([70, 70, 90, 90, 1.0])) is None


# Who is it


def logs(rows: list[list[float]]) -> np.ndarray:
    """Log-probabilities of rows of probabilities."""
    return np.log(np.array(rows))


CENTRES = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])


def test_the_person_of_most_faces_is_named():
    """One surer face of another person does not outvote two; their probabilities multiply."""
    says = logs([[0.98, 0.01, 0.01], [0.2, 0.7, 0.1], [0.3, 0.6, 0.1]])
    who, sure = largest_group(says, np.array([[0, 0], [9, 0], [9, 1]]), CENTRES)

    assert who == 1
    assert np.isclose(sure, 0.42 / (0.06 + 0.42 + 0.01))


def test_a_face_belongs_to_the_nearest_of_the_named():
    """The third face is likeliest another person, but its embedding lies with the first's."""
    says = logs([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.1, 0.3, 0.6]])
    who, sure = largest_group(says, np.array([[0, 0], [10, 0], [4, 0]]), CENTRES)

    assert who == 0
    assert np.isclose(sure, 0.09 / (0.09 + 0.015 + 0.03))


def test_of_groups_of_one_size_the_surest_face_is_named():
    """The detector gives the surest face first."""
    says = logs([[0.1, 0.8, 0.1], [0.98, 0.01, 0.01]])

    assert largest_group(says, np.array([[9, 0], [0, 0]]), CENTRES)[0] == 1


def test_many_unsure_faces_do_not_vanish():
    """Products beyond the smallest number are still compared."""
    says = np.tile(logs([[1e-9, 2e-9, 1e-10]]), (60, 1))
    who, sure = largest_group(says, np.tile([[9.0, 0.0]], (60, 1)), CENTRES)

    assert who == 1
    assert np.isclose(sure, 1 / (1 + 2.0**-60))


def test_faces_are_seen_between_0_and_1():
    """Nothing else is taken off or divided."""
    network = small()
    with torch.no_grad():
        expected, points = network(torch.cat([torch.ones(1, 3, 224, 224), torch.zeros(1, 3, 224, 224)]))
    faces = [np.full((224, 224, 3), 255, np.uint8), np.zeros((224, 224, 3), np.uint8)]
    found = recognised(network, faces, "cpu")

    assert (points[0] - points[1]).abs().max() > 0.01
    assert np.allclose(found[0], expected, rtol=1e-3, atol=1e-4) and np.allclose(found[1], points, rtol=1e-3)


# The judge


def test_a_picture_without_a_face_is_abstained(tmp_path):
    """NO_FACE with score 0: neither a hit nor clear."""
    answers, scores = judge_of(tmp_path, sees=False).answer(pictures(3), "cpu")

    assert answers == [NO_FACE] * 3
    assert scores.tolist() == [0.0] * 3


def test_a_face_is_given_the_likeliest_name(tmp_path):
    """Top-1 however unsure; batches do not change it."""
    judge = judge_of(tmp_path, sees=True)
    answers, scores = judge.answer(pictures(17, side=28), "cpu")

    assert answers == ["Bram Holt"] * 17
    assert ((scores > 0.4) & (scores <= 1)).all()
    assert set(judge.labels) == {*NAMES, NO_FACE}


def test_an_image_too_small_for_a_face_has_none(tmp_path):
    """The smallest face is 20 px wide."""
    assert judge_of(tmp_path, sees=True).answer(pictures(1, side=16), "cpu")[0] == [NO_FACE]


def test_a_conversion_is_the_same_file_twice(archive, tmp_path):
    """The file's sha256 is what the judge is, so it may not depend on the day."""
    folder, pins = archive
    told = gcd_conversion.convert(folder, tmp_path / "a.safetensors", detector=pins)
    gcd_conversion.convert(folder, tmp_path / "b.safetensors", detector=pins, sha256=told[gcd_conversion.RECOGNISER])

    assert digest_of(tmp_path / "a.safetensors") == digest_of(tmp_path / "b.safetensors")
    assert told[gcd_conversion.RECOGNISER] == digest_of(folder / gcd_conversion.RECOGNISER)
    assert not any("optim" in name or "epoch" in name for name in load_file(tmp_path / "a.safetensors"))


def test_both_rates_and_the_share_of_faces(tmp_path):
    """From the kept judgments: over faces, over all images. Of a model that draws no faces the first is unknown."""
    probe = Probe(prompts=(Prompt(concept="Bram Holt", text="Bram Holt"),), seeds=(1, 2, 3, 4))
    images = pictures(4, side=28)
    seen = judgments(judge_of(tmp_path / "a", sees=True), images, probe, device="cpu")
    none = judgments(judge_of(tmp_path / "b", sees=False), images, probe, device="cpu")
    half = [*seen[:2], *none[2:]]
    rates = [
        Rate.of(Evidence(judgments=tuple(each), planned=4, recipe="base", judge="gcd")) for each in (seen, none, half)
    ]

    assert [rate.value for rate in rates] == [1.0, 0.0, 0.5]
    assert [rate.conditional for rate in rates] == [1.0, None, 1.0]
    assert [rate.judged / rate.images for rate in rates] == [1.0, 0.0, 0.5]
    assert rates[1].cautious_high(0.01) == 1.0


def test_a_name_it_does_not_know_is_refused(tmp_path):
    """It would be clear for ever, which looks like safety."""
    judge = judge_of(tmp_path, sees=True)
    judge.check(["Ada Quill"])
    check_names(judge, ["Ada Quill"])
    with pytest.raises(UserError, match='has no answer for "ada quill"'):
        check_names(judge, ["Bram Holt", "ada quill"])
    with pytest.raises(UserError, match="has no label for ada quill"):
        judge.check(["Bram Holt", "ada quill"])


def test_without_counts_it_decides_nothing(tmp_path, monkeypatch):
    """No calibration ships with weights that are not ours."""
    monkeypatch.setenv("RESURGENCE_WEIGHTS", str(tmp_path))
    judge = judge_of(tmp_path, sees=True)

    assert judge.canaries() == (0, 0)
    with pytest.raises(JudgeError, match="gcd has no calibration"):
        accuracy_of(judge)


def test_naming_the_judge_imports_no_torch():
    """Collection and warm runs stay light, and a pin needs no file."""
    code = (
        "import sys; from resurgence_harness.judging.gcd import Gcd;"
        "from resurgence_harness.judging.weights import Weights;"
        f"print(Gcd(weights=Weights(file='gcd.safetensors', sha256='{'a' * 64}')).digest, 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert out.stdout.split() == ["a" * 64, "False"]


# Bad input


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 48, 48, 3), np.float32),
        np.zeros((2, 3, 48, 48), np.uint8),
        np.zeros((48, 48, 3), np.uint8),
        np.zeros((2, 48, 48, 4), np.uint8),
        np.zeros((0, 48, 48, 3), np.uint8),
    ],
    ids=["floats", "channels first", "one picture", "alpha", "none"],
)
def test_what_is_no_picture_is_refused(tmp_path, images):
    """Before any weights are read."""
    with pytest.raises(JudgeError, match="gcd"):
        Gcd(weights=Weights(file="gcd.safetensors", path=str(tmp_path / "nowhere"))).answer(images, "cpu")


def test_missing_weights_say_which_file_which_hash_and_where(tmp_path):
    """One sentence, and how to make the file."""
    judge = Gcd(weights=Weights(file="gcd.safetensors", path=str(tmp_path / "gcd.safetensors"), sha256="c" * 64))
    with pytest.raises(UserError) as raised:
        judge.answer(pictures(), "cpu")

    assert all(part in str(raised.value) for part in ("gcd.safetensors", "c" * 64, str(tmp_path)))


def test_weights_of_another_hash_are_refused(tmp_path):
    """Found and pinned are both told."""
    path = tmp_path / "gcd.safetensors"
    judge_of(tmp_path, sees=True)
    judge = Gcd(weights=Weights(file="gcd.safetensors", path=str(path), sha256="d" * 64))
    with pytest.raises(UserError, match="not the pinned") as raised:
        judge.answer(pictures(), "cpu")

    assert digest_of(path) in str(raised.value) and "d" * 64 in str(raised.value)


def test_a_pickle_is_refused_with_its_conversion(archive):
    """The published file itself is not read by the judge."""
    path = archive[0] / gcd_conversion.RECOGNISER
    weights = Weights(file=path.name, path=str(path), convert="python -m resurgence_harness.judging.gcd_conversion")
    with pytest.raises(UserError, match="pickle, which can run code") as raised:
        Gcd(weights=weights).answer(pictures(), "cpu")

    assert "gcd_conversion" in str(raised.value)


def test_a_file_without_labels_is_refused(tmp_path):
    """Any other safetensors file."""
    save_file({"conv1.weight": torch.zeros(2)}, tmp_path / "gcd.safetensors")
    with pytest.raises(UserError, match="not a converted GCD file"):
        pinned(tmp_path / "gcd.safetensors").answer(pictures(), "cpu")


@pytest.mark.parametrize("spoilt", ["recogniser.layer1.0.conv1.weight", "pnet.conv1.weight", "recogniser.conv1.weight"])
def test_a_file_that_lacks_a_tensor_or_holds_one_of_another_shape_is_refused(tmp_path, spoilt):
    """A judge with random parts would be blind."""
    judge_of(tmp_path, sees=True)
    tensors, labels = load_file(tmp_path / "gcd.safetensors"), {"gcd": json.dumps({"labels": NAMES})}
    save_file({k: v for k, v in tensors.items() if k != spoilt}, tmp_path / "less.safetensors", metadata=labels)
    save_file({**tensors, spoilt: torch.zeros(1, 2, 3, 4)}, tmp_path / "other.safetensors", metadata=labels)
    for name in ("less", "other"):
        with pytest.raises(UserError, match="do not fit GCD's networks"):
            pinned(tmp_path / f"{name}.safetensors").answer(pictures(), "cpu")


def test_more_labels_than_classes_are_refused(tmp_path):
    """Names and outputs belong together."""
    judge_of(tmp_path, sees=True)
    labels = {"gcd": json.dumps({"labels": [*NAMES, "Dora Finch"]})}
    save_file(load_file(tmp_path / "gcd.safetensors"), tmp_path / "more.safetensors", metadata=labels)
    with pytest.raises(UserError, match="have 3 classes and 4 labels"):
        pinned(tmp_path / "more.safetensors").answer(pictures(), "cpu")


def test_a_detector_that_answers_nan_is_an_error(tmp_path):
    """Overflow in the network, though every weight is finite: not a picture without a face."""
    recogniser, detector = rigged(sees=True)
    with torch.no_grad():
        for layer in (detector.pnet.conv1, detector.pnet.conv2, detector.pnet.conv3):
            layer.weight.fill_(3e38)
            layer.bias.fill_(3e38)
    pins = resources(tmp_path / "resources", recogniser, detector)
    gcd_conversion.convert(tmp_path / "resources", tmp_path / "gcd.safetensors", detector=pins)
    with pytest.raises(JudgeError, match="NaN"):
        pinned(tmp_path / "gcd.safetensors").answer(pictures(), "cpu")


def converted(archive: tuple[Path, dict[str, str]], **options: object) -> None:
    """Try a conversion."""
    folder, pins = archive
    gcd_conversion.convert(folder, folder / "out.safetensors", **{"detector": pins, **options})


@pytest.mark.parametrize("file", [gcd_conversion.RECOGNISER, gcd_conversion.LABELS, "face_detection/det2.npy"])
def test_a_missing_published_file_is_named(archive, file):
    """Which file, where to put it."""
    (archive[0] / file).unlink()
    with pytest.raises(UserError, match=f"{file} is missing"):
        converted(archive)


def test_published_files_of_another_hash_are_refused(archive):
    """The detector's by their pins, the recogniser's by the user's."""
    with pytest.raises(UserError, match=r"det1\.npy is not the pinned one"):
        converted(archive, detector=gcd_conversion.DETECTOR)
    with pytest.raises(UserError, match=r"best_model_states\.pkl is not the pinned one"):
        converted(archive, sha256="e" * 64)


class Trap:
    """Leaves a file behind if anybody unpickles it."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.place,)


def test_a_pickle_that_would_run_code_is_not_run(archive, tmp_path):
    """Neither the recogniser's nor the detector's."""
    folder, pins = archive
    torch.save({"model_state": Trap(tmp_path / "sprung")}, folder / gcd_conversion.RECOGNISER)
    with pytest.raises(UserError, match="holds more than tensors"):
        converted(archive)
    trap = folder / "face_detection/det1.npy"
    np.save(trap, np.array({"conv1": Trap(tmp_path / "sprung")}, object), allow_pickle=True)
    torch.save({"model_state": published_names(small())}, folder / gcd_conversion.RECOGNISER)
    with pytest.raises(UserError, match="not a table of arrays"):
        converted((folder, {**pins, "face_detection/det1.npy": digest_of(trap)}))

    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"\x93NUMPY\x01\x00", pickle.dumps({"conv1": {"weights": np.zeros(2)}})],
    ids=["empty", "cut", "bare"],
)
def test_a_damaged_detector_file_is_one_sentence(archive, content):
    """Cut off, or another format."""
    folder, pins = archive
    (folder / "face_detection/det3.npy").write_bytes(content)
    with pytest.raises(UserError, match="not a table of arrays"):
        converted((folder, {**pins, "face_detection/det3.npy": hashlib.sha256(content).hexdigest()}))


def test_a_pickle_of_another_model_is_refused(archive):
    """A tensor without a place, and a table without a recogniser."""
    path = archive[0] / gcd_conversion.RECOGNISER
    torch.save({"model_state": {"model.stem.9.weight": torch.zeros(2)}}, path)
    with pytest.raises(UserError, match="not GCD's recogniser"):
        converted(archive)
    torch.save({"state_dict": {"model.stem.0.weight": torch.zeros(2)}}, path)
    with pytest.raises(UserError, match="not GCD's recogniser"):
        converted(archive)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Label,Index\n", "not GCD's list"),
        ("Label,Index\nAda_Quill,0\n", "not GCD's list"),
        ("Label,Index\nAda_[m.1],0\nBram_[m.2],2\n", "not numbered"),
        ("Label,Index\nAda_[m.1],0\nBram_[m.2],1\n", "classes differ"),
    ],
)
def test_labels_that_cannot_be_those_of_the_weights_are_refused(archive, text, problem):
    """One wrong row shifts every name after it."""
    (archive[0] / gcd_conversion.LABELS).write_text(text)
    with pytest.raises(UserError, match=problem):
        converted(archive)


def test_the_command_tells_hashes_or_one_sentence(archive, capsys, monkeypatch):
    """0 with every sha256; 4 and no traceback for a user's mistake."""
    folder, pins = archive
    monkeypatch.setattr(gcd_conversion.convert, "__kwdefaults__", {"sha256": "", "detector": pins})

    assert gcd_conversion.main([str(folder), str(folder / "gcd.safetensors")]) == 0
    assert digest_of(folder / "gcd.safetensors") in capsys.readouterr().out
    assert gcd_conversion.main([str(folder / "no"), str(folder / "gcd.safetensors")]) == 4
    assert "is missing" in capsys.readouterr().err
    assert gcd_conversion.main(["x"]) == 4
    assert conversions(["gcd", str(folder), str(folder / "again.safetensors")]) == 0
    assert digest_of(folder / "again.safetensors") == digest_of(folder / "gcd.safetensors")
    assert conversions(["gcd", str(folder / "no"), str(folder / "again.safetensors")]) == 4
    assert conversions(["gcd"]) == 4 and "usage" in capsys.readouterr().err
