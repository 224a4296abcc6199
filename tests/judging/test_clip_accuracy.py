"""CLIP's choice among labels, on open_clip's real classes at a very small size."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from resurgence_harness.errors import JudgeError, UserError
from resurgence_harness.judging import Clip, ClipAccuracy, Weights, accuracy_of, ask, check_ready, judge_by_name
from tests.judging.tiny_clip import ARCHITECTURE, SIZE, pictures, save_tiny_clip, tiny_clip

pytestmark = pytest.mark.slow

LABELS = ("ship", "bird", "automobile")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's file."""
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def judge(weights: Path) -> ClipAccuracy:
    """A judge of three labels."""
    return ClipAccuracy(labels=LABELS, clip=tiny_clip(weights))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Seven pictures, more than one batch."""
    return np.concatenate([pictures("red", 3), pictures("blue", 4)])


def test_probabilities_are_open_clips_own(judge: ClipAccuracy, weights: Path) -> None:
    """The same numbers as open_clip's model, preprocessing and tokenizer give for the published recipe."""
    import open_clip

    images = pictures("green", 6, size=SIZE)
    model = open_clip.create_model(ARCHITECTURE, pretrained=str(weights)).eval()
    prepare = open_clip.transform.image_transform_v2(open_clip.transform.PreprocessCfg(size=SIZE), is_train=False)
    with torch.no_grad():
        seen = model.encode_image(torch.stack([prepare(Image.fromarray(one)) for one in images]), normalize=True)
        tokens = open_clip.get_tokenizer(ARCHITECTURE)([f"a photo of the {label}" for label in LABELS])
        expected = (100 * seen @ model.encode_text(tokens, normalize=True).T).softmax(1).numpy()

    assert np.allclose(judge.probabilities(images, "cpu"), expected, atol=1e-4)


def test_labels_are_read_once_and_other_labels_anew(judge: ClipAccuracy, images: np.ndarray) -> None:
    """Block after block the text tower rests; what is kept cannot be changed by who asked for it."""
    from resurgence_harness.judging.clip import _loaded

    model, _ = _loaded(*judge.clip._source("cpu"))
    runs: list[int] = []
    model.token_embedding.register_forward_hook(lambda *_: runs.append(1))
    new = replace(judge, template="a drawing of the {}")
    first = new.probabilities(images, "cpu")
    assert len(runs) == 1
    new.clip.text_features([new.template.format(label) for label in LABELS], "cpu").zero_()
    assert np.array_equal(new.probabilities(images, "cpu"), first) and len(runs) == 1
    replace(new, labels=LABELS[::-1]).probabilities(images, "cpu")
    assert len(runs) == 2


@pytest.mark.parametrize("shape", [(48, 64), (75, 50), (512, 512), (20, 31), (33, 32)])
def test_scaling_on_the_device_is_pillows_within_one_level(shape: tuple[int, int]) -> None:
    """Bicubic with antialiasing, the middle cut out, of noise, which is harder to scale than any picture."""
    import open_clip

    from resurgence_harness.judging.clip import _fitted

    images = np.random.default_rng(0).integers(0, 256, (3, *shape, 3)).astype(np.uint8)
    plain = open_clip.transform.PreprocessCfg(size=SIZE, mean=(0, 0, 0), std=(1, 1, 1))
    prepare = open_clip.transform.image_transform_v2(plain, is_train=False)
    theirs = torch.stack([prepare(Image.fromarray(one)) for one in images]) * 255
    ours = _fitted(torch.from_numpy(images).permute(0, 3, 1, 2).float(), (SIZE, SIZE))

    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1
    assert (ours - theirs).abs().mean() < 0.01


def test_the_answer_is_the_likeliest_label_and_its_probability(judge: ClipAccuracy, images: np.ndarray) -> None:
    """Whatever the batches, in the order of the images."""
    found = judge.probabilities(images, "cpu")
    answers, scores = ask(judge, images, "cpu")

    assert np.allclose(found.sum(1), 1)
    assert answers == [LABELS[place] for place in found.argmax(1)]
    assert np.array_equal(scores, found.max(1))
    assert np.allclose(judge.probabilities(images[5:], "cpu"), found[5:], atol=1e-6)


def test_the_asked_labels_probability_is_maces_statistic(judge: ClipAccuracy, images: np.ndarray) -> None:
    """Of the label asked for, not of the likeliest."""
    asked = ["bird", "ship", "ship", "automobile", "bird", "bird", "ship"]
    found = judge.probabilities(images, "cpu")

    expected = [found[row, LABELS.index(label)] for row, label in enumerate(asked)]
    assert np.allclose(judge.asked_probability(images, asked, "cpu"), expected)


@pytest.mark.parametrize("asked", [["ship"] * 6, ["boat"] * 7])
def test_asking_for_what_is_no_label_is_refused(judge: ClipAccuracy, images: np.ndarray, asked: list[str]) -> None:
    """Too few, and a synonym."""
    with pytest.raises(UserError):
        judge.asked_probability(images, asked, "cpu")


@pytest.mark.parametrize(
    "labels", [(), ("ship",), ("ship", ""), ("ship", "ship"), ("ship", "bird", "Ship "), ("bird", " ")]
)
def test_labels_that_decide_nothing_are_refused(labels: tuple[str, ...]) -> None:
    """One label is always right; two equal ones share their hits."""
    with pytest.raises(UserError, match=r"too few labels|twice"):
        ClipAccuracy(labels=labels)


def test_a_template_without_a_place_for_the_label_is_refused() -> None:
    """Every label would have one text."""
    with pytest.raises(UserError, match="has no place for the label"):
        ClipAccuracy(labels=LABELS, template="a photo")


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((0, 32, 32, 3), np.uint8),
        np.zeros((2, 32, 32, 3), np.float32),
        np.zeros((2, 3, 32, 32), np.uint8),
        np.zeros((32, 32, 3), np.uint8),
        np.zeros((2, 32, 32, 4), np.uint8),
        np.zeros((2, 0, 32, 3), np.uint8),
    ],
    ids=["none", "floats", "channels first", "one image", "alpha", "no height"],
)
def test_what_are_no_pictures_is_refused(judge: ClipAccuracy, images: np.ndarray) -> None:
    """No guessing of ranges and axes, and an empty set is no evidence."""
    with pytest.raises(JudgeError, match="not a batch of images"):
        judge.answer(images, "cpu")


def test_a_label_outside_the_set_is_an_error(weights: Path, images: np.ndarray) -> None:
    """An answer nobody declared would count as clear."""

    class Strange(ClipAccuracy):
        def answer(self, images: np.ndarray, device: str) -> tuple[list[str], np.ndarray]:
            answers, scores = super().answer(images, device)
            return ["boat", *answers[1:]], scores

    with pytest.raises(UserError, match="outside its labels"):
        ask(Strange(labels=LABELS, clip=tiny_clip(weights)), images, "cpu")


def test_whatever_changes_its_answers_changes_its_digest(judge: ClipAccuracy, weights: Path) -> None:
    """Labels, their order, template, preprocessing, architecture and weights; not the batch, nor where they lie."""
    clip = judge.clip
    others = [
        replace(judge, labels=LABELS[:2]),
        replace(judge, labels=LABELS[::-1]),
        replace(judge, template="{}"),
        replace(judge, clip=replace(clip, mean=(0.5, 0.5, 0.5))),
        replace(judge, clip=replace(clip, architecture="ViT-B-32")),
        replace(judge, clip=replace(clip, weights=Weights(file="x", sha256="ab" * 32))),
    ]
    digests = [one.digest for one in (judge, *others)]

    assert len(set(digests)) == len(digests)
    assert replace(judge, clip=replace(clip, batch=1)).digest == judge.digest


def test_a_nan_in_an_embedding_is_an_error(
    judge: ClipAccuracy, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no vector, so nobody's likeness."""
    model, _ = judge.clip._model("cpu")
    with torch.no_grad():
        kept = model.visual.proj[0, 0].item()
        model.visual.proj[0, 0] = torch.nan
    try:
        with pytest.raises(JudgeError, match="NaN"):
            judge.answer(images, "cpu")
    finally:
        with torch.no_grad():
            model.visual.proj[0, 0] = kept


def test_weights_of_another_architecture_are_refused(weights: Path, images: np.ndarray, tmp_path: Path) -> None:
    """Missing, unexpected and misshapen tensors are told; nothing is loaded in part."""
    tensors = load_file(weights)
    tensors["extra"] = torch.zeros(1)
    del tensors["ln_final.weight"]
    tensors["visual.proj"] = tensors["visual.proj"][:, :3].contiguous()
    save_file(tensors, tmp_path / "other.safetensors")

    with pytest.raises(UserError, match=r"do not fit tiny-clip(.|\n)*ln_final.weight(.|\n)*extra(.|\n)*visual.proj"):
        ClipAccuracy(labels=LABELS, clip=tiny_clip(tmp_path / "other.safetensors")).answer(images, "cpu")


def test_an_unknown_architecture_is_refused(weights: Path, images: np.ndarray) -> None:
    """By its word."""
    clip = Clip(architecture="ViT-Z-99", weights=Weights(file="x", path=str(weights)))
    with pytest.raises(UserError, match='no architecture "ViT-Z-99"'):
        ClipAccuracy(labels=LABELS, clip=clip).answer(images, "cpu")


def test_an_architecture_that_would_download_is_refused(weights: Path, images: np.ndarray) -> None:
    """Its text model or its tokenizer comes from the hub."""
    for architecture in ("roberta-ViT-B-32", "ViT-B-16-SigLIP"):
        clip = Clip(architecture=architecture, weights=Weights(file="x", path=str(weights)))
        with pytest.raises(UserError, match="would download"):
            ClipAccuracy(labels=LABELS, clip=clip).answer(images, "cpu")


def test_missing_weights_are_named(images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The paper's judge, on a machine that has nothing."""
    monkeypatch.setenv("RESURGENCE_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match=r"weights clip-vit-b-32-openai\.safetensors are missing"):
        judge_by_name("clip-accuracy").answer(images, "cpu")


def test_without_counts_it_decides_nothing_and_has_no_canaries(
    judge: ClipAccuracy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No flattering default."""
    monkeypatch.setenv("RESURGENCE_WEIGHTS", str(tmp_path))
    with pytest.raises(JudgeError, match="has no calibration"):
        accuracy_of(judge)

    assert judge.canaries() == (0, 0)


def test_what_it_lacks_is_told_before_images_are_drawn(
    judge: ClipAccuracy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing weights, changed ones, and no calibration: hours earlier than with the first image."""
    monkeypatch.setenv("RESURGENCE_WEIGHTS", str(tmp_path))
    with pytest.raises(JudgeError, match="has no calibration"):
        check_ready(judge)
    pinned = replace(judge, clip=replace(judge.clip, weights=replace(judge.clip.weights, sha256="0" * 64)))
    with pytest.raises(UserError, match="are not the pinned ones"):
        check_ready(pinned)
    for name in ("clip-accuracy", "q16"):
        with pytest.raises(UserError, match="are missing"):
            check_ready(judge_by_name(name))


def test_naming_the_judges_imports_neither_torch_nor_open_clip() -> None:
    """Collection and warm runs stay light."""
    code = (
        "import sys; from resurgence_harness.judging import judge_by_name as j; j('clip-accuracy').labels; j('q16');"
        "print([m for m in ('torch', 'open_clip', 'transformers') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert out.stdout.strip() == "[]"
