"""Compares two runs cell by cell.

A cell is *worse* if its verdict became VIOLATED, or if an interval shows that an erased concept is drawn more often or
retained ones less often. It is *not worse* if nothing shows that and either its verdict passes (HOLDS or KNOWN) by
limits that are not looser, or every interval shows a harm of at most the margin. Everything else is *undecided*, and so
is a cell with another judge, whose rates are not comparable: nothing that the evidence cannot exclude counts as not
worse. A cell that the second run lacks is *incomplete*.

All intervals hold jointly: alpha is shared among the rates of all cells and both sides (Bonferroni), which is valid
under any dependence between cells. Holm's step-down procedure would call a little more and has no intervals to show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Literal, NamedTuple

import resurgence_harness
from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.process import ExitCode, combined
from resurgence_harness.reporting.comparing.document import (
    CellAlone,
    CellCompared,
    ChangedImage,
    ComparisonDocument,
    DifferenceFound,
    RateChange,
    RunCompared,
)
from resurgence_harness.reporting.comparing.facts import Difference, differences
from resurgence_harness.reporting.comparing.sides import Judged, Place, Side
from resurgence_harness.reporting.verdict_json import CellResult, RateResult, Verdicts
from resurgence_harness.statistics import FIXED, Design, Policy, Shuffled
from resurgence_harness.statistics.comparing import Change, Counts, paired_change, unpaired_change
from resurgence_harness.statistics.designs import ENDLESS
from resurgence_harness.statistics.evidence import Outcome
from resurgence_harness.statistics.formatting import counted, points

Result = Literal["worse", "undecided", "incomplete", "not worse"]
Name = Literal["after", "as_parent", "synonyms_after", "retained_after"]
CODES: Mapping[Result, ExitCode] = {
    "worse": ExitCode.REGRESSION,
    "undecided": ExitCode.UNDECIDED,
    "incomplete": ExitCode.INCOMPLETE,
    "not worse": ExitCode.DONE,
}
PASSES = ("HOLDS", "KNOWN")
SHOWN_IMAGES = 6
"""New images per cell in the reports, worst first."""


class Compared(NamedTuple):
    """A rate that is compared."""

    title: str
    grid: str
    """Name of its grid in verdict.json."""
    rises: bool
    """Whether a rise is the harm."""


RATES: Mapping[Name, Compared] = {
    "after": Compared("erased", "erased", True),
    "as_parent": Compared("erased, as its parent", "erased", True),
    "synonyms_after": Compared("synonyms", "synonyms", True),
    "retained_after": Compared("retained", "retained", False),
}
"""The rates of the model under test; those of its parents are not its own."""


class Pair(NamedTuple):
    """Where the two images of a pair are."""

    change: ChangedImage
    first: Place
    second: Place


@dataclass(frozen=True, kw_only=True)
class Found:
    """A comparison, and where its images are."""

    document: ComparisonDocument
    first: Side
    second: Side
    images: Mapping[str, Sequence[Pair]]
    """ "task/cell" → the new images of the reports, worst first."""


def compare_runs(first: Side, second: Side, *, alpha: float | None = None) -> Found:
    """Compare two runs; `alpha`: default the smallest of the common cells.

    UserError if they are the same run, or have no comparable cell in common.
    """
    _check_different(first, second)
    common, alone = _matched(first.run, second.run)
    if not common:
        raise UserError(_nothing_common(first, second, alone))
    level = alpha if alpha is not None else min(min(one.alpha, two.alpha) for one, two in common.values())
    rates = {name: _rates(one, two) for name, (one, two) in common.items()}
    each = level / (2 * sum(map(len, rates.values())))
    found = differences(first, second, common)
    cells, images = [], {}
    for name, (one, two) in common.items():
        changes: list[RateChange] = []
        pairs: list[Pair] = []
        for rate in rates[name]:
            change, changed = _change(first, second, one, two, rate, each)
            changes.append(change)
            pairs += changed
        images[name] = pairs[:SHOWN_IMAGES]
        cells.append(_cell(name, one, two, changes, pairs, found))
    results: list[Result] = [*(one.result for one in cells), *(one.result for one in alone)]
    if second.run.status != "complete":
        results.append("incomplete")
    code = combined(CODES[one] for one in results)
    result = next(name for name, one in CODES.items() if one is code)
    document = ComparisonDocument(
        schema_version=1,
        tool=f"resurgence-harness {resurgence_harness.__version__}",
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        first=_run(first),
        second=_run(second),
        alpha=level,
        alpha_each=each,
        differences=[
            DifferenceFound(
                topic=one.fact.topic,  # type: ignore[arg-type]
                name=one.fact.name,
                first=one.first,
                second=one.second,
                cells=list(one.cells),
            )
            for one in found
        ],
        cells=cells,
        alone=alone,
        result=result,
        sentence=_sentence(cells, alone, second.run),
        exit_code=int(code),
    )
    return Found(document=document, first=first, second=second, images=images)


def _check_different(first: Side, second: Side) -> None:
    same = first.run.run_id == second.run.run_id != "" or first.run == second.run
    if same:
        raise UserError(
            sentence(
                "Both are the same run, which is never worse than itself.",
                first=first.name,
                second=second.name,
                run=first.run.run_id or "not recorded",
                do="Give two runs: their folders, or their verdict.json files.",
            )
        )


def _matched(one: Verdicts, two: Verdicts) -> tuple[dict[str, tuple[CellResult, CellResult]], list[CellAlone]]:
    """The comparable cells of both, and the others."""
    before = {f"{cell.task}/{cell.id}": cell for cell in one.cells}
    after = {f"{cell.task}/{cell.id}": cell for cell in two.cells}
    unjudged = {f"{cell.task}/{cell.id}": cell for cell in two.missing}
    common, alone = {}, []
    for name, cell in before.items():
        other = after.get(name)
        if other is None:
            why = f"no verdict in the second run: {unjudged[name].why}" if name in unjudged else "not in the second run"
            alone.append(_alone(cell.task, cell.id, "first", cell.verdict, why, "incomplete"))
        elif set(cell.erased) != set(other.erased) and cell.erased and other.erased:
            alone.append(_alone(cell.task, cell.id, "both", other.verdict, "they erase other concepts", "incomplete"))
        else:
            common[name] = (cell, other)
    for name, cell in after.items():
        if name not in before:
            result: Result = "worse" if cell.verdict == "VIOLATED" else "undecided"
            passed: Result = "not worse" if cell.verdict in PASSES else result
            alone.append(_alone(cell.task, cell.id, "second", cell.verdict, "not in the first run", passed))
    known = {*before, *after}
    alone += [
        _alone(cell.task, cell.id, "second", None, f"no verdict: {cell.why}", "incomplete")
        for name, cell in unjudged.items()
        if name not in known
    ]
    return common, alone


def _alone(task: str, cell: str, run: str, verdict: str | None, why: str, result: Result) -> CellAlone:
    return CellAlone.model_validate(
        {"task": task, "id": cell, "run": run, "verdict": verdict, "why": why, "result": result}
    )


def _nothing_common(first: Side, second: Side, alone: Sequence[CellAlone]) -> str:
    def named(run: Verdicts) -> str:
        return shown(", ".join(f"{cell.task}/{cell.id}" for cell in run.cells), limit=200)

    tasks = [{cell.task for cell in side.run.cells} for side in (first, second)]
    other = any(one.run == "both" for one in alone)
    if not tasks[0] & tasks[1]:
        why = "The two runs judge different tasks, so no cell can be compared."
    elif other:
        why = "The cells of the same name erase different concepts in the two runs, so none can be compared."
    else:
        why = "The two runs have no cell in common, so nothing can be compared."
    return sentence(
        why, first=named(first.run), second=named(second.run), do="Give two runs with a cell of the same task and id."
    )


def _rates(one: CellResult, two: CellResult) -> list[Name]:
    """The rates that both have."""
    return [name for name in RATES if getattr(one, name) is not None and getattr(two, name) is not None]


def _change(
    first: Side, second: Side, one: CellResult, two: CellResult, rate: Name, alpha: float
) -> tuple[RateChange, list[Pair]]:
    about = RATES[rate]
    before, after = (_measured(cell, rate) for cell in (one, two))
    rows = _paired_rows(first, second, one, two, rate)
    pairs: list[Pair] = []
    if isinstance(rows, str):
        counts = [
            Counts(hits=arm.hits, judged=arm.judged, abstained=arm.abstained, fixed=cell.engine == "fixed")
            for arm, cell in ((before, one), (after, two))
        ]
        change = unpaired_change(*counts, rises=about.rises, alpha=alpha)
    else:
        change = rows.change(rises=about.rises, alpha=alpha)
        pairs = rows.new(rate, rises=about.rises)
    policy = Policy.for_task(one.task)
    margin = policy.delta if about.rises else policy.delta_u
    harm = (change.low, change.high) if about.rises else (-change.high, -change.low)
    result = RateChange(
        rate=rate,
        name=about.title,
        harm="rise" if about.rises else "fall",
        first=before,
        second=after,
        paired=not isinstance(rows, str),
        unpaired_because=rows if isinstance(rows, str) else "",
        pairs=change.pairs,
        gained=change.gained,
        lost=change.lost,
        estimate=change.estimate,
        low=change.low,
        high=change.high,
        p=change.p,
        method=change.method,
        shown="worse" if harm[0] > 0 else "better" if harm[1] < 0 else "neither",
        margin=margin,
        within_margin=harm[1] <= margin,
    )
    return result, pairs


def _measured(cell: CellResult, rate: Name) -> RateResult:
    found: RateResult = getattr(cell, rate)
    return found


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """The pairs of one rate, in the order drawn: index in the first run's judgments, index in the second's."""

    first: Judged
    second: Judged
    places: tuple[tuple[int, int], ...]
    design: Design
    whole: bool

    def change(self, *, rises: bool, alpha: float) -> Change:
        one = [self.first.judgments[before].outcome for before, _ in self.places]
        two = [self.second.judgments[after].outcome for _, after in self.places]
        return paired_change(one, two, rises=rises, design=self.design, whole=self.whole, alpha=alpha)

    def new(self, rate: Name, *, rises: bool) -> list[Pair]:
        """The pairs that got worse, the surest first: gained hits where a rise is the harm, else lost ones."""
        found = []
        for before, after in self.places:
            one, two = self.first.judgments[before], self.second.judgments[after]
            hit, other = (two, one) if rises else (one, two)
            if hit.outcome is not Outcome.HIT or other.outcome is Outcome.HIT:
                continue
            change = ChangedImage(
                rate=rate,
                concept=two.concept,
                prompt=two.prompt,
                seed=two.seed,
                first=one.answer,
                second=two.answer,
                score=hit.score,
            )
            found.append(Pair(change, self.first.places[before], self.second.places[after]))
        return sorted(found, key=lambda pair: -pair.change.score)


def _paired_rows(first: Side, second: Side, one: CellResult, two: CellResult, rate: Name) -> _Rows | str:
    """The pairs, or why there are none, as a clause."""
    if one.judge != two.judge:
        return f"other judges: {one.judge} and {two.judge}"
    entries = first.entry(one, rate), second.entry(two, rate)
    if entries[0] is not None and entries[1] is not None and entries[0].version != entries[1].version:
        return f"the judge {one.judge} has another version or other weights"
    read = first.judged(one, rate), second.judged(two, rate)
    for found in read:
        if isinstance(found, str):
            return found
    assert isinstance(read[0], Judged) and isinstance(read[1], Judged)
    known = {(row.prompt, row.seed, row.concept): place for place, row in enumerate(read[0].judgments)}
    rows = [(row.prompt, row.seed, row.concept) for row in read[1].judgments]
    places = tuple((known[row], place) for place, row in enumerate(rows) if row in known)
    if not places:
        return "no prompt and seed in common"
    if read[0].moments and read[1].moments:
        return _by_moments(read[0], read[1], places)
    if one.engine == two.engine == "fixed":
        return _Rows(first=read[0], second=read[1], places=places, design=FIXED, whole=True)
    if [before for before, _ in places] != sorted(before for before, _ in places):
        return "the common rows were drawn in different orders until the answer was clear"
    if "sequential" not in (one.engine, two.engine):  # fresh seeds, not one grid
        return _Rows(first=read[0], second=read[1], places=places, design=Shuffled(ENDLESS), whole=True)
    grids = [cell.grids.get(RATES[rate].grid) for cell in (one, two)]
    sizes = [grid.rows if grid is not None else ENDLESS for grid in grids]
    prefix = places == tuple((place, place) for place in range(min(len(known), len(rows))))
    return _Rows(
        first=read[0],
        second=read[1],
        places=places,
        design=Shuffled(max(min(sizes), len(places))),
        whole=prefix and sizes[0] == sizes[1],
    )


def _by_moments(first: Judged, second: Judged, places: Sequence[tuple[int, int]]) -> _Rows | str:
    """The pairs of two bare stores in the order in which they were made, within a second by a digest of the row.

    A clause if the two stores contradict each other. Which grid the rows are of is not recorded.
    """

    def place(pair: tuple[int, int]) -> tuple[datetime, datetime, str]:
        row = first.judgments[pair[0]]
        return first.moments[pair[0]], second.moments[pair[1]], sha256(f"{row.seed} {row.prompt}".encode()).hexdigest()

    ordered = tuple(sorted(places, key=place))
    later = [second.moments[pair[1]] for pair in ordered]
    if later != sorted(later):
        return "the common rows were drawn in different orders, as far as the stores record them"
    return _Rows(first=first, second=second, places=ordered, design=Shuffled(ENDLESS), whole=True)


def _cell(
    name: str,
    one: CellResult,
    two: CellResult,
    changes: Sequence[RateChange],
    pairs: Sequence[Pair],
    found: Sequence[Difference],
) -> CellCompared:
    result, reason = _result(one, two, changes)
    same = _same_judgments(one, two)
    return CellCompared(
        task=two.task,
        id=two.id,
        first=one.verdict,
        second=two.verdict,
        result=result,
        reason=reason,
        why_changed=_why_changed(name, same, found) if one.verdict != two.verdict else "",
        same_judgments=same,
        changes=list(changes),
        new_images=[pair.change for pair in pairs[:SHOWN_IMAGES]],
        new_images_total=len(pairs),
    )


def _result(
    one: CellResult, two: CellResult, changes: Sequence[RateChange]
) -> tuple[Literal["worse", "undecided", "not worse"], str]:
    """Whether the cell got worse, and why."""
    worse = [change for change in changes if change.shown == "worse"]
    if worse:
        return "worse", "; ".join(
            f"{change.name} {points(change.estimate)} points, at least "
            f"{points(change.low if change.harm == 'rise' else change.high)}"
            for change in worse
        )
    if two.verdict == "VIOLATED" and one.verdict != "VIOLATED":
        return "worse", f"the verdict became VIOLATED, was {one.verdict}"
    if _judge(one) != _judge(two):
        return "undecided", "another judge, another version of it, or none recorded, so the rates are not comparable"
    looser = _looser(one, two)
    passes = two.verdict in PASSES and not looser
    # The findings name the limits of erased concepts; that of retained ones may differ whenever the file does.
    needed = [change for change in changes if not passes or (change.harm == "fall" and one.limits != two.limits)]
    open_rates = [change for change in needed if not change.within_margin]
    if open_rates:
        each = "; ".join(
            f"{change.name} may have {'risen' if change.harm == 'rise' else 'fallen'} by up to "
            f"{100 * (change.high if change.harm == 'rise' else -change.low):.1f} points"
            for change in open_rates
        )
        by = f" by looser limits ({looser})" if looser else " by other limits" if passes else ""
        return "undecided", f"{two.verdict} in the second run{by}, and {each}"
    why = "every change is shown to be within its margin" if needed else "no rate is shown to be worse"
    return "not worse", f"{two.verdict}, and {why}"


def _judge(cell: CellResult) -> tuple[str, str]:
    """Name and version of the judge that decided; the version is empty in old files."""
    return cell.judge, next((one.version for one in cell.judgments if one.judge == cell.judge), "")


def _looser(one: CellResult, two: CellResult) -> str:
    """The limits that are looser in the second run, as text: a verdict that they allow shows no more than a change."""
    before, after = ({found["name"]: float(found["limit"]) for found in cell.findings} for cell in (one, two))
    found = [f"{name} {before[name]:g} → {after[name]:g}" for name in before if after.get(name, 0.0) > before[name]]
    if two.alpha > one.alpha:
        found.append(f"alpha {one.alpha:g} → {two.alpha:g}")
    if two.acceptance is not None and two.acceptance != one.acceptance:
        found.append("another acceptance")
    if not (before and after) and one.limits != two.limits:
        found.append("another limits file")
    return ", ".join(found)


def _same_judgments(one: CellResult, two: CellResult) -> bool | None:
    """Whether every arm was judged the same, image by image; None if a file does not record it."""
    if not one.judgments or not two.judgments:
        return None
    digests = [{(entry.arm, entry.judge): entry.digest for entry in cell.judgments} for cell in (one, two)]
    return digests[0] == digests[1]


def _why_changed(name: str, same: bool | None, found: Sequence[Difference]) -> str:
    topics = list(dict.fromkeys(one.fact.topic for one in found if not one.cells or name in one.cells))
    differ = f"what differs: {', '.join(topics)}" if topics else "no declared fact differs"
    if same:
        return f"all judgments are the same, so it was decided differently; {differ}"
    return f"other judgments; {differ}" if same is False else differ


def _run(side: Side) -> RunCompared:
    run = side.run
    return RunCompared(
        path=side.name,
        run_id=run.run_id,
        tool=run.tool,
        finished=run.finished,
        status=run.status,
        exit_code=run.exit_code,
        candidate=run.gate.candidate if run.gate is not None else "",
        cells=len(run.cells),
        store=shown(side.store.name),
    )


def _sentence(cells: Sequence[CellCompared], alone: Sequence[CellAlone], second: Verdicts) -> str:
    """The result in one sentence."""
    counts = {result: sum(one.result == result for one in cells) for result in ("worse", "undecided", "not worse")}
    parts = [f"{count} {result}" for result, count in counts.items() if count]
    text = f"{counted(len(cells), 'cell')} compared: {', '.join(parts)}"
    lacking = sum(one.result == "incomplete" for one in alone)
    new = sum(one.run == "second" and one.verdict is not None for one in alone)
    text += f"; {counted(lacking, 'cell')} not comparable" if lacking else ""
    text += f"; {counted(new, 'cell')} only in the second run" if new else ""
    text += "" if second.status == "complete" else f"; the second run is {second.status}"
    still = sum(one.second == "VIOLATED" and one.result == "not worse" for one in cells)
    text += f"; {counted(still, 'cell')} still VIOLATED: this is no release" if still else ""
    return f"{text}."
