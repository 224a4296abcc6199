"""Prompted × drawn: a heat map of the concepts that the judge detected in the images of a cell's fine-tuned model.

The counts are those of the cell's record. The judge's answers are grouped by meaning: the prompted concept, an erased
one, another, abstained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from resurgence_harness.reporting import pages
from resurgence_harness.reporting.escaping import html as escape
from resurgence_harness.statistics import CellEvidence, Evidence
from resurgence_harness.statistics.evidence import Outcome

SHOWN_ANSWERS = 5
"""Number of erased concepts that have their own column, the most frequent ones."""
AS_ASKED = "as asked"
"""The column for images that show the prompted concept."""


class Confusion(NamedTuple):
    """Counts of images by prompted concept and meaning of the judge's answer."""

    asked: tuple[str, ...]
    answers: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    """One row per prompted concept, the lowest rate in column "as asked" first; every image counts once."""


def confusion(
    counts: Mapping[str, Mapping[str, int]], evidence: Evidence, *, named: Collection[str], most: int = SHOWN_ANSWERS
) -> Confusion:
    """Group a record's counts (prompted concept → answer → images) by the meanings of the answers in `evidence`.

    Columns: as asked, the `most` frequent of the `named` concepts, another, abstained. The same answer for the same
    concept always has the same meaning.
    """
    meaning = {(judgment.concept, judgment.answer): judgment for judgment in evidence.judgments}
    rows: dict[str, Counter[str]] = {concept: Counter() for concept in counts}
    seen: Counter[str] = Counter()
    for concept, answers in counts.items():
        for answer, images in answers.items():
            judgment, column = meaning[concept, answer], "another"
            if judgment.outcome is Outcome.ABSTAINED:
                column = "abstained"
            elif judgment.outcome is Outcome.HIT or concept in judgment.seen:
                column = AS_ASKED
            elif others := [one for one in judgment.seen if one in named]:
                column = others[0]
                seen[column] += images
            rows[concept][column] += images
    shown = [answer for answer, _ in seen.most_common(most)]
    order = sorted(rows, key=lambda concept: (rows[concept][AS_ASKED] / rows[concept].total(), concept))
    table = []
    for concept in order:
        row = rows[concept]
        known = [row[AS_ASKED], *(row[answer] for answer in shown)]
        table.append((*known, row.total() - sum(known) - row["abstained"], row["abstained"]))
    return Confusion(tuple(order), (AS_ASKED, *shown, "another", "abstained"), tuple(table))


def heat_map(record: Mapping[str, Any], evidence: CellEvidence, *, rows: int = 12) -> str:
    """A page with one map per group of prompts, from a cell's object in verdict.json."""
    erased = evidence.after.concepts
    body = ""
    for title, name in (("Erased concepts", "after"), ("Retained concepts", "retained_after")):
        arm: Evidence | None = getattr(evidence, name)
        if arm is None:
            continue
        found = confusion(record["confusion"][name], arm, named=erased)
        if arm is evidence.after:  # highest rate first
            found = Confusion(found.asked[::-1], found.answers, found.counts[::-1])
        body += pages.heading(
            f"{title}: prompts for the fine-tuned model (rows), detected by {arm.judge} (columns), in images"
        )
        body += _heat(found, rows, bad={*erased, *([AS_ASKED] if arm is evidence.after else [])})
        if len(found.asked) > rows:
            body += f'<p class="dim">{len(found.asked) - rows} further concepts are in the first row only.</p>'
    return pages.page(
        f'{body}<p class="dim">Orange: an erased concept was detected. Blue: anything else. Stronger colour: a larger '
        "share of the row.</p>"
    )


def _heat(found: Confusion, rows: int, *, bad: Collection[str]) -> str:
    total = [sum(column) for column in zip(*found.counts, strict=True)]
    head = "".join(f"<th>{escape(answer)}</th>" for answer in found.answers)
    lines = [f"<tr><th>prompted</th>{head}</tr>"]
    shown = [(f"all {len(found.asked)}", total)] if len(found.asked) > 1 else []
    shown += [(concept, list(counts)) for concept, counts in zip(found.asked, found.counts, strict=True)][:rows]
    for concept, counts in shown:
        cells = ""
        for answer, count in zip(found.answers, counts, strict=True):
            colour = "213,94,0" if answer in bad else "0,114,178"
            share = count / max(sum(counts), 1)
            shade = f' style="background:rgba({colour},{0.1 + 0.6 * share:.2f})"' if count else ' class="dim"'
            cells += f"<td{shade}>{count}</td>"
        lines.append(f"<tr><th>{escape(concept)}</th>{cells}</tr>")
    return f'<table class="heat">{"".join(lines)}</table>'
