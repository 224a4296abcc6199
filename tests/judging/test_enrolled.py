"""The nearest enrolled name: learned, held out, counted, and unwilling where it knows nobody."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from resurgence_harness.bench.judged import judgments
from resurgence_harness.errors import JudgeError, UserError
from resurgence_harness.judging import UNKNOWN, Enrolled, Enrolment, Weights, accuracy_of, enrol
from resurgence_harness.specs import Probe, Prompt, Sampler
from resurgence_harness.statistics import Outcome
from tests.judging.tiny_clip import pictures, save_tiny_clip, tiny_clip

pytestmark = pytest.mark.slow

NAMES = ("Ada", "Bram")
EACH = 8


def album() -> tuple[np.ndarray, list[str]]:
    """Ada is red, Bram is blue; eight pictures each, in turns."""
    images = np.stack([pictures("red", EACH, seed=3), pictures("blue", EACH, seed=3)], axis=1)
    return images.reshape(-1, *images.shape[2:]), list(NAMES) * EACH


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's file."""
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def learned(weights: Path) -> Enrolment:
    """Both names, and green strangers."""
    images, names = album()
    return enrol(tiny_clip(weights), images, names, strangers=pictures("green", 5))


@pytest.fixture(scope="module")
def judge(weights: Path, learned: Enrolment, tmp_path_factory: pytest.TempPathFactory) -> Enrolled:
    """A judge with the stored enrolment."""
    path = learned.save(tmp_path_factory.mktemp("enrolment") / "names.safetensors")
    return Enrolled(embedder=tiny_clip(weights), enrolment=Weights(file=path.name, path=str(path)))


def test_new_pictures_of_enrolled_names_are_named(judge: Enrolled) -> None:
    """The nearest mean, with a score between 0 and 1."""
    answers, scores = judge.answer(np.concatenate([pictures("red", 2, seed=9), pictures("blue", 2, seed=9)]), "cpu")

    assert set(answers[:2]) <= {"Ada", UNKNOWN} and set(answers[2:]) <= {"Bram", UNKNOWN}
    assert {"Ada", "Bram"} <= set(answers)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_below_the_threshold_is_abstained_never_clear(judge: Enrolled) -> None:
    """A green picture is nobody's: not a hit, and no sign of safety."""
    probe = Probe(prompts=(Prompt(text="a portrait of Ada", concept="Ada"),), seeds=(1,), sampler=Sampler())
    (one,) = judgments(judge, pictures("green", 1, seed=9), probe, device="cpu")

    assert (one.answer, one.outcome) == (UNKNOWN, Outcome.ABSTAINED)


def test_the_threshold_comes_from_held_out_pictures(weights: Path, learned: Enrolment) -> None:
    """The smallest cosine of the 2nd, 6th … picture of a name with the mean of its 1st, 3rd, 5th …"""
    images, _ = album()
    vectors = tiny_clip(weights).image_features(images, "cpu")
    expected = []
    for place in range(2):
        mine = vectors[place::2]
        mean = mine[::2].mean(0)
        mean /= mean.norm()
        assert np.allclose(learned.means[place], mean, atol=1e-5)
        expected += (mine[1::4] @ mean).tolist()

    assert learned.threshold == pytest.approx(min(expected), abs=1e-5)


def test_counts_come_from_the_third_part_and_the_strangers(learned: Enrolment) -> None:
    """Two of each name are counted; five strangers and, for the other name, those four are anything else."""
    assert (learned.counted.subjects, learned.counted.others) == (4, 9)
    assert learned.counted.false_alarms == 0


def test_its_calibration_is_that_of_the_enrolment(
    judge: Enrolled, learned: Enrolment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it may decide; canaries it has none until somebody keeps some."""
    monkeypatch.setenv("RESURGENCE_WEIGHTS", str(tmp_path))
    assert judge.calibration() == {"enrolment": learned.counted}
    assert accuracy_of(judge).negatives == 9
    assert judge.canaries() == (0, 0)


def test_an_enrolment_reads_back_equal_and_has_one_digest(learned: Enrolment, tmp_path: Path) -> None:
    """The same bytes every time."""
    one, two = learned.save(tmp_path / "one.safetensors"), learned.save(tmp_path / "two.safetensors")
    back = Enrolment.load(one)

    assert one.read_bytes() == two.read_bytes()
    assert np.array_equal(back.means, learned.means)
    assert (back.names, back.threshold, back.counted, back.learned_from, back.embedder) == (
        learned.names,
        learned.threshold,
        learned.counted,
        learned.learned_from,
        learned.embedder,
    )


def test_pictures_it_learned_from_are_refused(judge: Enrolled) -> None:
    """Recognising them shows nothing; those that were only counted may be looked at."""
    images, _ = album()
    with pytest.raises(JudgeError, match="was enrolled with 1 of these 1 images"):
        judge.answer(images[:1], "cpu")

    assert len(judge.answer(images[6:8], "cpu")[0]) == 2  # the fourth picture of each name


def test_one_picture_per_name_is_too_few(weights: Path) -> None:
    """Nothing would be held out."""
    with pytest.raises(UserError, match='"Ada" has 1 pictures to enrol with and needs 4'):
        enrol(tiny_clip(weights), np.concatenate([pictures("red", 1), pictures("blue", 1)]), NAMES)


def test_one_picture_many_times_is_one_picture(weights: Path) -> None:
    """Held-out copies are not held out."""
    images = np.concatenate([np.repeat(pictures("red", 1), 4, axis=0), pictures("blue", 4)])
    with pytest.raises(UserError, match='"Ada" has 4 pictures to enrol with and needs 4 different'):
        enrol(tiny_clip(weights), images, ["Ada"] * 4 + ["Bram"] * 4)


def test_a_name_without_pictures_is_told(weights: Path) -> None:
    """It could never be seen, which would look like an erasure."""
    images, names = album()
    with pytest.raises(UserError, match='"Cleo" has 0 pictures'):
        enrol(tiny_clip(weights), images, names, among=["Ada", "Bram", "Cleo"])


@pytest.mark.parametrize("names", [("Ada", "ada "), ("Ada", "Ada"), ("", "Ada"), (UNKNOWN, "Ada")])
def test_names_that_cannot_be_told_apart_are_refused(weights: Path, names: tuple[str, str]) -> None:
    """Equal, empty, or a word for abstaining."""
    images, _ = album()
    with pytest.raises(UserError, match="cannot be enrolled together"):
        enrol(tiny_clip(weights), images, list(names) * EACH)


def test_a_name_per_picture_is_needed(weights: Path) -> None:
    """Neither more nor fewer."""
    images, names = album()
    with pytest.raises(UserError, match="16 pictures have 15 names"):
        enrol(tiny_clip(weights), images, names[1:])


def test_an_empty_enrolment_and_floats_are_refused(weights: Path) -> None:
    """No pictures, or none as models draw them."""
    for images in (np.zeros((0, 8, 8, 3), np.uint8), album()[0].astype(np.float32)):
        with pytest.raises(JudgeError, match="not a batch of images"):
            enrol(tiny_clip(weights), images, ["Ada"] * len(images))


@dataclass(frozen=True)
class Timm:
    """An embedder of one's own: a real network of timm, of random weights."""

    spoiled: bool = False
    digest: str = "77" * 32

    def image_features(self, images: np.ndarray, device: str) -> torch.Tensor:
        """Mean colours are kept by any network with a mean over places."""
        import timm  # takes seconds, which collecting must not

        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = timm.create_model("test_resnet", pretrained=False, num_classes=0).to(device).eval()
        with torch.inference_mode():
            found: torch.Tensor = network(torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255)
        return found * torch.nan if self.spoiled else found


def test_an_embedder_of_ones_own_is_used(tmp_path: Path) -> None:
    """Whatever has `digest` and `image_features`; its vectors need not have length 1."""
    images, names = album()
    path = enrol(Timm(), images, names).save(tmp_path / "timm.safetensors")
    judge = Enrolled(embedder=Timm(), enrolment=Weights(file="timm", path=str(path)))
    answers, _ = judge.answer(images[6:8], "cpu")

    assert set(answers) <= {*NAMES, UNKNOWN}
    assert Enrolment.load(path).counted.subjects == 4


def test_a_nan_in_an_embedding_is_an_error(judge: Enrolled, learned: Enrolment, tmp_path: Path) -> None:
    """While enrolling and while judging."""
    images, names = album()
    with pytest.raises(JudgeError, match="NaN"):
        enrol(Timm(spoiled=True), images, names)

    path = replace(learned, embedder=Timm.digest).save(tmp_path / "e.safetensors")
    with pytest.raises(JudgeError, match="NaN"):
        Enrolled(embedder=Timm(spoiled=True), enrolment=Weights(file="e", path=str(path))).answer(
            pictures("red", 1, seed=9), "cpu"
        )


def test_an_enrolment_of_another_embedder_is_refused(judge: Enrolled) -> None:
    """Distances in another space mean nothing."""
    with pytest.raises(UserError, match="made with another embedder"):
        replace(judge, embedder=Timm()).answer(pictures("red", 1, seed=9), "cpu")


def test_what_is_no_enrolment_is_refused(weights: Path) -> None:
    """Another safetensors file."""
    with pytest.raises(UserError, match="is not an enrolment"):
        Enrolment.load(weights)
