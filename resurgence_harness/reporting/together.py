"""Joint claims over all cells of a run: alarms corrected for multiple testing, and the release claim.

The family is every cell that the profile declares for the run's tasks, selected or not, so leaving cells out never
makes an alarm easier. A cell without a verdict is neither evidence for an alarm nor a pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from resurgence_harness.statistics.multiplicity import Family, every_cell, global_e_value, holm
from resurgence_harness.statistics.scopes import over_runs


def together(records: Sequence[Mapping[str, Any]], declared: Sequence[str]) -> dict[str, Any]:
    """The object `family` of verdict.json; `declared`: "task/cell" names; judged cells beyond them are added."""
    found = {f"{record['task']}/{record['id']}": record for record in records}
    family = Family(cells=tuple(dict.fromkeys([*declared, *found])))
    alpha = min((record["alpha"] for record in records), default=0.01)
    evidence = {name: float(record["e_value"]) for name, record in found.items()}
    alarms = holm({name: min(1.0, 1 / max(e, 1e-300)) for name, e in evidence.items()}, family, alpha).rejected
    passes = {name: record["verdict"] in ("HOLDS", "KNOWN") for name, record in found.items()}
    return {
        "declared": len(family.cells),
        "judged": len(found),
        "alpha": alpha,
        "alarms": sorted(alarms),
        "global_e_value": global_e_value(evidence, family),
        "every_cell_passes": every_cell(passes, family),
    }


def sentence_of(family: Mapping[str, Any]) -> str:
    """The family's result in one sentence."""
    declared, judged, alarms = family["declared"], family["judged"], len(family["alarms"])
    cells = f"{declared} cell" + ("" if declared == 1 else "s")
    unjudged = "" if judged == declared else f", of which this run judged {judged}"
    found = "no regression" if not alarms else "1 regression" if alarms == 1 else f"{alarms} regressions"
    release = "every cell passes" if family["every_cell_passes"] else "a release claim needs every cell to pass"
    return (
        f"The suite declares {cells}{unjudged}. Together: {found} (any false one in at most "
        f"{100 * family['alpha']:g} % of runs); {release}."
    )


def over_recipes(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """For every cell with several runs, the claim over training seeds (scope L3), or why there is none.

    A rise that was measured until it was clear is biased by the stopping rule, so only runs with a fixed number of
    images are combined.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        name = f"{record['task']}/{record['method']}-{record['concepts']}-{record['finetuning']}"
        groups.setdefault(name, []).append(record)
    sentences = []
    for name, runs in groups.items():
        if len(runs) < 2:
            continue
        if any(run["engine"] != "fixed" for run in runs):
            sentences.append(f"{name}: no claim over its runs (L3): that needs --resurgence-engine fixed.")
            continue
        rises = [finding["estimate"] for run in runs for finding in run["findings"] if finding["name"] == "rise"]
        sentences.append(f"{name}: {over_runs(rises, runs[0]['alpha']).sentence}")
    return sentences
