"""A cell as it stands in verdict.json: what was asked, what was seen, what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from resurgence_harness.specs import Cell, Grid
from resurgence_harness.statistics import CellEvidence, Evidence, Rate, Verdict, confusion

_LIBRARIES = ("torch", "diffusers", "transformers", "peft", "pytest", "pytest-xdist", "allure-pytest")


def cell_record(
    cell: Cell,
    evidence: CellEvidence,
    verdict: Verdict,
    *,
    nodeid: str,
    limits: str,
    engine: str,
    looks: int,
    images: int,
    grids: Mapping[str, Grid | None],
    models: Mapping[str, Mapping[str, str]],
    along: Mapping[int, Evidence] | None = None,
) -> dict[str, Any]:
    """The cell's object in verdict.json, but for `acceptance` and `seconds`.

    `along`: what was seen after which steps of the fine-tuning, rising to its last; None or empty where nobody asked.
    """
    told = verdict.as_dict()
    rates, erased = told["rates"], evidence.after.concepts

    def incidental(arm: Evidence | None) -> dict[str, Any] | None:
        return Rate.of_answers(arm, erased).as_dict(verdict.alpha) if arm is not None else None

    return {
        "id": cell.id,
        "nodeid": nodeid,
        "task": cell.task,
        "method": cell.method,
        "concepts": cell.count,
        "finetuning": cell.finetuning,
        "run": cell.run,
        "base": rates.get("base"),
        "before": rates.get("before"),
        "after": rates["after"],
        "as_parent": rates.get("as_parent"),
        "retained_before": rates.get("retained_before"),
        "retained_after": rates["retained_after"],
        "by_step": [
            {"step": step, **Rate.of(arm).as_dict(verdict.alpha)}
            for step, arm in ({0: evidence.before, **along} if along else {}).items()
            if arm is not None
        ],
        "verdict": told["verdict"],
        "reason": told["reason"],
        "base_retained": rates.get("base_retained"),
        "insample_before": rates.get("insample_before"),
        "insample_after": rates.get("insample_after"),
        "synonyms_before": rates.get("synonyms_before"),
        "synonyms_after": rates.get("synonyms_after"),
        "incidental_before": incidental(evidence.retained_before),
        "incidental_after": incidental(evidence.retained_after),
        "templates": [
            {"template": one.template, **Rate.of(one.evidence).as_dict(verdict.alpha / len(evidence.templates))}
            for one in evidence.templates
        ],
        "confusion": {name: confusion(arm) for name, arm in evidence.arms()},
        "alpha": verdict.alpha,
        "outcome": told["outcome"],
        "findings": told["findings"],
        "controls": told["controls"],
        "agreement": told["agreement"],
        "culprits": told["culprits"],
        "arithmetic": told["arithmetic"],
        "tighten": told["tighten"],
        "images_to_settle": told["images_to_settle"],
        "e_value": told["e_value"],
        "judge": evidence.after.judge,
        "limits": limits,
        "engine": engine,
        "looks": looks,
        "images": images,
        "grids": {
            name: {"rows": len(grid), "order": grid.order, "block": grid.block}
            for name, grid in grids.items()
            if grid is not None
        },
        "models": {name: dict(model) for name, model in models.items()},
    }


def libraries() -> dict[str, str]:
    """The versions of the libraries that a verdict depends on, as far as they are installed."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
