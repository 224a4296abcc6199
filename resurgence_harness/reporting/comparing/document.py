"""compare.json: the comparison of two runs for programs. Its schema is `compare.schema.json` beside this file.

`schema_version` is raised when a field changes its meaning or disappears; new fields may appear without that.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from resurgence_harness.reporting.verdict_json import Moment, RateResult

SCHEMA_FILE = Path(__file__).with_name("compare.schema.json")
"""The JSON schema that is shipped with the package."""
Verdict = Literal["HOLDS", "KNOWN", "VIOLATED", "UNDECIDED"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RunCompared(_Part):
    """One of the two runs."""

    path: str = Field(description="As it was given.")
    run_id: str = Field(description="Random UUID of the run; empty in old files.")
    tool: str
    finished: Moment
    status: Literal["complete", "incomplete", "interrupted"]
    exit_code: int
    candidate: str = Field(description="Label of a gate's candidate; empty for a suite.")
    cells: int = Field(ge=1, description="Judged cells.")
    store: str = Field(description="The store in which its judgments were looked up.")


class DifferenceFound(_Part):
    """A fact that the two runs declare differently."""

    topic: Literal["weights", "limits", "settings", "judge", "prompts", "libraries", "hardware", "code"]
    name: str
    first: str = Field(description="Empty if it is not declared.")
    second: str = Field(description="Empty if it is not declared.")
    cells: list[str] = Field(description="task/cell of the cells that it applies to; empty for the whole run.")


class RateChange(_Part):
    """How one rate of a cell changed; rates and bounds are fractions of all images."""

    rate: Literal["after", "as_parent", "synonyms_after", "retained_after"] = Field(description="As in verdict.json.")
    name: str = Field(description="The rate as text.")
    harm: Literal["rise", "fall"] = Field(description="Which direction is worse.")
    first: RateResult
    second: RateResult
    paired: bool = Field(description="Whether the same prompts and seeds were compared, judged by the same judge.")
    unpaired_because: str = Field(description="Why the images are not paired; empty if they are.")
    pairs: int = Field(ge=0, description="Pairs of images; 0 if unpaired.")
    gained: int = Field(ge=0, description="Pairs with a hit in the second run only.")
    lost: int = Field(ge=0, description="Pairs with a hit in the first run only.")
    estimate: float = Field(description="Second minus first, over the pairs if paired.")
    low: float = Field(description="Lower bound, one-sided at alpha_each.")
    high: float = Field(description="Upper bound, one-sided at alpha_each.")
    p: float | None = Field(description="Two-sided exact p of McNemar's test, uncorrected; null unless of fixed size.")
    method: str = Field(description="The interval.")
    shown: Literal["worse", "better", "neither"] = Field(description="What the interval shows, jointly over all rates.")
    margin: float = Field(description="A harm of at most this counts as not worse.")
    within_margin: bool = Field(description="Whether the interval shows a harm of at most the margin.")


class ChangedImage(_Part):
    """An image that shows the erased concept in the second run only, or a retained one in the first run only."""

    rate: Literal["after", "as_parent", "synonyms_after", "retained_after"]
    concept: str
    prompt: str
    seed: int
    first: str = Field(description="The judge's answer in the first run.")
    second: str
    score: float = Field(description="The judge's score of the image with the hit.")


class CellCompared(_Part):
    """One cell of both runs."""

    task: str
    id: str
    first: Verdict
    second: Verdict
    result: Literal["worse", "undecided", "not worse"]
    reason: str = Field(description="Why this result.")
    why_changed: str = Field(description="What differs for a cell whose verdict changed; empty if it did not.")
    same_judgments: bool | None = Field(description="Whether all judgments are the same; null if not recorded.")
    changes: list[RateChange]
    new_images: list[ChangedImage] = Field(description="Worst first; those that the reports show.")
    new_images_total: int = Field(ge=0)


class CellAlone(_Part):
    """A cell that only one run has, or that cannot be compared."""

    task: str
    id: str
    run: Literal["first", "second", "both"]
    verdict: Verdict | None = Field(description="In the run that has it, the second of both; null without a verdict.")
    why: str
    result: Literal["worse", "undecided", "incomplete", "not worse"]


class ComparisonDocument(_Part):
    """The whole file."""

    schema_version: Literal[1]
    tool: str
    made: Moment
    first: RunCompared
    second: RunCompared
    alpha: float = Field(gt=0, lt=0.5, description="Probability that any interval of the comparison misses its rate.")
    alpha_each: float = Field(gt=0, description="alpha over twice the number of rates: Bonferroni.")
    differences: list[DifferenceFound]
    cells: list[CellCompared] = Field(min_length=1)
    alone: list[CellAlone]
    result: Literal["worse", "undecided", "incomplete", "not worse"]
    sentence: str
    exit_code: int = Field(description="With --fail-on regression; without it the command ends with 0.")


def text(found: ComparisonDocument) -> str:
    """The file's text."""
    return json.dumps(found.model_dump(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def schema() -> dict[str, Any]:
    """The JSON schema of the files that this version writes."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **ComparisonDocument.model_json_schema()}
