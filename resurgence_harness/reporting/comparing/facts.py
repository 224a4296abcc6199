"""The differences of two runs' declared facts: what can explain a changed verdict apart from the model itself.

Facts are the same in both runs or are listed, with the cells that they apply to. Times, folders and run ids are left
out: they differ in every run and decide nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from resurgence_harness.reporting.about_store import FRESH, IGNORED
from resurgence_harness.reporting.comparing.sides import Side, flat
from resurgence_harness.reporting.verdict_json import CellResult

TOPICS = ("weights", "limits", "settings", "judge", "prompts", "libraries", "hardware", "code")
"""In the order of the reports."""
_HARDWARE = ("platform", "device", "driver", "gpus")
_CODE = ("commit", FRESH, IGNORED)
_NOT_COMPARED = {"workers"}
_WHERE = {"out", "store", "from", "path", "candidate", "unlearned", "base", "device", "workers", "limits", "policy"}
"""Choices that name a place or a model: models are compared by their weights, limits by their content."""


_MODELS = {
    "base": "base model",
    "unlearned": "unlearned model",
    "tuned": "fine-tuned model",
    "as_parent": "fine-tuned model with its parent's tokenizer",
}
"""Models by their names in verdict.json."""


class Fact(NamedTuple):
    """What a declared value is about."""

    topic: str
    """One of `TOPICS`."""
    name: str


class Difference(NamedTuple):
    """A fact that the two runs declare differently."""

    fact: Fact
    first: str
    """Empty if the first run does not declare it."""
    second: str
    cells: tuple[str, ...]
    """ "task/cell"; empty for a fact of the whole run."""


def differences(first: Side, second: Side, cells: Mapping[str, tuple[CellResult, CellResult]]) -> list[Difference]:
    """Every difference, by topic: of the runs, and of the `cells` that both have ("task/cell" → both)."""
    found = [Difference(*one, cells=()) for one in _unequal(dict(_of_run(first)), dict(_of_run(second)))]
    gate = first.run.gate is not None and second.run.gate is not None
    grouped: dict[tuple[Fact, str, str], list[str]] = {}
    for name, (one, two) in cells.items():
        for fact, before, after in _unequal(dict(_of_cell(one, gate=gate)), dict(_of_cell(two, gate=gate))):
            grouped.setdefault((fact, before, after), []).append(name)
    found += [Difference(*key, cells=tuple(names)) for key, names in grouped.items()]
    return sorted(found, key=lambda one: (TOPICS.index(one.fact.topic), bool(one.cells)))


def _unequal(one: Mapping[Fact, str], two: Mapping[Fact, str]) -> Iterator[tuple[Fact, str, str]]:
    for fact in dict.fromkeys([*one, *two]):
        before, after = one.get(fact, ""), two.get(fact, "")
        if before != after:
            yield fact, before, after


def _of_run(side: Side) -> Iterator[tuple[Fact, str]]:
    run = side.run
    yield Fact("weights", "base"), f"{run.base.name} {run.base.digest}".strip()
    if run.gate is not None:
        files = ", ".join(f"{name} {digest}" for name, digest in sorted(run.gate.files.items()))
        yield Fact("weights", "candidate"), files or run.gate.candidate
        yield Fact("limits", "policy"), run.gate.policy.digest
        yield Fact("limits", "acceptances"), run.gate.policy.acceptances or ""
        yield Fact("settings", "differences from the parent"), "; ".join(run.gate.differences)
    yield Fact("settings", "engine"), run.selection.engine
    yield Fact("settings", "settings file"), run.selection.settings
    for name, value in run.selection.changed.items():
        yield Fact("settings", name), flat(value)
    if run.gate is None:  # a gate's choices are its policy, which is compared by its digest
        for name, value in run.selection.choices.items():
            if name not in _WHERE:
                yield Fact("settings", name), flat(value)
    yield Fact("prompts", "written out"), "; ".join(run.selection.prompts)
    yield Fact("libraries", "resurgence-harness"), run.tool.removeprefix("resurgence-harness ")
    for name, text in run.environment.items():
        if name not in _NOT_COMPARED:
            topic = "hardware" if name in _HARDWARE else "code" if name in _CODE else "libraries"
            yield Fact(topic, name), text


def _of_cell(cell: CellResult, *, gate: bool) -> Iterator[tuple[Fact, str]]:
    for name, model in cell.models.items():
        yield Fact("weights", _MODELS.get(name, name)), model.digest or f"key {model.key}"
    if not gate:  # a gate's limits are its policy
        yield Fact("limits", "limits file"), cell.limits
    yield Fact("limits", "alpha"), f"{cell.alpha:g}"
    yield Fact("limits", "acceptance"), flat(cell.acceptance)
    for finding in cell.findings:
        yield Fact("limits", f"limit of {finding.get('name')}"), flat(finding.get("limit"))
    yield Fact("settings", "settings of the steps"), cell.settings
    yield Fact("settings", "engine"), cell.engine
    for name, grid in cell.grids.items():
        yield Fact("prompts", f"grid {name}"), f"{grid.rows} rows, order {grid.order}, blocks of {grid.block}"
    for part in cell.given:
        about = f"{part.origin} {part.package} {part.version}".strip()
        yield Fact("settings", f"{part.kind} {part.name}"), f"{about}, source {part.source[:12]}"
    yield Fact("judge", "judge"), cell.judge
    yield Fact("judge", "version"), next((one.version for one in cell.judgments if one.judge == cell.judge), "")
    yield Fact("prompts", "erased concepts"), ", ".join(cell.erased)
