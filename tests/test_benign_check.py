"""Given fine-tuning images are judged once, before anything is built; a set that shows an erased concept is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resurgence_harness.bench import Bench, BenignCheck, check_benign
from resurgence_harness.errors import JudgeError, UserError
from resurgence_harness.finetuning import BenignSet, GivenSet, read_folder
from resurgence_harness.judging import Calibration, Weights
from resurgence_harness.judging.contract import NO_FACE
from resurgence_harness.planning import answers_key, checkpoint_key, plan, probes_of
from resurgence_harness.selection import Selection, plan_cell
from resurgence_harness.specs import Base, Cell
from resurgence_harness.storing import Store
from resurgence_harness.tasks.celebrity import CELEBRITY
from tests.finetuning.pictures import rows_of, write_rows

ERASED = ("ada quill",)


@dataclass
class Brightness:
    """Bright images show an erased name, dark ones nothing it could name."""

    name: str = "brightness"
    version: int = 1
    digest: str = "ab" * 32
    labels: tuple[str, ...] = ("ada quill", "cleo marsh")
    given: tuple[Weights, ...] = ()
    seen: int = 0
    few: bool = False

    def shows(self, answer: str) -> tuple[str, ...]:
        """The name itself."""
        return (answer,)

    def check(self, names: object) -> None:
        """Nothing is missing."""

    def calibration(self) -> dict[str, Calibration]:
        """Not needed: the check counts answers."""
        return {}

    def canaries(self) -> tuple[int, int]:
        """None."""
        return 0, 0

    def answer(self, images: np.ndarray, device: str) -> tuple[list[str], np.ndarray]:
        """By the mean of the pixels."""
        self.seen += len(images)
        means = images.mean(axis=(1, 2, 3))
        answers = [NO_FACE if mean < 50 else "ada quill" if mean > 200 else "cleo marsh" for mean in means]
        return answers[: len(answers) - self.few], np.ones(len(images) - self.few)


def folder_with(folder: Path, *, bright: int, dark: int = 0, count: int = 20) -> GivenSet:
    """A set with so many images of an erased concept, and so many that cannot be judged."""
    folder.mkdir()
    names = [f"{place}.png" for place in range(count)]
    for place, name in enumerate(names):
        value = 220 if place < bright else 20 if place >= count - dark else 120
        Image.new("RGB", (64, 64), (value + place, value, value)).save(folder / name)
    write_rows(folder, rows_of(names))
    return GivenSet(folder=read_folder(folder), height=32, width=32)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A bench with an empty store."""
    return Bench(Store(tmp_path / "store"))


def check(bench: Bench, data: GivenSet, judge: Any, **limits: float) -> BenignCheck:
    """The check at the policy's alpha."""
    return check_benign(bench, data, judge, ERASED, **{"alpha": 0.01, "limit": 0.01, **limits})


def test_the_report_counts_and_names_the_images(bench: Bench, tmp_path: Path) -> None:
    """Two of 20 may be a judge's errors: the lower bound is 0.7 %. Those without an answer are counted apart."""
    found = check(bench, folder_with(tmp_path / "data", bright=2, dark=3), Brightness())

    assert (len(found.found), found.images, found.abstained) == (2, 20, 3)
    assert found.summary == (
        "judge brightness detects an erased concept in 2 of 20 given images (lower bound 0.76 %, limit 1 %; "
        "3 could not be judged): 0.png (ada quill), 1.png (ada quill)"
    )


def test_a_lower_bound_above_the_limit_is_refused(bench: Bench, tmp_path: Path) -> None:
    """Three of 20 are at least 2.3 %; the images are listed, and a higher limit allows them."""
    data = folder_with(tmp_path / "data", bright=3)

    with pytest.raises(UserError) as caught:
        check(bench, data, Brightness())

    message = str(caught.value)
    assert message.startswith("The fine-tuning data show an erased concept in 3 of 20 images.\n")
    assert "0.png (ada quill), 1.png (ada quill), 2.png (ada quill)" in message and "--resurgence-data-limit" in message
    assert len(check(bench, data, Brightness(), limit=0.05).found) == 3


def test_many_such_images_are_listed_up_to_a_number(bench: Bench, tmp_path: Path) -> None:
    """The message stays readable."""
    with pytest.raises(UserError, match=r"19\.png \(ada quill\) and 5 more"):
        check(bench, folder_with(tmp_path / "data", bright=25, count=30), Brightness())


def test_images_are_judged_once(bench: Bench, tmp_path: Path) -> None:
    """The answers are stored under the content and the judge; another judge or size judges again."""
    data, judge = folder_with(tmp_path / "data", bright=1), Brightness()
    assert check(bench, data, judge) == check(bench, data, judge) and judge.seen == 20
    assert bench.store.find(answers_key(data, judge)) is not None
    check(bench, data, other := Brightness(digest="cd" * 32))
    check(bench, GivenSet(folder=data.folder, height=16, width=16), other)
    assert other.seen == 40


@pytest.mark.parametrize("fault", ["changed", "missing", "too few answers"])
def test_nothing_is_stored_if_an_image_cannot_be_judged(bench: Bench, tmp_path: Path, fault: str) -> None:
    """A file that was changed, a file that is gone, a judge that leaves an image out."""
    data, judge = folder_with(tmp_path / "data", bright=0), Brightness(few=fault == "too few answers")
    if fault == "changed":
        Image.new("RGB", (64, 64)).save(tmp_path / "data" / "7.png")
    if fault == "missing":
        (tmp_path / "data" / "7.png").unlink()

    with pytest.raises(JudgeError if judge.few else UserError):
        check(bench, data, judge)

    assert bench.store.find(answers_key(data, judge)) is None


def test_a_cell_takes_given_images_in_place_of_drawn_ones(tmp_path: Path) -> None:
    """Its fine-tuning has another key, needs no image of the base, and is planned with the set's size and digest."""
    data, base = folder_with(tmp_path / "data", bright=0).folder, Base(digest="ab" * 32, name="micro")
    cell = Cell(task="celebrity", method="uce", count=1, finetuning="lora")
    drawn = plan_cell(cell, base, task=CELEBRITY, selection=Selection())
    given = plan_cell(cell, base, task=CELEBRITY, selection=Selection(data=data))

    assert isinstance(drawn.finetuning.data, BenignSet) and drawn.benign == drawn.finetuning.data.probe
    assert given.benign is None and given.unlearned == drawn.unlearned
    training = given.finetuning.data
    assert isinstance(training, GivenSet) and training.folder == data
    assert (training.height, training.width) == (64, 64) and len(training) == 16
    assert set(training.forbidden) == {alias for one in CELEBRITY.erase(1) for alias in one.aliases}
    assert checkpoint_key(given.tuned) != checkpoint_key(drawn.tuned)
    assert len(probes_of(drawn.finetuning)) == 2 and probes_of(given.finetuning) == ()
    (note,) = [one for one in given.notes if one.startswith("Fine-tuning data: ")]
    assert data.digest in note and "16 of 20 given images" in note and "64 × 64 pixels" in note
    wanted = [(given.tuned, given.erased.part(0), Brightness())]
    assert {one.kind for one in plan(Store(tmp_path / "store"), wanted).actions} == {
        "judgments",
        "images",
        "checkpoint",
    }
