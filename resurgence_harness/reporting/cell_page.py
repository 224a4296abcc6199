"""One cell's page: the verdict in words, the figures it rests on, what was asked, and how to ask it again.

Everything comes from the cell's record and its evidence; nothing is drawn or decided here.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from resurgence_harness.limits.quoting import Quoted
from resurgence_harness.reporting import acceptance_page, courses, pages
from resurgence_harness.reporting.escaping import html as escape
from resurgence_harness.statistics import CellEvidence, Rate
from resurgence_harness.statistics.evidence import pairs
from resurgence_harness.statistics.formatting import percent, points
from resurgence_harness.statistics.intervals import paired

Record = Mapping[str, Any]
"""A cell's object in verdict.json."""

STYLES = {"HOLDS": "good", "KNOWN": "warn", "UNDECIDED": "warn", "VIOLATED": "bad"}
WORDS = {"VIOLATED": "SAFETY REGRESSION"}
"""The first words of a verdict where they are not its kind."""
SHOWN_CONCEPTS = 12
"""So many concepts are on the page, those that rose most first; the rest is in the table beside it."""
_ARMS = (
    ("erased concepts, base", "base"),
    ("erased concepts, unlearned", "before"),
    ("erased concepts, fine-tuned", "after"),
    ("erased concepts, fine-tuned, with its parent's tokenizer, scheduler and VAE", "as_parent"),
    ("erased concepts by other words, unlearned", "synonyms_before"),
    ("erased concepts by other words, fine-tuned", "synonyms_after"),
    ("retained concepts, base", "base_retained"),
    ("retained concepts, unlearned", "retained_before"),
    ("retained concepts, fine-tuned", "retained_after"),
    ("retained and seen in training, unlearned", "insample_before"),
    ("retained and seen in training, fine-tuned", "insample_after"),
)


@dataclass(frozen=True, kw_only=True)
class Details:
    """What the record does not say."""

    sentence: str
    """The verdict, whole."""
    arithmetic: str
    """Every figure it rests on, one per line."""
    facts: tuple[tuple[str, str], ...]
    """What was asked, of what, judged by whom: name and value."""
    reproduce: str
    """A command line that asks it again."""
    limits: str
    """The file that holds the limits and acceptances; empty for the defaults."""
    quoted: Quoted | None = None
    """Where the acceptance that was applied stands in its file, if one was."""


class Strip(NamedTuple):
    """The worst few pictures, to be seen at once."""

    title: str
    picture: bytes
    """JPEG."""
    covered: bool
    """Whether it is blurred until somebody asks to see it."""


class ConceptRow(NamedTuple):
    """One erased concept in three models; the interval as if the number of images had been fixed.

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
    """Every erased concept, those that rose most first; those drawn most where there is no unlearned model."""
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
    """The first thing on a cell's page, for a frame with a head of its own: verdict, worst pictures, figures."""
    word = WORDS.get(record["verdict"], str(record["verdict"]))
    words = escape(details.sentence.removeprefix(f"{word}: "))
    if record["acceptance"] is not None:
        words += " " + pages.leading("What was accepted, in full", to=acceptance_page.ANCHOR)
    parts = [
        f'<p class="verdict {STYLES[record["verdict"]]}"><b>{escape(word)}</b> {words}</p>',
        *(
            [pages.heading(strip.title), pages.picture(strip.picture, about=strip.title, covered=strip.covered)]
            if strip
            else []
        ),
        courses.section(record),
        _concepts(per_concept(evidence, record["alpha"]), record["alpha"]),
        pages.heading("All images"),
        pages.table(
            ["asked for, drawn by", "rate", f"{_sides(record['alpha'])} interval", "hits", "images", "abstained"],
            [_arm(words, rate) for words, name in _ARMS if (rate := record.get(name)) is not None]
            + [_arm(f"retained concepts in “{one['template']}”", one) for one in record.get("templates") or ()],
        ),
        pages.heading("Criteria"),
        pages.table(
            ["criterion", "estimate", "low", "high", "limit", "images", "answer"],
            [_finding(finding) for finding in record["findings"]],
            marked=[place for place, finding in enumerate(record["findings"]) if finding["broken"]],
        ),
        '<p class="dim">These are the policy\'s limits; what was accepted beyond them is below.</p>'
        if record["verdict"] == "KNOWN"
        else "",
        pages.heading("Controls"),
        _controls(record),
        acceptance_page.section(record, details.limits, details.quoted),
    ]
    return pages.page("".join(parts), whole=False)


def provenance(details: Details) -> str:
    """A page with what was asked of what, a command that asks it again, and every figure of the verdict."""
    parts = [
        pages.heading("Ask it again"),
        pages.preformatted(details.reproduce),
        pages.heading("What was asked, of what, judged by whom"),
        pages.facts(details.facts),
        pages.heading("Every figure the verdict rests on"),
        pages.preformatted(details.arithmetic),
    ]
    return pages.page("".join(parts))


def _concepts(rows: Sequence[ConceptRow], alpha: float) -> str:
    shown = rows[:SHOWN_CONCEPTS]
    told = pages.table(
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
        + told
        + f'<p class="dim">Difference: fine-tuned minus unlearned, in percentage points of the same prompts and seeds,'
        f" {_sides(alpha)} intervals as if the number of images had been fixed; shown, never decided on. Orange: surely"
        f" more than before.{more}</p>"
    )


def _arm(words: str, rate: Mapping[str, Any]) -> tuple[object, ...]:
    images = rate["judged"] + rate["abstained"]
    bounds = f"{percent(rate['low'])} to {percent(rate['high'])}"
    return words, percent(rate["rate"]), bounds, rate["hits"], images, rate["abstained"]


def _finding(finding: Mapping[str, Any]) -> tuple[object, ...]:
    shown = points if finding["name"] == "rise" else percent
    numbers = [shown(finding[name]) for name in ("estimate", "low", "high", "limit")]
    answer = "holds" if finding["holds"] else "broken" if finding["broken"] else "not settled"
    return finding["name"], *numbers, finding["images"], answer


def _controls(record: Record) -> str:
    """What makes an answer worth something: the outcome of the unlearning and the controls; what failed stands out."""
    rows = [(control["name"], control["state"], control["sentence"]) for control in record["controls"]]
    bad = [place for place, (_, state, _) in enumerate(rows) if state not in ("passed", "not claimed")]
    if record["outcome"] is not None:
        rows.append(("unlearning", record["outcome"], "before any fine-tuning"))
        bad += [len(rows) - 1] if record["outcome"] != "unlearned" else []
    return pages.table(["control", "answer", "what was seen, and what is needed"], rows, marked=bad, text=3)


def _sides(alpha: float) -> str:
    """Both sides at alpha: 0.01 is "98 %"."""
    return f"{100 * (1 - 2 * alpha):g} %"
