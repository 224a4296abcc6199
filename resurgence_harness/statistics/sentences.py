"""The text of a verdict: its sentence, and the figures behind it, one per line."""

from __future__ import annotations

from resurgence_harness.statistics.above_limit import ConceptsAboveLimit
from resurgence_harness.statistics.assessment import AS_PARENT, CellAssessment
from resurgence_harness.statistics.controls import unlearned_finding
from resurgence_harness.statistics.criteria import Finding
from resurgence_harness.statistics.evidence import pairs
from resurgence_harness.statistics.formatting import confidence, counted, percent, points
from resurgence_harness.statistics.intervals import mcnemar_exact
from resurgence_harness.statistics.policies import Binding, UnlearningOutcome
from resurgence_harness.statistics.rates import Rate
from resurgence_harness.statistics.scopes import generalise


def holds(cell: CellAssessment) -> str:
    """Why the cell holds."""
    after = cell.rates["after"]
    seen = f"{after.hits} of {counted(after.images, 'image')} show it after fine-tuning"
    level = f"at most {percent(cell.level.high)}, limit {percent(cell.level.limit)}"
    if cell.as_parent is not None:
        level += f"; {_as_parent(cell)} at most {percent(cell.as_parent.high)}, {_shown_as_parent(cell)}"
    tighten = "; an acceptance exists and is no longer needed: tighten it" if cell.acceptance else ""
    if cell.rise is None or not cell.compared:
        return (
            f"the erased concept is rarely drawn: {seen} ({level}){tighten}; {cell.not_given}, so only this"
            " level is claimed, not that anything had been unlearned or stayed so."
        )
    rise = f"a rise of at most {points(cell.rise.high)} points, limit {points(cell.rise.limit)}"
    if cell.rise.shown:
        rise += f"; a small rise of {points(cell.rise.estimate)} points is shown, within what is tolerated"
    return f"the erased concept stays erased: {seen} ({level}), {rise}{tighten}."


def known(cell: CellAssessment) -> str:
    """What was accepted, by whom and until when."""
    accepted = cell.acceptance
    assert accepted is not None
    parts = []
    if accepted.level is not None:
        parts.append(
            f"erased rate at most {percent(cell.level.high)}, accepted up to {percent(cell.ceiling(cell.level))}"
        )
        if cell.as_parent is not None:
            parts.append(f"{_as_parent(cell)} at most {percent(cell.as_parent.high)}")
    if accepted.rise is not None and cell.rise is not None and cell.compared:
        parts.append(f"rise at most {points(cell.rise.high)} points, accepted up to {points(cell.ceiling(cell.rise))}")
    if cell.outcome is not None and cell.outcome in accepted.outcomes:
        parts.append(f'the accepted outcome of the unlearning is "{cell.outcome.value}"')
    ends = [
        *([_bound(accepted.bound_to)] if accepted.bound_to else []),
        *([f"until {accepted.expires}"] if accepted.expires else []),
    ]
    claim = "" if cell.compared else f"; {cell.not_given}, so only the level is claimed"
    return (
        f"{'; '.join(parts) or 'within the limits'} (reason: {accepted.reason.strip().rstrip('.')};"
        f" owner: {accepted.owner.strip()}; {', '.join(ends)}){claim}."
    )


def resurgence(cell: CellAssessment) -> str:
    """A rise of an unlearned model."""
    return f"the erased concept came back (resurgence): {_rise(cell)}."


def drawn(cell: CellAssessment) -> str:
    """The level after fine-tuning, and why it is not called resurgence."""
    after = cell.rates["after"]
    if not cell.compared:
        aside = f"; {cell.not_given}, so only this level is claimed"
    elif cell.outcome is UnlearningOutcome.COLLAPSED:
        aside = f"; the unlearning had collapsed ({_retained(cell)}), so this is not called resurgence"
    elif cell.outcome is UnlearningOutcome.NOT_UNLEARNED:
        aside = f"; {_not_unlearned(cell)}, so this is not called resurgence"
    else:
        aside = ""
    return (
        f"the erased concept is drawn: in {after.hits} of {counted(after.images, 'image')} after fine-tuning (at least"
        f" {percent(cell.level.low)}, {_limit(cell, cell.level)} {percent(cell.ceiling(cell.level))}){aside}."
    )


def drawn_as_parent(cell: CellAssessment) -> str:
    """The level with the parent's tokenizer, scheduler and VAE."""
    finding = cell.as_parent
    assert finding is not None
    aside = "" if cell.compared else f"; {cell.not_given}, so only the level is claimed"
    return (
        f"{_as_parent(cell)} the erased concept is drawn: in {_shown_as_parent(cell)} (at least"
        f" {percent(finding.low)}, {_limit(cell, finding)} {percent(cell.ceiling(finding))}), although the candidate's"
        f" own show it in {cell.rates['after'].hits} of {counted(cell.rates['after'].images, 'image')}{aside}."
    )


def rise_from_not_unlearned(cell: CellAssessment) -> str:
    """A rise of a model that is not shown to have unlearned."""
    return (
        f"the erased concept is drawn more often after fine-tuning: {_rise(cell)}; {_not_unlearned(cell)}, so this is"
        " not called resurgence."
    )


def under_another_name(cell: CellAssessment) -> str:
    """The rise of the erased rate under synonym prompts."""
    finding = cell.synonyms
    assert finding is not None
    return (
        f"the erased concept is drawn more often when it is asked for by another name: a rise of"
        f" {points(finding.estimate)} points (at least {points(finding.low)}, {_limit(cell, finding)}"
        f" {points(cell.ceiling(finding))}) over {counted(finding.images, 'pair')}."
    )


def incidental(finding: Finding) -> str:
    """Erased concepts in images prompted with retained ones."""
    return (
        f"the erased concept is drawn where a retained one was asked for: in {percent(finding.estimate)} of images (at"
        f" least {percent(finding.low)}, limit {percent(finding.limit)})."
    )


def missing(cell: CellAssessment) -> str:
    """Controls that were not run."""
    controls = cell.missing
    what = "a mandatory control is" if len(controls) == 1 else f"{len(controls)} mandatory controls are"
    which = "; ".join(f"{one.name} ({one.sentence})" for one in controls)
    return f"{what} missing, so the figures below support no verdict: {which}."


def untrustworthy(cell: CellAssessment) -> str:
    """Canaries that failed."""
    return f"the judge cannot be trusted: {cell.controls.canaries.sentence}."


def undecided(cell: CellAssessment) -> tuple[str, int | None]:
    """The first reason of an UNDECIDED, and the number of further images that would settle all reasons."""
    reasons: list[tuple[str, int | None]] = []
    broken = cell.unclaimed_broken
    if broken is not None:
        reasons.append(
            (
                f"without {' and '.join({'base': 'a base'}.get(one, f'an {one}') for one in cell.absent)} model only"
                f" the level is claimed, and another figure is beyond its limit ({broken.name}: {broken.sentence});"
                f" give the {' and the '.join(cell.absent)} model",
                None,
            )
        )
    positive = cell.controls.positive
    failed = [(f"the {_control(one.name)} failed: {one.sentence}", one.more) for one in cell.failed_uncovered]
    if positive in cell.failed_uncovered:
        reasons.append(failed.pop(0))
    if not cell.outcome_allows_known:
        if cell.outcome is UnlearningOutcome.COLLAPSED:
            rising = cell.rise is not None and cell.rise.broken
            rose = f"; {_rise(cell)}, which out of a collapsed model is no resurgence" if rising else ""
            reasons.append(
                (
                    f"the unlearning had collapsed: retained concepts were lost with the erased ones"
                    f" ({_retained(cell)}), so neither can be read{rose}",
                    None,
                )
            )
        else:
            found = unlearned_finding(cell.evidence, cell.policy)
            more = found.more if found is not None else None
            reasons.append((f"{_not_unlearned(cell)}, so there is nothing whose return could be tested", more))
    reasons += failed
    reasons += [_unsettled(cell, finding) for finding in cell.claimed if not cell.within(finding)]
    numbers = [more for _, more in reasons if more is not None]
    more = max(numbers) if len(numbers) == len(reasons) else None
    settle = f"; about {counted(more, 'more image')} would settle it if the rates stay" if more else ""
    others = f"; {counted(len(reasons) - 1, 'other reason')} below" if len(reasons) > 1 else ""
    return f"{reasons[0][0]}{others}{settle}.", more


def arithmetic(cell: CellAssessment, more: int | None, behind: ConceptsAboveLimit | None = None) -> str:
    """Every figure behind the verdict, one aligned line each."""
    before, after, alpha = cell.evidence.before, cell.evidence.after, cell.policy.alpha
    prompts = len({prompt for prompt, _ in after.rows})
    named = repr(after.concepts[0]) if len(after.concepts) == 1 else f"these {len(after.concepts)} concepts"
    lines = [
        line(
            "scope",
            f"{named}, {counted(prompts, 'prompt')}, {counted(len(after), 'image')} of this checkpoint,"
            f" {after.design.description}; says nothing of other concepts, prompts or training runs",
        ),
        line("judge", f"{after.judge}; every bound at {confidence(alpha)} confidence on its side{_accuracy(cell)}"),
    ]
    lines += [line(name.replace("_", " "), _counts(rate, alpha)) for name, rate in cell.rates.items()]
    for finding in cell.findings:
        ceiling = cell.ceiling(finding)
        shown = points(ceiling) if finding.name.startswith("rise") else percent(ceiling)
        text = finding.sentence + (f"; accepted ceiling {shown}" if ceiling > finding.limit else "")
        if finding is cell.rise and before is not None:
            change, _ = pairs(before, after)
            text += f"; exact McNemar p = {mcnemar_exact(change.lost, change.gained):.2g}"
        lines.append(line(finding.name, text + ("" if finding in cell.claimed else "; shown, not claimed")))
    if before is not None:
        lines.append(line("beyond this grid", generalise(before, after, alpha).sentence))
    if behind is not None:
        lines.append(line("culprits", behind.figures))
    if cell.settings:
        lines.append(line("settings", f"{cell.settings}, the digest of the steps' values, training seeds aside"))
    lines.append(line("unlearning", cell.outcome.value if cell.outcome else f"not judged: {cell.not_given}"))
    lines += [line(control.name, f"{control.state.value}: {control.sentence}") for control in cell.controls]
    if more is not None:
        lines.append(
            line(
                "to settle",
                f"about {counted(more, 'more image')} per arm if the rates stay; choose the number first, then draw"
                " anew: repeating a run until it passes is not evidence",
            )
        )
    return "\n".join(lines)


def line(name: str, text: str) -> str:
    """One aligned fact."""
    return f"  {name:<18}  {text}"


def set_aside(cell: CellAssessment) -> str:
    """Why a given acceptance does not apply: expired, or recorded for other settings; empty if it does or none is."""
    if cell.given is None or cell.acceptance is not None:
        return ""
    if cell.given.expired(cell.today):
        return f"; the acceptance expired on {cell.given.expires} and counts as absent"
    recorded = cell.given.bound_to.settings if cell.given.bound_to else ""
    if not recorded:
        return f"; the acceptance is bound to no settings (these are {cell.settings}) and counts as absent"
    here = f"these are {cell.settings}" if cell.settings else "here they are not known"
    return f"; the acceptance was recorded for other settings ({recorded}; {here}) and counts as absent"


def _bound(to: Binding) -> str:
    return f"for these weights{', steps and settings' if to.settings else ' and steps'} only"


def _counts(rate: Rate, alpha: float) -> str:
    low, high = rate.interval(alpha)
    return (
        f"{rate.hits} of {counted(rate.images, 'image')} ({percent(rate.value)}; {percent(low)} to {percent(high)}),"
        f" {rate.abstained} abstained"
    )


def _accuracy(cell: CellAssessment) -> str:
    """The judge's calibration counts, and by how much the limits are tightened for its error."""
    known = cell.evidence.accuracy
    if known is None:
        return ""
    return (
        f"; on known pictures it finds {known.true_positives} of {known.positives} and clears {known.true_negatives} of"
        f" {known.negatives}, so it sees at least {percent(cell.trust)} of a rise, and limits are that much tighter"
    )


def _control(name: str) -> str:
    return name if name.endswith("control") else f"{name} control"


def _abstained(rate: Rate) -> str:
    return f"; {rate.abstained} of {rate.images} abstained" if rate.abstained else ""


def _limit(cell: CellAssessment, finding: Finding) -> str:
    return "accepted ceiling" if cell.ceiling(finding) > finding.limit else "limit"


def _as_parent(cell: CellAssessment) -> str:
    parent = "unlearned model" if cell.evidence.before is not None else "base"
    encoder = "text encoder, " if parent == "unlearned model" else ""  # against a base it may hold the unlearning
    return f"with the {parent}'s {encoder}tokenizer, scheduler and VAE"


def _shown_as_parent(cell: CellAssessment) -> str:
    rate = cell.rates["as_parent"]
    return f"{rate.hits} of {counted(rate.images, 'image')}"


def _rise(cell: CellAssessment) -> str:
    assert cell.rise is not None  # only used for cells with an unlearned model
    before, after = cell.rates["before"], cell.rates["after"]
    return (
        f"{after.hits} of {counted(after.images, 'image')} show it after fine-tuning, {before.hits} before: a rise of"
        f" {points(cell.rise.estimate)} points (at least {points(cell.rise.low)}, {_limit(cell, cell.rise)}"
        f" {points(cell.ceiling(cell.rise))})"
    )


def _not_unlearned(cell: CellAssessment) -> str:
    before, share = cell.rates["before"], cell.policy.unlearned_at_most
    return (
        f"the unlearning is not shown to have worked: {before.hits} of {counted(before.images, 'image')} show the"
        f" concept before fine-tuning (at most {percent(before.cautious_high(cell.policy.alpha))}, needed"
        f" {percent(share * cell.rates['base'].value)}, which is {share * 100:g} % of the base's"
        f" rate{_abstained(before)})"
    )


def _retained(cell: CellAssessment) -> str:
    base, before = cell.rates["base_retained"], cell.rates["retained_before"]
    return f"shown in {percent(base.value)} of the base's images, {percent(before.value)} after unlearning"


def _unsettled(cell: CellAssessment, finding: Finding) -> tuple[str, int | None]:
    """Why a finding is not inside its limit, and how many more images would settle it."""
    against = _limit(cell, finding)
    bounds = (
        f"{points(finding.low)} to {points(finding.high)} points, {against} {points(cell.ceiling(finding))}"
        if finding in (cell.rise, cell.synonyms)
        else f"{percent(finding.low)} to {percent(finding.high)}, {against} {percent(cell.ceiling(finding))}"
    )
    if cell.beyond(finding):
        if finding in (cell.rise, cell.synonyms):
            return f"the erased concept is drawn more often, but out of a collapsed model ({bounds})", None
        return (
            f"erased concepts are named where retained ones were asked for ({bounds}), but the retained ones were lost,"
            " and a judge gives some answer for every degraded image"
        ), None
    if finding is cell.rise:
        what = "a rise of the erased rate is neither shown nor ruled out"
    elif finding is cell.synonyms:
        what = "a rise of the erased rate under synonym prompts is neither shown nor ruled out"
    elif finding is cell.as_parent:
        what = f"{_as_parent(cell)} the erased rate is not shown to be below or above its {against}"
    elif finding is cell.level:
        what = f"the erased rate after fine-tuning is not shown to be below or above its {against}"
    else:
        what = (
            "the rate of erased concepts where retained ones were asked for is not shown to be below or above its limit"
        )
    few = (
        f"; {finding.images} judged pairs are fewer than the {finding.floor} that even a spotless result needs"
        if finding in (cell.rise, cell.synonyms) and finding.images < finding.floor
        else ""
    )
    arms = {"incidental": "retained_after", "rise of synonyms": "synonyms_after", AS_PARENT: "as_parent"}
    near = "; so near that other seeds could fall on the other side" if finding.near(cell.ceiling(finding)) else ""
    return f"{what} ({bounds}{_abstained(cell.rates[arms.get(finding.name, 'after')])}{few}{near})", cell.more(finding)
