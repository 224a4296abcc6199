"""Values that are no numbers are chosen as numbers are: on the command line, or in a file that is checked by path."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from resurgence_harness.diffusion.parameters import NonCrossAttention
from resurgence_harness.errors import UserError
from resurgence_harness.finetuning import Constant, NoFlip
from resurgence_harness.presets import PRESETS, choice, parse_change, plain, read_settings, written
from resurgence_harness.presets.choices import NOT_CHOSEN, chosen_fields, kinds_of, owners
from resurgence_harness.presets.values import FILLED_IN
from resurgence_harness.selection import Selection, plan_cell
from resurgence_harness.specs import Base, Cell, Concept
from resurgence_harness.tasks import CELEBRITY
from resurgence_harness.unlearning import (
    CaptionFile,
    CaptionSample,
    Denoising,
    GradientMemory,
    MostSalient,
    NoProjection,
)

MICRO = Base(digest="0" * 64, name="micro")


def planned(cell: str, *changes: str) -> Any:
    """A cell of the microworld after some changes."""
    method, count, finetuning = cell.rsplit("-", 2)
    asked = Cell(task="celebrity", method=method, count=int(count), finetuning=finetuning)
    selection = Selection(changed=tuple(map(parse_change, changes)))
    return plan_cell(asked, MICRO, task=CELEBRITY, selection=selection)


def test_every_field_can_be_chosen_but_what_a_cell_fills_in() -> None:
    """Of every method and fine-tuning; a field of a new kind would be seen here."""
    for group, kind in owners().items():
        chosen = set(chosen_fields(group))
        assert chosen == {one.name for one in fields(kind)} - {*NOT_CHOSEN, "retain"}
        for name in chosen:
            for word in kinds_of(group, name):
                try:
                    read = choice(f"{group}.{name}", word)
                    assert (read if isinstance(read, str) else getattr(read, "name", None)) == word
                except UserError as needs:
                    assert f"{word} needs" in str(needs)


@pytest.mark.parametrize(
    ("cell", "change", "field", "value"),
    [
        ("shs-1-lora", "shs.projection=no-projection", "projection", NoProjection()),
        (
            "shs-1-lora",
            "shs.projection={kind: gradient-memory, margin: 0.1}",
            "projection",
            GradientMemory(margin=0.1),
        ),
        (
            "salun-1-lora",
            "salun.mask={kind: most-salient, fraction: 0.3, loss: denoising}",
            "mask",
            MostSalient(fraction=0.3, loss=Denoising()),
        ),
        ("erasediff-1-lora", "erasediff.subset=non-cross-attention", "subset", NonCrossAttention()),
        ("uce-1-lora", 'uce.templates=["{}", "a photo of {}"]', "templates", ("{}", "a photo of {}")),
        ("uce-1-lora", "uce.preserve=[Ann Lee, Bo Kim]", "preserve", (Concept(name="Ann Lee"), Concept(name="Bo Kim"))),
        ("esd-1-lora", "esd.learning_rate=3e-4", "learning_rate", 3e-4),
        ("salun-1-lora", "salun.anchor=a person", "anchor", "a person"),
    ],
)
def test_a_choice_reaches_the_step(cell: str, change: str, field: str, value: Any) -> None:
    """As it was written."""
    assert getattr(planned(cell, change).unlearned.steps[0], field) == value


def test_a_fine_tunings_schedule_is_a_choice() -> None:
    """The constant rate of diffusers' script beside the authors' cosine."""
    tuning = planned("esd-1-lora", "lora.schedule={kind: cosine, over: 7}", "lora.flip=random").finetuning
    assert (tuning.schedule.over, tuning.flip.name) == (7, "random")
    tuning = planned("esd-1-lora", "lora.schedule=constant", "lora.flip=none").finetuning
    assert (tuning.schedule, tuning.flip) == (Constant(), NoFlip())


def test_whatever_a_preset_has_can_be_written_and_read_back() -> None:
    """The line that repeats a cell, and what is recorded of changes, say the very value."""
    seen = 0
    for preset in PRESETS.values():
        for group, values in preset.items():
            for name, value in values.items():
                if isinstance(value, FILLED_IN) or (name == "forget" and group == "mace"):
                    continue
                key = f"{group}.{name}"
                assert parse_change(f"{key}={written(value)}") == (key, value)
                assert choice(key, plain(value)) == value
                seen += 1
    assert seen > 80


@pytest.mark.parametrize(
    ("key", "value", "place", "wanted"),
    [
        ("shs.projection", "sideways", "shs.projection is 'sideways'", "gradient-memory, no-projection"),
        ("shs.projection", {"kind": "gradient-memory", "margin": "big"}, "shs.projection.margin is 'big'", "a number"),
        ("shs.projection", {"kind": "gradient-memory", "edge": 1}, "shs.projection.edge is 1", "margin, ridge"),
        ("shs.projection", {"margin": 1}, "shs.projection is", "one of"),
        ("salun.mask", {"kind": "most-salient", "loss": "loud"}, "salun.mask.loss is 'loud'", "denoising, guided"),
        ("uce.templates", "{}", "uce.templates is '{}'", "a list"),
        ("uce.templates", ["{}", 3], "uce.templates[1] is 3", "text"),
        ("uce.preserve", ["Ann", None], "uce.preserve[1] is None", "text"),
        ("sampler.arithmetic", "half", "sampler.arithmetic is 'half'", "float32, float16"),
        ("esd.iterations", 1.5, "esd.iterations is 1.5", "a whole number"),
        ("esd.iterations", True, "esd.iterations is True", "a whole number"),
        ("esd.away", float("nan"), "esd.away is nan", "a number"),
        ("mace.general", 3, "mace.general.file is 3", "text"),
        ("mace.masks", "segmented", "mace.masks is 'segmented'", "detector, segmenter"),
    ],
)
def test_a_wrong_value_is_named_by_its_path(key: str, value: Any, place: str, wanted: str) -> None:
    """And says what would fit."""
    with pytest.raises(UserError) as raised:
        choice(key, value)
    assert str(raised.value).startswith(place) and wanted in str(raised.value)


def test_a_value_out_of_range_is_named_by_its_path() -> None:
    """What the kind itself refuses."""
    with pytest.raises(UserError, match=r"salun\.mask: .*fraction"):
        choice("salun.mask", {"kind": "most-salient", "fraction": 2.0})


@pytest.mark.parametrize("key", ["esd.colour", "esd.concepts", "shs.forget", "magic.steps", "esd"])
def test_what_nobody_can_choose_is_told_with_what_can_be(key: str) -> None:
    """Unknown names, and what a cell fills in."""
    with pytest.raises(UserError, match=f'There is no setting "{key}"'):
        choice(key, 1)


def write(folder: Path, text: str) -> Path:
    """A file of settings."""
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_sets_many_values(tmp_path: Path) -> None:
    """Numbers, kinds, lists, files beside it; its digest is that of its bytes."""
    (tmp_path / "captions.txt").write_text("A table.\nA chair.\n", encoding="utf-8")
    path = write(
        tmp_path,
        "esd: {iterations: 7, learning_rate: 1e-5}\n"
        "shs:\n  projection: {kind: gradient-memory, margin: 0.1}\n"
        "mace: {general: captions.txt}\n"
        "lora: {schedule: constant}\n",
    )
    found = read_settings(path)
    values = dict(found.changed)
    assert values["esd.iterations"] == 7 and values["esd.learning_rate"] == 1e-5
    assert values["shs.projection"] == GradientMemory(margin=0.1)
    assert values["mace.general"] == CaptionSample(captions=CaptionFile.of(tmp_path / "captions.txt"))
    assert found.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert Selection(changed=found.changed, settings=found.digest).settings == found.digest


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "set nothing"),
        ("- esd", "set nothing"),
        ("esd: 5", "esd is 5"),
        ("esd: {}", "sets nothing"),
        ("esd: {iterations: many}", "esd.iterations is 'many'"),
        ("esd: {itterations: 5}", 'There is no setting "esd.itterations"'),
        ("magic: {steps: 5}", 'There is no setting "magic.steps"'),
        ("esd: [", "not readable as YAML"),
        ("shs: {projection: {kind: gradient-memory, margin: x}}", "shs.projection.margin is 'x'"),
        ("mace: {general: nowhere.txt}", "cannot be read"),
    ],
)
def test_a_wrong_file_is_one_sentence_with_its_path(tmp_path: Path, text: str, words: str) -> None:
    """Of the file, and of the field in it."""
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=r"settings\.yaml") as raised:
        read_settings(path)
    assert words in str(raised.value)


def test_an_empty_file_of_captions_is_told_before_anything_is_made(tmp_path: Path) -> None:
    """It would hold nothing."""
    (tmp_path / "captions.txt").write_text("\n \n", encoding="utf-8")
    with pytest.raises(UserError, match="There is no caption in"):
        choice("mace.general", "captions.txt", folder=tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        choice("mace.general", "gone.txt", folder=tmp_path)
