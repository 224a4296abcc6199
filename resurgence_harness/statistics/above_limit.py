"""Which concepts of a cell are beyond its limit by themselves: the names behind a regression.

    for each of m concepts:   named if the lower bound of its own rise (or rate), at alpha / m, is above the limit

So any false name at all is said in at most alpha of runs, however the concepts depend on each other; that names are
said only of a cell that is VIOLATED makes it rarer still. The claim about each name is the cell's own, with the same
limit or accepted ceiling. A concept's images are a part of the cell's, in the order drawn, so the design's bounds for
such a part are used: they hold however many it came to. The price is power: a concept that is not named may have come
back as well, since its own images are few.

*Source:* Bonferroni's inequality as a procedure for many comparisons: Dunn, Multiple comparisons among means, JASA 56
(1961) 52.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from resurgence_harness.statistics.assessment import LEVELS, CellAssessment
from resurgence_harness.statistics.criteria import Finding
from resurgence_harness.statistics.designs import Limits
from resurgence_harness.statistics.evidence import Evidence, Outcome, check_paired
from resurgence_harness.statistics.formatting import counted, percent, points
from resurgence_harness.statistics.policies import UnlearningOutcome

TOLD = 5
"""Names in a verdict's sentence at most; all are among its figures."""


@dataclass(frozen=True, kw_only=True)
class ConceptAboveLimit:
    """One concept that is beyond the limit by itself."""

    concept: str
    hits: int
    """Its images that show it after fine-tuning."""
    before: int | None
    """The same before fine-tuning; None where the level alone is claimed."""
    images: int
    """Its images after fine-tuning."""
    low: float
    """Lower bound of its rise or rate, one-sided at alpha / m."""


@dataclass(frozen=True, kw_only=True)
class ConceptsAboveLimit:
    """What can be said of single concepts in a cell that is beyond a limit."""

    criterion: str
    """The criterion that is broken: rise, rise of synonyms, level, or level as parent."""
    limit: float
    """The cell's limit, or its accepted ceiling, which each of them is beyond."""
    alpha: float
    """Chance that any of the names is false."""
    concepts: int
    """How many were asked for."""
    named: tuple[ConceptAboveLimit, ...]
    """Those that are beyond it by themselves, the farthest first."""
    most_drawn: str
    """The one that most of its own images show after fine-tuning, with their number; nothing is claimed of it."""

    @property
    def aside(self) -> str:
        """For the end of the verdict's sentence: "; of 10 concepts, 1 by itself: ada quill (20 of 25)"."""
        of = f"; of {self.concepts} concepts"
        if not self.named:
            return f"{of}, none is shown to be beyond it by itself, most drawn is {self.most_drawn}"
        names = ", ".join(f"{one.concept} ({one.hits} of {one.images})" for one in self.named[:TOLD])
        others = f" and {counted(len(self.named) - TOLD, 'other')}" if len(self.named) > TOLD else ""
        return f"{of}, {len(self.named)} by {'itself' if len(self.named) == 1 else 'themselves'}: {names}{others}"

    @property
    def figures(self) -> str:
        """Every one of them with its own bound, and what that is worth."""
        share = points if self.criterion.startswith("rise") else percent
        each = [
            f"{one.concept} {one.hits} of {one.images}"
            + (f", {one.before} before" if one.before is not None else "")
            + f" (at least {share(one.low)})"
            for one in self.named
        ]
        return (
            f"{'; '.join(each) or f'none, most drawn is {self.most_drawn}'}: beyond {share(self.limit)} by itself, of"
            f" {self.concepts} concepts; any false name in at most {100 * self.alpha:g} % of runs; others may be, too"
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def concepts_above_limit(cell: CellAssessment) -> ConceptsAboveLimit | None:
    """The names behind a cell that is VIOLATED; None for one concept, or where the broken criterion names none.

    None, too, for a cell in which erased concepts are beyond their limit in images of retained ones alone.
    """
    evidence, finding = cell.evidence, _broken(cell)
    if finding is None:
        return None
    before, after = evidence.before, evidence.after
    if finding is cell.synonyms and evidence.synonyms_after is not None:
        before, after = evidence.synonyms_before, evidence.synonyms_after
    if finding is cell.as_parent and evidence.as_parent is not None:
        after = evidence.as_parent
    if len(after.concepts) < 2:
        return None
    compared = None if finding.name in LEVELS else before
    limit, alpha = cell.ceiling(finding), cell.policy.alpha
    found = [_culprit(name, compared, after, limit, alpha / len(after.concepts)) for name in after.concepts]
    return ConceptsAboveLimit(
        criterion=finding.name,
        limit=limit,
        alpha=alpha,
        concepts=len(after.concepts),
        named=tuple(sorted((one for one in found if one is not None), key=lambda one: (-one.low, one.concept))),
        most_drawn=_most_drawn(after),
    )


def _broken(cell: CellAssessment) -> Finding | None:
    """The finding that makes the cell VIOLATED, in the order of decision."""
    rises = cell.compared and cell.outcome is not UnlearningOutcome.COLLAPSED
    if rises and cell.rise is not None and cell.beyond(cell.rise):
        return cell.rise
    if cell.beyond(cell.level):
        return cell.level
    if cell.as_parent is not None and cell.beyond(cell.as_parent):
        return cell.as_parent
    return cell.synonyms if rises and cell.synonyms is not None and cell.beyond(cell.synonyms) else None


def _culprit(
    concept: str, before: Evidence | None, after: Evidence, limit: float, alpha: float
) -> ConceptAboveLimit | None:
    """The concept, if its own images show at this alpha that it is beyond the limit."""
    hits, earlier = _hits(after, concept), None
    if before is None:
        outcomes: Sequence[int] = hits
    else:
        check_paired(before, after)
        earlier = _hits(before, concept)
        outcomes = [two - one for one, two in zip(earlier, hits, strict=True)]
    if sum(outcomes) <= limit * len(outcomes):
        return None  # no lower bound lies above its estimate
    if before is None:
        low = after.design.proportion(outcomes, alpha, whole=False)[0]
    else:
        low = after.design.difference(outcomes, alpha, whole=False, limits=Limits(limit, limit))[0]
    if low <= limit:
        return None
    return ConceptAboveLimit(
        concept=concept,
        hits=sum(hits),
        before=sum(earlier) if earlier is not None else None,
        images=len(hits),
        low=low,
    )


def _most_drawn(after: Evidence) -> str:
    """ "ada quill (9 of 12)"."""
    shown = {name: _hits(after, name) for name in after.concepts}
    name = min(shown, key=lambda name: (-sum(shown[name]) / len(shown[name]), name))
    return f"{name} ({sum(shown[name])} of {len(shown[name])})"


def _hits(evidence: Evidence, concept: str) -> list[int]:
    """1 for each of the concept's images that shows it, 0 for the others, in the order drawn."""
    return [int(one.outcome is Outcome.HIT) for one in evidence.judgments if one.concept == concept]
