"""Counts on known pictures: what is counted, to whom it is bound, and that nothing stands in for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from resurgence_harness.errors import JudgeError, UserError
from resurgence_harness.judging import Calibration, KnownPictures, Weights, accuracy_of, calibrate, keep
from resurgence_harness.judging.calibrating import canaries_of, counts_of

pytestmark = pytest.mark.slow

PLACES = {"red": 0, "green": 1, "blue": 2}


@dataclass(frozen=True, kw_only=True)
class Colours:
    """Names the strongest channel of each picture; of all answers, `shown` says what they stand for."""

    version: ClassVar[int] = 1
    name: str = "colours"
    digest: str = "ab" * 32
    labels: tuple[str, ...] = ("red", "green", "blue")
    given: tuple[Weights, ...] = ()
    shown: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def shows(self, answer: str) -> tuple[str, ...]:
        """The answer itself, unless declared."""
        return dict(self.shown).get(answer, (answer,))

    def check(self, names: Sequence[str]) -> None:
        """Nothing."""

    def answer(self, images: np.ndarray, device: str) -> tuple[list[str], np.ndarray]:
        """By the mean of each channel."""
        means = images.mean(axis=(1, 2))
        return [self.labels[place] for place in means.argmax(1)], means.max(1) / 255

    def calibration(self) -> dict[str, Calibration]:
        """What was kept."""
        return counts_of(self)

    def canaries(self) -> tuple[int, int]:
        """What was kept."""
        return canaries_of(self)


def known(colours: Sequence[str], truth: Sequence[str]) -> KnownPictures:
    """A picture of each colour, said to show what `truth` says."""
    images = np.zeros((len(colours), 6, 6, 3), np.uint8)
    for row, colour in enumerate(colours):
        images[row, ..., PLACES[colour]] = 200 + row
    return KnownPictures(images=images, truth=tuple(truth))


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory of weights."""
    monkeypatch.setenv("RESURGENCE_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


def test_a_picture_of_one_concept_is_anything_else_to_the_others() -> None:
    """Five subjects, one of them given another's name; a stranger always gets a name here."""
    pictures = known(
        ["red", "red", "green", "blue", "blue", "red"], ["red", "green", "green", "blue", "blue", "a stranger"]
    )

    assert calibrate(Colours(), pictures) == Calibration(recognised=4, subjects=5, false_alarms=2, others=6)


def test_concepts_called_by_one_answer_are_not_each_others_negatives() -> None:
    """As Q16: red stands for hate and violence, green and blue for nothing."""
    judge = Colours(shown=(("red", ("hate", "violence")), ("green", ()), ("blue", ())))
    pictures = known(["red", "red", "green", "green", "red"], ["hate", "violence", "hate", "harmless", "harmless"])

    assert calibrate(judge, pictures) == Calibration(recognised=2, subjects=3, false_alarms=1, others=2)


@pytest.mark.parametrize("truth", [("harmless", "harmless"), ("hate", "hate")])
def test_pictures_of_one_kind_are_no_calibration(truth: tuple[str, str]) -> None:
    """What was never tried is not known."""
    judge = Colours(shown=(("red", ("hate",)), ("green", ()), ("blue", ())))
    with pytest.raises(UserError, match="has no picture"):
        calibrate(judge, known(["red", "green"], truth))


def test_what_was_kept_is_the_judges_own() -> None:
    """Counts by kind and canaries; another digest is another judge."""
    judge = Colours()
    pictures = known(["red", "green", "blue"], ["red", "green", "blue"])
    counts = {"flat": calibrate(judge, pictures)}
    keep(judge, counts, canaries=pictures)

    assert judge.calibration() == counts
    assert judge.canaries() == (3, 3)
    assert accuracy_of(judge).positives == 3
    stranger = Colours(digest="cd" * 32)
    assert (stranger.calibration(), stranger.canaries()) == ({}, (0, 0))
    with pytest.raises(JudgeError, match="has no calibration"):
        accuracy_of(stranger)


def test_a_judge_that_changed_fails_its_canaries() -> None:
    """What was answered correctly once must be for ever."""
    judge = Colours()
    pictures = known(["red", "green", "blue"], ["red", "green", "blue"])
    keep(judge, {"flat": calibrate(judge, pictures)}, canaries=pictures)

    assert Colours(labels=("green", "red", "blue")).canaries() == (1, 3)


@pytest.mark.parametrize(
    ("colours", "truth"), [(["red", "red"], ["red", "red"]), (["red", "green"], ["red", "blue"])], ids=["one", "wrong"]
)
def test_what_are_no_canaries_is_refused(colours: list[str], truth: list[str], directory: Path) -> None:
    """Of one thing only, or answered wrongly already."""
    judge = Colours()
    counts = {"flat": calibrate(judge, known(["red", "green"], ["red", "green"]))}
    with pytest.raises(UserError, match="cannot be canaries"):
        keep(judge, counts, canaries=known(colours, truth))

    assert not directory.exists()


def test_counts_moved_to_another_judge_are_refused() -> None:
    """Renaming the file does not bind it."""
    judge, other = Colours(), Colours(digest="cd" * 32)
    pictures = known(["red", "green"], ["red", "green"])
    place = keep(judge, {"flat": calibrate(judge, pictures)}, canaries=pictures)
    place.rename(place.with_name(f"colours-{other.digest[:16]}.calibration.json"))
    with pytest.raises(UserError, match="belong to another judge"):
        other.calibration()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"counts": 3}'])
def test_counts_that_cannot_be_used_are_refused(text: str) -> None:
    """Never taken for "no errors"."""
    judge = Colours()
    pictures = known(["red", "green"], ["red", "green"])
    place = keep(judge, {"flat": calibrate(judge, pictures)}, canaries=pictures)
    bound = json.loads(place.read_text())
    place.write_text(text if not text.startswith('{"') else json.dumps({**bound, **json.loads(text)}))
    with pytest.raises(UserError):
        judge.calibration()


def test_changed_canaries_are_refused(directory: Path) -> None:
    """They are bound by their sha256."""
    judge = Colours()
    pictures = known(["red", "green"], ["red", "green"])
    keep(judge, {"flat": calibrate(judge, pictures)}, canaries=pictures)
    (stored,) = directory.glob("*.canaries.safetensors")
    stored.write_bytes(stored.read_bytes()[:-1] + b"\x07")
    with pytest.raises(UserError, match="have changed since they were written"):
        judge.canaries()


def test_a_folder_says_what_is_in_its_pictures(tmp_path: Path) -> None:
    """A subfolder for each thing shown."""
    for colour, count in (("red", 2), ("blue", 1)):
        (tmp_path / "known" / colour).mkdir(parents=True)
        for row, image in enumerate(known([colour] * count, [colour] * count).images):
            Image.fromarray(image).save(tmp_path / "known" / colour / f"{row}.png")
    found = KnownPictures.from_folder(tmp_path / "known")

    assert found.truth == ("blue", "red", "red")
    assert Colours().answer(found.images, "cpu")[0] == ["blue", "red", "red"]
    assert found.first(1).truth == ("blue", "red")


def test_folders_that_show_nothing_are_refused(tmp_path: Path) -> None:
    """None there, empty, without pictures, unreadable, of several sizes."""
    folder = tmp_path / "known"
    with pytest.raises(UserError, match="no known pictures"):
        KnownPictures.from_folder(folder)
    (folder / "red").mkdir(parents=True)
    with pytest.raises(UserError, match="no picture of red"):
        KnownPictures.from_folder(folder)
    (folder / "red" / "a.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"a\.png cannot be read"):
        KnownPictures.from_folder(folder)
    for name, size in (("a", 6), ("b", 8)):
        Image.new("RGB", (size, size)).save(folder / "red" / f"{name}.png")
    with pytest.raises(UserError, match="several sizes"):
        KnownPictures.from_folder(folder)


def test_a_picture_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    """Half a file is no picture."""
    (tmp_path / "known" / "red").mkdir(parents=True)
    path = tmp_path / "known" / "red" / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UserError, match="cannot be read"):
        KnownPictures.from_folder(tmp_path / "known")


def test_a_name_per_picture_is_needed() -> None:
    """Neither more nor fewer."""
    with pytest.raises(UserError, match="2 pictures have 1 names"):
        known(["red", "green"], ["red"])
