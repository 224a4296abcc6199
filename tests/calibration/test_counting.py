"""Labels against a judge's answers: counts, canaries, origin; shared as one file; and what is refused."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from resurgence_harness.calibration import count, export, import_from, store
from resurgence_harness.calibration.seen import check_unseen, prompts_of
from resurgence_harness.errors import UserError
from resurgence_harness.judging import Calibration, accuracy_of, digest_of_fields
from resurgence_harness.judging.calibrating import calibration_files, canaries_of, counts_of, origin_notes
from resurgence_harness.labelling import CANNOT_TELL, NONE, LabelFile, PictureSet
from resurgence_harness.specs import Concept
from resurgence_harness.tasks import TASKS, Task
from tests.labelling.sets import drawn

TASK = Task(
    name="colours",
    erasable=(Concept(name="red"),),
    counts=(1,),
    preserve=(Concept(name="blue"),),
    held_out=(Concept(name="green"),),
    templates=("a {} square",),
    anchor="a colour",
    severity="normal",
    judges=("colour",),
)


@dataclass(frozen=True, kw_only=True)
class Colour:
    """Names the strongest channel if it is strong enough."""

    version: ClassVar[int] = 1
    given: ClassVar[tuple[Any, ...]] = ()
    labels: ClassVar[tuple[str, ...]] = ("red", "green", "neither")
    digest = property(digest_of_fields)
    name: str = "colour"
    least: float = 60.0

    def shows(self, answer: str) -> tuple[str, ...]:
        """The colour."""
        return () if answer == "neither" else (answer,)

    def check(self, names: Sequence[str]) -> None:
        """Nothing can be missing."""

    def answer(self, images: np.ndarray, device: str) -> tuple[list[str], np.ndarray]:
        """The colour of the mean."""
        mean = images.reshape(len(images), -1, 3).mean(1)
        names = [
            "neither" if row.max() - row.min() < self.least else ("red", "green", "neither")[int(row.argmax())]
            for row in mean
        ]
        return names, mean.max(1) / 255

    def calibration(self) -> dict[str, Calibration]:
        """The stored counts."""
        return counts_of(self)

    def canaries(self) -> tuple[int, int]:
        """The stored pictures."""
        return canaries_of(self)


@pytest.fixture(autouse=True)
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of weights of this test."""
    monkeypatch.setenv("RESURGENCE_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def pictures(tmp_path: Path) -> PictureSet:
    """36 pictures for the judge."""
    return drawn(tmp_path / "set", 36, judge_digest=Colour().digest)


def label(pictures: PictureSet, by: str = "editor", **changed: str) -> LabelFile:
    """The truth about every picture, but for the changed ones, by their files' numbers."""
    file = LabelFile.open(pictures, by)
    for number, one in enumerate(pictures.pictures, 1):
        truth = one.concept if one.concept in pictures.choices else NONE
        file.add(one.sha256, changed.get(f"n{number}", truth))
    return file


def test_every_kind_is_counted_and_kept_with_its_origin(pictures: PictureSet) -> None:
    """A picture of one choice counts as anything else for the other; by whom and when is told in every report."""
    judge = Colour()
    label(pictures)
    counted = count(pictures, judge, TASK)
    base, models = counted.counts["drawn by the base"], counted.counts["drawn by models"]
    assert base.counts == {"recognised": 18, "subjects": 18, "false_alarms": 0, "others": 24}
    assert models.counts == {"recognised": 6, "subjects": 6, "false_alarms": 0, "others": 12}
    assert not judge.calibration() and not origin_notes([judge])

    store(judge, counted)
    assert judge.calibration() == counted.counts and judge.canaries() == (6, 6)
    (note,) = origin_notes([judge])
    assert note.startswith("Judge colour was calibrated on 36 pictures of 2 concepts, labelled by editor on 20")
    kept = json.loads(calibration_files(judge)[0].read_text())["made"]
    assert [one["sha256"] for one in kept["pictures"]] == [one.sha256 for one in pictures.pictures]
    assert "secret" in kept["pictures"][0]["prompt"] and kept["labels"]["editor"]


def test_mistakes_of_the_judge_are_counted_as_such(pictures: PictureSet) -> None:
    """A miss, a false alarm, and what the labeller cannot tell: an error, whatever the judge answered."""
    label(pictures, n1=NONE, n3="red", n2=CANNOT_TELL, n9=CANNOT_TELL)  # red, grey, green, grey; all of the base
    base = count(pictures, Colour(), TASK).counts["drawn by the base"]
    # n1: a false alarm; n3: a miss; n2: a false alarm, since green was named; n9: a miss, since nothing was
    assert base.counts == {"recognised": 16, "subjects": 18, "false_alarms": 2, "others": 23}


def test_the_worst_of_two_labellings_and_of_the_kinds_decides(pictures: PictureSet) -> None:
    """Each labelling is counted; canaries are pictures on which all agree."""
    label(pictures, "first")
    label(pictures, "second", n5=NONE, n6="green")  # of the models' pictures
    counted = count(pictures, Colour(), TASK)
    models = counted.counts["drawn by models"]
    assert (models.recognised, models.subjects) == (5, 6) and models.false_alarms == 1
    assert counted.accuracy.positives == 6
    assert counted.made["by"] == ["first", "second"] and counted.made["same"] == 34
    assert counted.made["kappa"] == pytest.approx(1 - 2 / 36 / (1 - (12 * 12 + 12 * 12 + 12 * 12) / 36**2))
    store(Colour(), counted)
    assert accuracy_of(Colour()).sensitivity == pytest.approx(5 / 6)


def test_what_cannot_be_counted(pictures: PictureSet, tmp_path: Path) -> None:
    """Unfinished or edited labels, another judge, suite pictures, a kind without a concept: one sentence each."""
    with pytest.raises(UserError, match="are not all labelled"):
        count(pictures, Colour(), TASK)
    with pytest.raises(UserError, match="drawn for another judge"):
        count(pictures, Colour(least=70.0), TASK)
    file = label(pictures)
    file.path.write_bytes(file.path.read_bytes().replace(b'"red"', b'"green"', 1))
    with pytest.raises(UserError, match="were edited"):
        count(pictures, Colour(), TASK)

    seen = drawn(tmp_path / "seen", 12, judge_digest=Colour().digest, first_seed=1)
    label(seen)
    with pytest.raises(UserError, match="is one that a suite samples"):
        count(seen, Colour(), TASK)
    alone = drawn(tmp_path / "alone", 12, judge_digest=Colour().digest)
    label(alone, **{f"n{number}": NONE for number in (5, 6, 11, 12)})
    with pytest.raises(UserError, match="No picture drawn by models shows one of the choices"):
        count(alone, Colour(), TASK)


def test_prompts_of_a_suite_are_not_calibrated_on() -> None:
    """Every template with every name and synonym, whatever the seed."""
    task = TASKS["object"]
    assert {"a photo of the cat", "a photo of the kitty"} <= prompts_of(task)
    check_unseen([{"prompt": "a drawing of cat", "seed": 900_001}], task)
    for one in ({"prompt": "a photo of the kitty", "seed": 900_001}, {"prompt": "x", "seed": 3}, {"prompt": "x"}):
        with pytest.raises(UserError, match="a suite samples"):
            check_unseen([one], task)


def test_a_calibration_travels_as_one_file(
    pictures: PictureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exported, checked and kept elsewhere; another judge's, a changed one and a second one are refused."""
    judge, file = Colour(), tmp_path / "colour.zip"
    with pytest.raises(UserError, match="There is no stored calibration"):
        export(judge, file)
    label(pictures)
    counted = count(pictures, judge, TASK)
    store(judge, counted)
    export(judge, file)
    with pytest.raises(UserError, match="cannot be written"):
        export(judge, file)

    monkeypatch.setenv("RESURGENCE_WEIGHTS", str(tmp_path / "elsewhere"))
    assert not judge.calibration()
    with pytest.raises(UserError, match="belongs to another judge"):
        import_from(file, lambda name: Colour(least=70.0), lambda name: TASK)
    import_from(file, lambda name: judge, lambda name: TASK)
    assert judge.calibration() == counted.counts and judge.canaries() == (6, 6) and origin_notes([judge])
    import_from(file, lambda name: judge, lambda name: TASK)  # the same again

    for problem, change in (
        ("its canaries are not those", ("canaries", "0" * 64)),
        ("contradict each other", ("counts", {"k": {"recognised": 9, "subjects": 1, "false_alarms": 0, "others": 1}})),
        ("it has no counts", ("counts", {})),
        ("a suite samples", ("made", {"task": "colours", "pictures": [{"prompt": "x", "seed": 1}]})),
        ("has another calibration already", ("counts", {"k": counted.counts["drawn by models"].counts})),
    ):
        changed = tmp_path / "changed.zip"
        with zipfile.ZipFile(file) as read, zipfile.ZipFile(changed, "w") as written:
            content = json.loads(read.read("calibration.json"))
            content[change[0]] = change[1]
            written.writestr("calibration.json", json.dumps(content))
            written.writestr("canaries.safetensors", read.read("canaries.safetensors"))
        with pytest.raises(UserError, match=problem):
            import_from(changed, lambda name: judge, lambda name: TASK)
    (tmp_path / "none.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match="is no calibration that can be imported"):
        import_from(tmp_path / "none.zip", lambda name: judge, lambda name: TASK)
