"""Content of a cell's page in the report: contact sheets, tables, and the command line that reproduces it.

Only judged images are shown, and they are read from the store: nothing is sampled for the report.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurgence_harness.finetuning import FineTuning
from resurgence_harness.limits.quoting import quoted
from resurgence_harness.presets import written
from resurgence_harness.presets.lives import written_out
from resurgence_harness.reporting import allure, cell_page
from resurgence_harness.reporting.contact_sheet import ROWS, Row, sheet, worst
from resurgence_harness.reporting.given import parts_of
from resurgence_harness.statistics import CellEvidence, Evidence

if TYPE_CHECKING:
    import numpy as np
    import pytest

    from resurgence_harness.examining import Examined
    from resurgence_harness.pytest_plugin.engine import Engine
    from resurgence_harness.pytest_plugin.options import Options
    from resurgence_harness.selection import CellPlan
    from resurgence_harness.specs import Cell

STRIP = 3
"""Rows of worst images at the top of the page."""
FRAMED = "framed: an erased concept"
_ERASED = ("base", "before", "after")
_SYNONYMS = ("no base arm", "synonyms_before", "synonyms_after")
_RETAINED = ("base_retained", "retained_before", "retained_after")


def write(engine: Engine, examined: Examined[CellPlan], record: dict[str, Any], item: pytest.Item) -> None:
    """Attach everything to the Allure result of the running test."""
    plan, evidence, verdict = examined.inquiry.plan, examined.evidence, examined.verdict
    title = f"{plan.cell.id} on {plan.base.base.name}"
    suite = item.path.parent
    here = item.config.invocation_params.dir
    limits = engine.limits(suite)
    written = _near(limits.path, here)
    details = cell_page.Details(
        sentence=verdict.sentence,
        arithmetic=verdict.arithmetic,
        facts=_facts(engine, plan, record, suite),
        reproduce=command(item.nodeid, plan, engine.options, here),
        limits=written,
        quoted=quoted(limits, examined.rule.acceptance, name=written) if record["acceptance"] else None,
    )
    covered = plan.task.covered
    groups = list(worst_rows(engine, plan, evidence))
    strip = None
    if groups:
        name, rows, _ = groups[0]
        strip = cell_page.Strip(name, sheet(title, rows[:STRIP], note=FRAMED), covered)
    sheets = [
        (name, sheet(f"{title}: {len(rows)} of {total} such images", rows, note=FRAMED)) for name, rows, total in groups
    ]
    sheets.append(("base | unlearned | fine-tuned", engine.contact_sheet(plan, evidence, title)))
    allure.attach(record, evidence, details, strip=strip, sheets=sheets, covered=covered)


def worst_rows(engine: Engine, plan: CellPlan, evidence: CellEvidence) -> Iterator[tuple[str, list[Row], int]]:
    """Groups of images with an erased concept, worst first: title, rows, and the number of such images."""
    erased = frozenset(evidence.after.concepts)
    groups = (
        ("Worst first: erased concepts that the fine-tuned model draws", _ERASED),
        ("Worst first: erased concepts that come back when prompted by synonyms", _SYNONYMS),
        ("Worst first: erased concepts drawn for prompts of retained ones", _RETAINED),
    )
    pictures = Pictures(engine, plan)
    for name, arms in groups:
        judged: list[Evidence | None] = [getattr(evidence, arm, None) for arm in arms]
        before, after = judged[1], judged[2]
        if before is None or after is None:
            continue
        hits = [[_seen(arm, place, erased, arms) for arm in judged] for place in range(len(after))]
        scores = [judgment.score for judgment in after.judgments]
        places = worst([hit[1] for hit in hits], [hit[2] for hit in hits], scores, rows=ROWS)
        rows = []
        for place in places:
            seen = [arm if arm is not None and place < len(arm) else None for arm in judged]
            rows.append(
                Row(
                    prompt=after.judgments[place].prompt,
                    seed=after.judgments[place].seed,
                    images=[pictures.image(arm, place) if one else None for arm, one in zip(arms, seen, strict=True)],
                    answers=[one.judgments[place].answer if one else "not drawn" for one in seen],
                    hits=hits[place],
                )
            )
        if rows:
            yield name, rows, sum(hit[2] for hit in hits)


class Pictures:
    """The images of a cell's models, block by block."""

    def __init__(self, engine: Engine, plan: CellPlan) -> None:
        """Blocks are read on first use."""
        self._engine, self._plan = engine, plan
        self._blocks: dict[tuple[str, int], np.ndarray] = {}

    def image(self, arm: str, place: int) -> np.ndarray:
        """One image by its place in the arm's grid, uint8 [h, w, 3]."""
        number, within = divmod(place, self._plan.arms[arm].grid.block)
        if (arm, number) not in self._blocks:
            self._blocks[arm, number] = self._engine.block_images(self._plan, arm, number)
        found: np.ndarray = self._blocks[arm, number][within]
        return found


def command(nodeid: str, plan: CellPlan, options: Options, here: Path) -> str:
    """The command line that reproduces this cell, with every option that affects its verdict."""
    cell, chosen = plan.cell, options.selection
    if cell.life is not None:
        text = written_out(cell.life)
        file = f"--resurgence-settings={_near(options.settings or '', here)}"
        arguments = [file if text is None else f"--resurgence-recipe={text}"]
    else:
        arguments = _cell_options(cell, options, here)
    if "base" in options.given:
        arguments.append(f"--resurgence-base={_near(options.base, here)}")
    if options.limits is not None:
        arguments.append(f"--resurgence-limits={_near(options.limits, here)}")
    if options.data is not None:
        arguments.append(f"--resurgence-data={_near(options.data, here)}")
        arguments += [f"--resurgence-caption-column={options.caption_column}"] * ("caption_column" in options.given)
        arguments += [f"--resurgence-data-limit={options.data_limit:g}"] * ("data_limit" in options.given)
    for name in ("profile", "engine", "seeds"):
        if name in options.given:
            arguments.append(f"--resurgence-{name}={getattr(chosen, name)}")
    if cell.run:
        arguments.append(f"--resurgence-runs={cell.run + 1}")
    if plan.steps:
        arguments.append(f"--resurgence-steps={','.join(map(str, plan.steps))}")
    arguments += [f"--resurgence-set={name}={written(value)}" for name, value in chosen.changed]
    return shlex.join(["pytest", nodeid, *arguments])


def _cell_options(cell: Cell, options: Options, here: Path) -> list[str]:
    """The options that choose a cell of one unlearning and one fine-tuning."""
    given = [word for word in options.unlearned if word.partition("=")[0].strip() == cell.method]
    arguments = [f"--resurgence-unlearned={_near_model(word, here)}" for word in given]
    arguments += [] if given else [f"--resurgence-methods={cell.method}"]
    if given and options.partial:
        arguments.append("--resurgence-partial")
    if options.concepts is not None:
        arguments.append(f"--resurgence-concepts={_near(options.concepts, here)}")
    else:
        arguments.append(f"--resurgence-counts={cell.count}")
    if options.task:
        arguments.append(f"--resurgence-task={options.task}")
    return [*arguments, f"--resurgence-finetune={cell.finetuning}"]


def _facts(engine: Engine, plan: CellPlan, record: dict[str, Any], suite: Path) -> tuple[tuple[str, str], ...]:
    """Names and values of models, settings, grids, judges and policy behind the verdict."""
    models, tuning = record["models"], plan.finetuning
    grids = record["grids"]
    facts = [
        ("models", " | ".join(model["recipe"] for model in models.values())),
        *((f"{name} digest", model["digest"] or "no longer in the store") for name, model in models.items()),
        *(("fine-tuning" if isinstance(step, FineTuning) else "unlearning", _step(step)) for step in plan.tuned.steps),
        ("fine-tuned on", tuning.data.label),
        *(("  benign", check.summary) for check in engine.check_data(plan, suite)),
        ("images", f"{record['images']}, {record['engine']} engine, {record['looks']} looks"),
        ("drawn with", " | ".join(record["drawn_with"])),
        ("grids", ", ".join(f"{name} {grid['rows']} prompts and seeds" for name, grid in grids.items())),
        ("training seed", str(getattr(tuning, "seed", plan.cell.run))),
    ]
    for place, name in enumerate(plan.judges):
        judge = engine.judge(name)
        facts.append(("judge" if place == 0 else "second judge", f"{judge.name} v{judge.version}, {judge.digest}"))
        for kind, counts in judge.calibration().items():
            known = (
                f"{counts.recognised} of {counts.subjects} recognised, {counts.false_alarms} false alarms in"
                f" {counts.others} ({kind})"
            )
            facts.append(("  calibration", known))
    facts += [("registered by", part.note) for part in parts_of(plan.cell, plan.judges)]
    policy = engine.limits(suite).policy_for(plan.cell)
    facts += [("policy", ", ".join(f"{name} {value:g}" for name, value in asdict(policy).items() if value is not None))]
    facts += [("policy digest", record["limits"])]
    return tuple(facts)


_OMITTED = ("data", "general", "model")
"""Values of a step that have their own lines, or are too long."""


def _step(step: Any) -> str:
    """A step as text: its name, version, and those settings that are numbers or have a name."""
    values = [(one.name, getattr(step, one.name)) for one in fields(step)]
    settings = ", ".join(
        f"{name} {value:g}" if isinstance(value, int | float) else f"{name} {written(value)}"
        for name, value in values
        if isinstance(value, int | float) or (isinstance(getattr(value, "name", None), str) and name not in _OMITTED)
    )
    return f"{step.name} v{step.version}" + (f" ({settings})" if settings else "")


def trained(plan: CellPlan) -> dict[str, object]:
    """How much the model was fine-tuned, for the report's parameters."""
    return {"benign images": len(plan.finetuning.data), "fine-tuning steps": getattr(plan.finetuning, "steps", "—")}


def _seen(arm: Evidence | None, place: int, erased: frozenset[str], arms: Sequence[str]) -> bool:
    """Whether the image shows an erased concept: the prompted one, or any one if a retained concept was prompted."""
    if arm is None or place >= len(arm):
        return False
    judgment = arm.judgments[place]
    return not erased.isdisjoint(judgment.seen) if arms is _RETAINED else judgment.outcome == "hit"


def _near_model(word: str, here: Path) -> str:
    """NAME=MODEL with the path of the model relative to `here` if it lies below."""
    name, _, model = word.partition("=")
    return f"{name.strip()}={_near(model.strip(), here)}"


def _near(path: str | Path, here: Path) -> str:
    """A path relative to `here` if it lies below; else unchanged."""
    text = str(path)
    if not text or not os.path.isabs(text):
        return text
    near = os.path.relpath(text, here)
    return text if near.startswith("..") else near
