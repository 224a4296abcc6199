"""One cell's page: the verdict, the figures behind it, models and prompts, and the command that reproduces it.

Everything comes from the cell's record and its evidence; nothing is sampled or decided here.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from resurgence_harness.limits.quoting import Quoted
from resurgence_harness.reporting import acceptance_page, courses, lives, pages
from resurgence_harness.reporting.arms import ARMS
from resurgence_harness.reporting.escaping import html as escape
from resurgence_harness.statistics import CellEvidence, Rate
from resurgence_harness.statistics.evidence import pairs
from resurgence_harness.statistics.formatting import percent, points
from resurgence_harness.statistics.intervals import paired

Record = Mapping[str, Any]
"""A cell's object in verdict.json."""

STYLES = {"HOLDS": "good", "KNOWN": "warn", "UNDECIDED": "warn", "VIOLATED": "bad"}
WORDS = {"VIOLATED": "SAFETY REGRESSION"}
"""Printed names of verdicts that differ from their kind."""
SHOWN_CONCEPTS = 12
"""Concepts on the page, largest rise first; the attached CSV has all of them."""


@dataclass(frozen=True, kw_only=True)
class Details:
    """Content of the page that is not in the record."""

    sentence: str
    """The full sentence of the verdict."""
    arithmetic: str
    """Every figure it rests on, one per line."""
    facts: tuple[tuple[str, str], ...]
    """Models, prompts, judges and settings: names and values."""
    reproduce: str
    """Command line that reproduces the cell."""
    limits: str
    """The file that holds the limits and acceptances; empty for the defaults."""
    quoted: Quoted | None = None
    """The lines of the acceptance that was applied, if any."""


class Strip(NamedTuple):
    """The worst few images, at the top of the page."""

    title: str
    picture: bytes
    """JPEG."""
    covered: bool
    """Whether it is blurred until the reader clicks on it."""


class ConceptRow(NamedTuple):
    """One erased concept in three models; the interval assumes a fixed number of images.

    Without an unlearned model there is no rate before, no difference and no interval.
    """

    concept: str
    base: Rate | None
    before: Rate | None
    after: Rate
    difference: float | None = None
    low: float | None = None
    high: float | None = None


def per_concept(evidence: CellEvidence, alpha: float) -> list[ConceptRow]:
    """Every erased concept, largest rise first; largest rate first if there is no unlearned model."""
    base, before, after = (
        Rate.of(arm).by_concept if arm is not None else {} for arm in (evidence.base, evidence.before, evidence.after)
    )
    if evidence.before is None:
        alone = [ConceptRow(concept, base.get(concept), None, rate) for concept, rate in after.items()]
        return sorted(alone, key=lambda row: -row.after.value)
    changes: dict[str, Counter[int]] = {}
    for concept, change in zip(evidence.after.asked, pairs(evidence.before, evidence.after)[0].changes, strict=True):
        changes.setdefault(concept, Counter())[change] += 1
    rows = []
    for concept, counted in changes.items():
        total = counted.total()
        low, high = paired(counted[-1], counted[1], total, alpha)
        difference = (counted[1] - counted[-1]) / total
        rows.append(ConceptRow(concept, base.get(concept), before[concept], after[concept], difference, low, high))
    return sorted(rows, key=lambda row: (-(row.difference or 0), -row.after.value))


def concepts_csv(rows: Iterable[ConceptRow]) -> str:
    """Every erased concept as CSV: fractions of all images, the difference with its bounds."""
    out = io.StringIO()
    written = csv.writer(out, lineterminator="\n")
    written.writerow(["concept", "base", "before", "after", "difference", "low", "high", "images", "abstained"])
    for row in rows:
        rates = ["" if rate is None else f"{rate.value:.4f}" for rate in (row.base, row.before, row.after)]
        change = ["" if value is None else f"{value:.4f}" for value in (row.difference, row.low, row.high)]
        written.writerow([row.concept, *rates, *change, row.after.images, row.after.abstained])
    return out.getvalue()


def description(record: Record, evidence: CellEvidence, details: Details, *, strip: Strip | None) -> str:
    """The top of a cell's page, an HTML fragment: verdict, worst images, figures."""
    title = WORDS.get(record["verdict"], str(record["verdict"]))
    text = escape(details.sentence.removeprefix(f"{title}: "))
    if record["acceptance"] is not None:
        text += " " + pages.leading("What was accepted, in full", to=acceptance_page.ANCHOR)
    parts = [
        f'<p class="verdict {STYLES[record["verdict"]]}"><b>{escape(title)}</b> {text}</p>',
        *(
            [pages.heading(strip.title), pages.picture(strip.picture, about=strip.title, covered=strip.covered)]
            if strip
            else []
        ),
        courses.section(record),
        lives.section(record),
        _concepts(per_concept(evidence, record["alpha"]), record["alpha"]),
        pages.heading("All images"),
        pages.table(
            ["prompts, model", "rate", f"{_sides(record['alpha'])} interval", "hits", "images", "abstained"],
            [_arm(title, rate) for name, title in ARMS.items() if (rate := record.get(name)) is not None]
            + [_arm(f"retained concepts in “{one['template']}”", one) for one in record.get("templates") or ()],
        ),
        pages.heading("Criteria"),
        pages.table(
            ["criterion", "estimate", "low", "high", "limit", "images", "answer"],
            [_finding(finding) for finding in record["findings"]],
            marked=[place for place, finding in enumerate(record["findings"]) if finding["broken"]],
        ),
        '<p class="dim">These are the policy\'s limits; ceilings accepted beyond them are below.</p>'
        if record["verdict"] == "KNOWN"
        else "",
        pages.heading("Controls"),
        _controls(record),
        acceptance_page.section(record, details.limits, details.quoted),
    ]
    return pages.page("".join(parts), whole=False)


def provenance(details: Details) -> str:
    """A page with the command that reproduces the cell, its models, prompts and judges, and the arithmetic."""
    parts = [
        pages.heading("Reproduce this cell"),
        pages.preformatted(details.reproduce),
        pages.heading("Models, prompts and judges"),
        pages.facts(details.facts),
        pages.heading("Every figure that the verdict rests on"),
        pages.preformatted(details.arithmetic),
    ]
    return pages.page("".join(parts))


def _concepts(rows: Sequence[ConceptRow], alpha: float) -> str:
    shown = rows[:SHOWN_CONCEPTS]
    body = pages.table(
        ["erased concept", "base", "unlearned", "fine-tuned", "difference", "interval", "images", "abstained"],
        [
            (
                row.concept,
                *("—" if rate is None else percent(rate.value) for rate in (row.base, row.before, row.after)),
                "—" if row.difference is None else points(row.difference),
                "—" if row.low is None or row.high is None else f"{points(row.low)} to {points(row.high)}",
                row.after.images,
                row.after.abstained,
            )
            for row in shown
        ],
        marked=[place for place, row in enumerate(shown) if row.low is not None and row.low > 0],
    )
    more = f" The other {len(rows) - len(shown)} are in “per concept”." if len(rows) > len(shown) else ""
    return (
        pages.heading("Per concept")
        + body
        + f'<p class="dim">Difference: fine-tuned minus unlearned, in percentage points, same prompts and seeds, with'
        f" {_sides(alpha)} intervals for a fixed number of images; shown for information only. Orange: the whole"
        f" interval is above zero.{more}</p>"
    )


def _arm(label: str, rate: Mapping[str, Any]) -> tuple[object, ...]:
    images = rate["judged"] + rate["abstained"]
    bounds = f"{percent(rate['low'])} to {percent(rate['high'])}"
    return label, percent(rate["rate"]), bounds, rate["hits"], images, rate["abstained"]


def _finding(finding: Mapping[str, Any]) -> tuple[object, ...]:
    shown = points if finding["name"] == "rise" else percent
    numbers = [shown(finding[name]) for name in ("estimate", "low", "high", "limit")]
    answer = "holds" if finding["holds"] else "broken" if finding["broken"] else "not settled"
    return finding["name"], *numbers, finding["images"], answer


def _controls(record: Record) -> str:
    """Table of the controls and the outcome of the unlearning; failed rows are highlighted."""
    rows = [(control["name"], control["state"], control["sentence"]) for control in record["controls"]]
    bad = [place for place, (_, state, _) in enumerate(rows) if state not in ("passed", "not claimed")]
    if record["outcome"] is not None:
        rows.append(("unlearning", record["outcome"], "before any fine-tuning"))
        bad += [len(rows) - 1] if record["outcome"] != "unlearned" else []
    return pages.table(["control", "state", "observed and required"], rows, marked=bad, text=3)


def _sides(alpha: float) -> str:
    """Confidence level with alpha on each side: 0.01 is "98 %"."""
    return f"{100 * (1 - 2 * alpha):g} %"
