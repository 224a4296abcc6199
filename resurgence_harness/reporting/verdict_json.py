"""verdict.json: the machine-readable results of a run. Its schema is `verdict.schema.json` beside this file.

    {"schema_version": 2, "status": "complete", "exit_code": 0, …, "cells": [{"task": "celebrity", "method": "esd", …}],
     "missing": [{"id": "esd-100-lora", "why": "its worker died", …}]}

The file is written once, at the end, by a rename: a reader never sees a partial file; a killed run leaves none.
`schema_version` is raised when a field changes its meaning or disappears; new fields may appear without that.
"""

from __future__ import annotations

import errno
import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.reporting.file_set import write_set

SCHEMA_VERSION = 2
"""The schema that this version writes and reads."""
ROUNDING = 1e-6
"""Tolerance between a stored rate and the rate computed from its counts."""
LARGEST = 200_000_000
"""Maximum bytes of a verdict.json; a thousand cells take about six million."""
SCHEMA_FILE = Path(__file__).with_name("verdict.schema.json")
"""The JSON schema that is shipped with the package."""


def _iso(text: str) -> str:
    datetime.fromisoformat(text).timestamp()  # ValueError or OverflowError for an impossible time
    return text


Moment = Annotated[str, AfterValidator(_iso)]
"""ISO 8601."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RateResult(_Part):
    """Rate at which the prompted concepts were detected in one arm."""

    rate: float = Field(ge=0, le=1, description="Hits divided by all images, abstained ones included.")
    low: float = Field(ge=0, le=1, description="Lower bound, one-sided at the cell's alpha, valid for the engine.")
    high: float = Field(ge=0, le=1, description="Upper bound, one-sided at the cell's alpha, valid for the engine.")
    hits: int = Field(ge=0, description="Images that show the concept.")
    judged: int = Field(ge=0, description="Images that could be judged, hits included.")
    abstained: int = Field(ge=0, description="Images that could not be judged; never counted as safe.")

    @model_validator(mode="after")
    def _agrees(self) -> RateResult:
        """Check that counts, rate and bounds are consistent, up to rounding.

        The rate may lie outside its bounds: the bounds of a shuffled grid hold at all looks simultaneously, so an early
        look can bound the rate more tightly than all images do.
        """
        if self.low > self.high + ROUNDING:
            raise ValueError(f"the lower bound {self.low:g} is above the upper bound {self.high:g}")
        if self.hits > self.judged:
            raise ValueError(f"{self.hits} hits of {self.judged} judged images cannot be")
        images = self.judged + self.abstained
        if not images or abs(self.rate - self.hits / images) > ROUNDING:
            raise ValueError(f"the rate {self.rate:g} is not that of {self.hits} hits of {images} images")
        return self


class StepResult(RateResult):
    """The rate after some steps of the fine-tuning."""

    step: int = Field(ge=0, description="Fine-tuning steps; 0 is the unlearned model.")


class StepClaim(StepResult):
    """The same, with bounds at the shared alpha."""

    passed: dict[str, Any] | None = Field(
        description="The criterion whose limit is shown to be passed: estimate, bounds, limit; null if none is."
    )


class AlongResult(_Part):
    """The steps of the fine-tuning against the limit."""

    alpha: float = Field(gt=0, lt=0.5, description="Error on each side of every interval here.")
    claims: int = Field(ge=1, description="Number of (cell, step) pairs among which the cell's alpha is shared.")
    first: int | None = Field(description="First step at which a limit is shown to be passed; null if at none.")
    sentence: str = Field(description="The result as text.")
    rates: list[StepClaim] = Field(description="By rising step; 0 is the unlearned model.")


class TemplateResult(RateResult):
    """Rate at which a template filled with retained concepts shows them; bounds at alpha / number of templates."""

    template: str


class ModelResult(_Part):
    """One of the models of a cell."""

    recipe: str = Field(description="Label, for example micro → esd → lora.")
    key: str = Field(description="Key of the recipe in the store; a base's digest.")
    digest: str = Field(description="Digest of the model; empty if it is no longer in the store.")


class StageResult(_Part):
    """One stage of a recipe, measured on the same prompts and seeds as the others."""

    stage: int = Field(ge=1, description="Counted from 1.")
    step: str = Field(description="Its unlearning or fine-tuning.")
    kind: Literal["unlearning", "fine-tuning"]
    erases: list[str] = Field(description="Names of the concepts that it erases; empty for a fine-tuning.")
    erased: RateResult | None = Field(description="Concepts that this or an earlier stage erases; null without any.")
    waiting: RateResult | None = Field(description="Concepts that only later stages erase; null without any.")
    retained: RateResult = Field(description="Held-out retained concepts.")
    state: Literal["within", "above", "open"] | None = Field(
        description="The rate `erased` compared with the level limit, at an error shared by all stages; or null."
    )
    not_erased: bool = Field(description="Whether concepts that it erases are shown to be drawn above the level limit.")
    came_back: bool = Field(
        description="Whether earlier erased concepts are shown to be above the level limit, as not one stage before."
    )
    drawn: dict[str, tuple[int, int]] = Field(description="Erased concepts that were seen: hits and images.")
    model: ModelResult


class JudgedResult(_Part):
    """The stored judgments of one arm by one judge."""

    arm: str = Field(description="after, retained_after …; template 1 …; step 20 …")
    judge: str
    version: str = Field(description="Version and weights of the judge.")
    keys: list[str] = Field(description="Keys of the judgments in the store, in the order drawn.")
    digest: str = Field(description="sha256 over every prompted concept, prompt, seed, outcome and answer, in order.")


class GridResult(_Part):
    """Rows that a claim is about; some or all of them were drawn."""

    rows: int = Field(ge=1, description="(prompt, seed) rows, drawn or not.")
    order: int = Field(description="Seed of the shuffled order in which they are drawn.")
    block: int = Field(ge=1, description="Rows between two looks.")


class ConceptAboveLimitResult(_Part):
    """One concept whose own lower bound is beyond the limit."""

    concept: str
    hits: int = Field(ge=0, description="Its images that show it after fine-tuning.")
    before: int | None = Field(description="The same before fine-tuning; null if only the level is claimed.")
    images: int = Field(ge=1, description="Its images after fine-tuning.")
    low: float = Field(description="Lower bound of its rise or rate, one-sided at alpha over the number of concepts.")


class AboveLimitResult(_Part):
    """The concepts of a regression whose own lower bounds are beyond its limit."""

    criterion: str = Field(description="The broken criterion: rise, rise of synonyms or level.")
    limit: float = Field(description="The cell's limit or accepted ceiling, which each named concept exceeds.")
    alpha: float = Field(gt=0, lt=0.5, description="Probability that any concept is named wrongly.")
    concepts: int = Field(ge=2, description="Number of concepts that were tested.")
    named: list[ConceptAboveLimitResult] = Field(
        description="Largest excess first; a concept that is not named may exceed the limit, too."
    )
    most_drawn: str = Field(description="The concept with the highest rate in its images, with counts; descriptive.")


class GivenResult(_Part):
    """A method, fine-tuning, judge or task of a cell that is not this package's own."""

    kind: Literal["unlearning", "finetuning", "judge", "task"]
    name: str = Field(description="Its name in the registry.")
    origin: Literal["package", "conftest", "plugin", "settings"] = Field(description="Where it was registered.")
    package: str = Field(description="Name of the package or plugin, path of the conftest.py, or the settings file.")
    version: str = Field(description="Version of the package; empty for a conftest.py.")
    source: str = Field(description="sha256 of the source that defines it; of the settings file for a command.")
    replaces: str = Field(description="Origin of what it replaces, for a conftest.py that takes its name; or empty.")


class CellResult(_Part):
    """One judged cell."""

    id: str = Field(description="Id of the cell, as in the node id, for example esd-10-lora.")
    nodeid: str = Field(description="pytest's node id.")
    task: str
    method: str
    concepts: int = Field(ge=1, description="How many concepts were erased.")
    erased: list[str] = Field([], description="Names of the erased concepts; empty in files of earlier versions.")
    finetuning: str
    run: int = Field(ge=0, description="Number of the repetition, which is the training seed.")
    base: RateResult | None = Field(description="Erased concepts, published model; or null.")
    before: RateResult | None = Field(description="Erased concepts, unlearned model; or null.")
    after: RateResult = Field(description="The same after fine-tuning.")
    as_parent: RateResult | None = Field(
        None, description="Like after, with the parent's tokenizer, scheduler and VAE; null if they are the same."
    )
    retained_before: RateResult | None = Field(description="Held-out retained concepts, unlearned model; or null.")
    retained_after: RateResult = Field(description="The same after fine-tuning.")
    by_step: list[StepResult] = Field(
        [], description="Erased concepts after some steps of the fine-tuning, its end last; empty unless requested."
    )
    by_stage: list[StageResult] = Field(
        [], description="Of a recipe of several stages: every stage, the last one being decided on; else empty."
    )
    along: AlongResult | None = Field(
        None, description="The steps of the fine-tuning against the limit; null unless steps were requested."
    )
    verdict: Literal["HOLDS", "KNOWN", "VIOLATED", "UNDECIDED"]
    reason: str = Field(description="Why this verdict; the first line is the summary.")
    base_retained: RateResult | None = Field(description="Held-out retained concepts, published model; or null.")
    insample_before: RateResult | None = Field(description="Retained concepts seen in training, unlearned model.")
    insample_after: RateResult | None = Field(description="The same after fine-tuning.")
    synonyms_before: RateResult | None = Field(None, description="Synonyms of erased concepts, unlearned model.")
    synonyms_after: RateResult | None = Field(None, description="The same after fine-tuning.")
    incidental_before: RateResult | None = Field(None, description="Erased concepts for retained prompts, unlearned.")
    incidental_after: RateResult | None = Field(None, description="The same after fine-tuning.")
    templates: list[TemplateResult] = Field(
        [], description="Without a base: the erased prompts' templates, filled with retained concepts."
    )
    confusion: dict[str, dict[str, dict[str, int]]] = Field(
        default={}, description="Per arm: prompted concept → the judge's answer → number of images."
    )
    alpha: float = Field(gt=0, lt=0.5, description="Error on each side of every interval.")
    findings: list[dict[str, Any]] = Field(description="Each criterion: estimate, bounds, limit, holds, broken.")
    outcome: str | None = Field(description="Of the unlearning: unlearned, not unlearned or collapsed; or null.")
    acceptance: dict[str, Any] | None = Field(description="The acceptance that was applied, if any.")
    settings: str = Field("", description="Short digest of the steps' values without training seeds; or empty.")
    controls: list[dict[str, Any]] = Field(description="The mandatory controls and their results.")
    agreement: dict[str, list[int]] = Field(description="Per arm, images on which both judges agree, of how many.")
    culprits: AboveLimitResult | None = Field(
        None, description="For a regression over several concepts: which came back."
    )
    arithmetic: str = Field(description="Every figure that the verdict rests on, one per line.")
    tighten: bool = Field(description="Within policy although an acceptance exists.")
    images_to_settle: int | None = Field(description="About how many more images would settle an UNDECIDED.")
    e_value: float = Field(ge=0, description="E-value against: nothing is beyond its limit or accepted ceiling.")
    limits: str = Field(description="sha256 of the limits that were applied.")
    judge: str = Field(description="The judge that decided.")
    judgments: list[JudgedResult] = Field([], description="Where every arm's judgments are stored; empty in old files.")
    models: dict[str, ModelResult] = Field(description="base, unlearned, tuned and as_parent, as far as they exist.")
    engine: Literal["sequential", "fixed", "hybrid"] = Field(description="How the number of images was decided.")
    looks: int = Field(ge=1, description="Number of looks at the data.")
    images: int = Field(ge=1, description="Images judged, over all arms; the base's are shared between cells.")
    grids: dict[str, GridResult] = Field(description="By name: erased, retained and others.")
    drawn_with: list[str] = Field(
        [], description="Device, libraries and arithmetic with which its images were drawn; one entry, unless unknown."
    )
    given: list[GivenResult] = Field(
        [], description="Its methods, judges and task that are not this package's own, with their origins."
    )
    seconds: float = Field(ge=0, description="Wall time of this cell in this run, waiting included.")


class MissingCell(_Part):
    """A planned cell without a verdict."""

    id: str
    nodeid: str
    task: str
    kind: Literal["unrun", "worker died", "harness error"]
    why: str


class BaseResult(_Part):
    """The published model."""

    name: str
    digest: str


class PolicyResult(_Part):
    """The reviewed files that decided a release gate."""

    path: str = Field(description="Path of the policy file; empty if all was given on the command line.")
    sha256: str = Field("", description="sha256 of the policy file's bytes; empty without a file.")
    digest: str = Field(description="sha256 of its content with lists, options of the command line and defaults.")
    acceptances: str | None = Field(description="sha256 of the acceptances file's bytes, if there is one.")


class AuditResult(_Part):
    """How much of the erasure is undone in the weights. Advisory."""

    undone: float = Field(description="⟨candidate − unlearned, base − unlearned⟩ / ‖base − unlearned‖².")
    cosine: float | None
    words: str


class GateResult(_Part):
    """Results of a release gate."""

    policy: PolicyResult
    groups: list[str] = Field([], description="task/cell of every group of the policy: each needs a verdict.")
    candidate: str = Field(description="Label of the candidate.")
    files: dict[str, str] = Field(description="The candidate's weight files as they were given, and their sha256.")
    notes: list[str] = Field(
        description="Notes before sampling: lineage, unusual image sizes, acceptances that cannot apply."
    )
    differences: list[str] = Field(
        [], description="Differences of the candidate's tokenizer, scheduler, VAE and configurations from its parent's."
    )
    audit: AuditResult | None


class FamilyResult(_Part):
    """Joint claims over all cells."""

    declared: int = Field(ge=1, description="Cells that the profile declares for these tasks, selected or not.")
    judged: int = Field(ge=0, description="Those with a verdict here.")
    alpha: float = Field(gt=0, lt=0.5, description="Probability of any false alarm among all cells.")
    alarms: list[str] = Field(description="task/cell of the alarms that stand after Holm's correction.")
    global_e_value: float = Field(ge=0, description="E-value against: no cell is beyond its limits.")
    every_cell_passes: bool = Field(description="Whether every declared cell HOLDS or is KNOWN.")


class SelectedResult(_Part):
    """Number of suites' cells selected to run, of those collected before -k, --deselect and the like."""

    cells: int = Field(ge=0)
    of: int = Field(ge=0)


class SelectionResult(_Part):
    """The choices of the run."""

    engine: Literal["sequential", "fixed", "hybrid"] = Field(description="How the number of images is decided.")
    changed: dict[str, Any] = Field(description="Preset values that were changed.")
    settings: str = Field(description="sha256 of the settings file; or empty.")
    prompts: list[str] = Field(description="Sources of written-out prompts, and how many are truncated.")
    notes: list[str] = Field(description="Warnings before sampling: unusual image sizes, grids too small.")
    choices: dict[str, Any] = Field(description="A suite's options, or a gate's policy, by name.")


class Verdicts(_Part):
    """The whole file."""

    schema_version: Literal[2]
    tool: str = Field(description="resurgence-harness and its version.")
    run_id: str = Field("", description="Random UUID of the run, the same in every report of it; empty in old files.")
    started: Moment = Field(description="ISO 8601, UTC.")
    finished: Moment = Field(description="ISO 8601, UTC.")
    status: Literal["complete", "incomplete", "interrupted"] = Field(
        description="complete: every planned cell has a verdict; interrupted: the run was stopped by hand."
    )
    exit_code: int
    base: BaseResult
    selection: SelectionResult
    environment: dict[str, str] = Field(description="Versions, device and platform.")
    family: FamilyResult
    gate: GateResult | None = Field(None, description="Results of a release gate.")
    cells: list[CellResult]
    missing: list[MissingCell]
    selected: SelectedResult | None = Field(None, description="How many cells of suites were selected; or null.")
    failed_tests: list[str] = Field([], description="Failed tests that are not cells, or whose cell holds.")
    lost_worker: bool = Field(False, description="Whether a process that ran tests died.")


def text(run: dict[str, Any]) -> str:
    """A run's results, checked against the schema, as the file's text."""
    checked = Verdicts.model_validate(run)
    content = checked.model_dump(exclude=None if checked.gate else {"gate"})
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write(path: Path, run: dict[str, Any]) -> None:
    """Write a run's results in one step; HarnessError if that fails, and then no file is left."""
    write_set(path.parent, {path.name: text(run)})


def readable(value: Any, *, levels: int) -> str:
    """JSON with a line for each member of its first `levels` levels; deeper values are on their member's line.

    Otherwise most lines of a cell would be the hundreds of counts of its confusion.
    """

    def formatted(part: Any, left: int, margin: str) -> str:
        if not left or not part or not isinstance(part, dict | list):
            return json.dumps(part, ensure_ascii=False, allow_nan=False)
        inner = margin + "  "
        if isinstance(part, list):
            lines = [formatted(one, left - 1, inner) for one in part]
        else:
            lines = [f"{json.dumps(name)}: {formatted(one, left - 1, inner)}" for name, one in part.items()]
        opened, closed = "[]" if isinstance(part, list) else "{}"
        return f"{opened}\n{inner}" + f",\n{inner}".join(lines) + f"\n{margin}{closed}"

    return formatted(value, levels, "")


def read(path: Path) -> Verdicts:
    """A checked verdict.json; UserError if it is not one, or has another schema."""
    found = parsed(path)
    schema = found.get("schema_version") if isinstance(found, dict) else None
    if isinstance(schema, int) and schema != SCHEMA_VERSION:
        raise UserError(
            sentence(
                f"{path} has schema {schema}; this version reads schema {SCHEMA_VERSION}.",
                do="Run the suite or the gate again with this version.",
            )
        )
    try:
        return Verdicts.model_validate_json(json.dumps(found))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(sentence(f"{path} is not a verdict file.", place=shown(place), reason=first["msg"])) from error


def parsed(path: Path) -> Any:
    """A file's JSON; UserError if it is missing, not a regular file, too large, invalid, or holds NaN or Infinity."""
    try:
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "it is not a file")
        if (size := path.stat().st_size) > LARGEST:
            raise UserError(
                sentence(f"{path} is too large for a verdict file.", bytes=f"{size:,}", most=f"{LARGEST:,}")
            )
        return json.loads(path.read_bytes(), parse_constant=_refused)
    except OSError as error:
        raise UserError(sentence(f"There is no verdict file at {path}.", reason=error.strerror)) from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        reason = "too deeply nested" if isinstance(error, RecursionError) else error
        raise UserError(sentence(f"{path} is not a verdict file.", place="the file", reason=reason)) from error


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is not a valid number")


def schema() -> dict[str, Any]:
    """The JSON schema of the files that this version writes."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Verdicts.model_json_schema()}
