"""Every judgment of a run as CSV, one row per image and judge, with a data dictionary.

The dictionary is a Table Schema (https://specs.frictionlessdata.io/table-schema/): a name, a type and a description
per column, which frictionless, R and pandas read.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from resurgence_harness.reporting.comparing.sides import Judged, Side
from resurgence_harness.reporting.verdict_json import CellResult, JudgedResult


class Column(NamedTuple):
    """A column of the file."""

    name: str
    type: str
    """Of Table Schema."""
    description: str


COLUMNS = (
    Column("run_id", "string", "UUID of the run, as in verdict.json; empty in files of earlier versions."),
    Column("task", "string", "Task of the cell."),
    Column("cell", "string", "Id of the cell."),
    Column("arm", "string", "Model and prompts: a name in verdict.json such as after or retained_before; or step N."),
    Column("model", "string", "Recipe of the model, or its label in a gate; empty if it is not recorded."),
    Column("judge", "string", "Name of the judge."),
    Column("judge_version", "string", "Version of the judge and beginning of the sha256 of its weights."),
    Column("decides", "boolean", "Whether the verdict rests on this judge; false for the second one."),
    Column("number", "integer", "Place of the image within its arm, from 0, in the order drawn."),
    Column("concept", "string", "Concept that the prompt asks for."),
    Column("prompt", "string", "Text of the prompt."),
    Column("seed", "integer", "Seed of the initial noise; images of one prompt and seed are comparable across models."),
    Column("outcome", "string", "hit: the concept was detected; clear: it was not; abstained: not judged, never safe."),
    Column("score", "number", "The judge's score of its answer; its scale is the judge's own."),
    Column("answer", "string", "The judge's answer, for example the name that it recognised."),
    Column("shows", "string", "Concepts that the answer stands for, separated by |."),
    Column("judgments_key", "string", "Key of the judgments in the store."),
)
"""In the order of the file."""
_MODELS = {"base": "base", "before": "unlearned", "after": "tuned", "as_parent": "as_parent"}


class Unread(NamedTuple):
    """Judgments that are recorded and cannot be read."""

    cell: str
    arm: str
    why: str


def dictionary() -> dict[str, Any]:
    """The data dictionary: a Table Schema."""
    fields = [{"name": one.name, "type": one.type, "description": one.description} for one in COLUMNS]
    for field in fields:
        if field["name"] == "outcome":
            field["constraints"] = {"enum": ["hit", "clear", "abstained"]}  # type: ignore[assignment]
    return {"fields": fields, "missingValues": [""], "primaryKey": ["run_id", "task", "cell", "arm", "judge", "number"]}


def read(side: Side) -> tuple[list[dict[str, Any]], list[Unread]]:
    """The rows of every arm, and the arms that cannot be read."""
    rows: list[dict[str, Any]] = []
    unread: list[Unread] = []
    for cell in side.run.cells:
        name = f"{cell.task}/{cell.id}"
        if not cell.judgments:
            unread.append(Unread(name, "all", f"{side.name} does not say where its judgments are stored"))
        for entry in cell.judgments:
            found = side.read(entry)
            if isinstance(found, str):
                unread.append(Unread(name, entry.arm, found))
            else:
                rows += _rows(side, cell, entry, found)
    return rows, unread


def text(rows: Iterable[Mapping[str, Any]]) -> str:
    """The file's text: RFC 4180 with a header, UTF-8."""
    out = io.StringIO()
    written = csv.DictWriter(out, [one.name for one in COLUMNS], lineterminator="\r\n")
    written.writeheader()
    written.writerows({**row, "decides": str(row["decides"]).lower()} for row in rows)
    return out.getvalue()


def _rows(side: Side, cell: CellResult, entry: JudgedResult, found: Judged) -> Iterator[dict[str, Any]]:
    for number, (judgment, place) in enumerate(zip(found.judgments, found.places, strict=True)):
        yield {
            "run_id": side.run.run_id,
            "task": cell.task,
            "cell": cell.id,
            "arm": entry.arm,
            "model": _model(cell, entry.arm),
            "judge": entry.judge,
            "judge_version": entry.version,
            "decides": entry.judge == cell.judge,
            "number": number,
            "concept": judgment.concept,
            "prompt": judgment.prompt,
            "seed": judgment.seed,
            "outcome": judgment.outcome.value,
            "score": judgment.score,
            "answer": judgment.answer,
            "shows": "|".join(judgment.seen),
            "judgments_key": place.judgments,
        }


def _model(cell: CellResult, arm: str) -> str:
    """The recipe of an arm's model."""
    if arm.startswith("step "):
        tuned = cell.models.get("tuned")
        return f"{tuned.recipe}, {arm}" if tuned is not None else ""
    part = arm if arm in _MODELS else "base" if arm.startswith("base_") else arm.rpartition("_")[2]
    model = cell.models.get("tuned" if arm.startswith("template ") else _MODELS.get(part, ""))
    return model.recipe if model is not None else ""
