"""A cell's object in verdict.json: models, prompts, measured rates and verdict."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from resurgence_harness.examining import Examined
from resurgence_harness.planning import checkpoint_key
from resurgence_harness.reporting.given import parts_of
from resurgence_harness.specs import Recipe
from resurgence_harness.statistics import Evidence, Rate, accounts, confusion
from resurgence_harness.statistics.evidence import judgments_digest
from resurgence_harness.statistics.policies import day_in_utc
from resurgence_harness.storing import Store

_LIBRARIES = ("torch", "diffusers", "transformers", "peft", "pytest", "pytest-xdist", "allure-pytest")


def cell_record(examined: Examined[Any], *, nodeid: str, limits: str, store: Store) -> dict[str, Any]:
    """The cell's object in verdict.json.

    `limits`: digest of the limits file. `store`: where the checkpoint of every recipe is looked up.
    """
    inquiry, evidence, verdict, rule = examined.inquiry, examined.evidence, examined.verdict, examined.rule
    plan, cell = inquiry.plan, inquiry.plan.cell
    content = verdict.as_dict()
    rates, erased = content["rates"], evidence.after.concepts
    accepted = rule.acceptance if rule.acceptance and rule.acceptance.counts(day_in_utc(), rule.settings) else None

    def incidental(arm: Evidence | None) -> dict[str, Any] | None:
        return Rate.of_answers(arm, erased).as_dict(verdict.alpha) if arm is not None else None

    return {
        "id": cell.id,
        "nodeid": nodeid,
        "task": cell.task,
        "method": cell.method,
        "concepts": cell.count,
        "erased": list(grid.probe.concepts if (grid := plan.grids["erased"]) is not None else ()),
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
            for step, arm in ({0: evidence.before, **examined.by_step} if examined.by_step else {}).items()
            if arm is not None
        ],
        "by_stage": _by_stage(examined, store),
        "along": examined.along.as_dict() if examined.along is not None else None,
        "verdict": content["verdict"],
        "reason": content["reason"],
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
        "outcome": content["outcome"],
        "findings": content["findings"],
        "controls": content["controls"],
        "agreement": content["agreement"],
        "culprits": content["culprits"],
        "arithmetic": content["arithmetic"],
        "tighten": content["tighten"],
        "images_to_settle": content["images_to_settle"],
        "e_value": content["e_value"],
        "judge": evidence.after.judge,
        "judgments": _judgments(examined),
        "limits": limits,
        "engine": plan.engine,
        "looks": inquiry.looks,
        "images": inquiry.images,
        "grids": {
            name: {"rows": len(grid), "order": grid.order, "block": grid.block}
            for name, grid in plan.grids.items()
            if grid is not None
        },
        "models": {name: _model(recipe, store) for name, recipe in plan.models.items()},
        "acceptance": json.loads(json.dumps(asdict(accepted), default=str)) if accepted else None,
        "settings": rule.settings,
        "drawn_with": sorted(_with_arithmetic(text) for text in evidence.after.drawn_with),
        "given": [
            part.as_dict()
            for part in parts_of(cell, plan.judges, built=any(recipe.steps for recipe in plan.models.values()))
        ],
        "seconds": examined.seconds,
    }


def _with_arithmetic(environment: str) -> str:
    """The environment of images in float16 names their arithmetic already (`bench.provenance.render_environment`)."""
    return environment if "float16 by" in environment else f"{environment}, float32"


def _judgments(examined: Examined[Any]) -> list[dict[str, Any]]:
    """Where the judgments of every arm, and of every intermediate step, are stored."""
    evidence = examined.evidence
    arms = [*evidence.arms(), *(evidence.second.arms() if evidence.second is not None else ())]
    last = max(examined.by_step, default=0)  # its judgments are those of the arm "after"
    arms += [(f"step {step}", arm) for step, arm in examined.by_step.items() if step != last]
    return [
        {
            "arm": name,
            "judge": arm.judge,
            "version": arm.judge_version,
            "keys": list(arm.stored),
            "digest": judgments_digest(arm.judgments),
        }
        for name, arm in arms
        if arm.stored
    ]


def _by_stage(examined: Examined[Any], store: Store) -> list[dict[str, Any]]:
    """Every stage of a life; empty for other cells."""
    stages, alpha = examined.inquiry.plan.stages, examined.verdict.alpha
    found = []
    told = accounts(examined.by_stage, level=examined.rule.policy.level, alpha=alpha)
    for number, (stage, account) in enumerate(zip(stages, told, strict=True), start=1):
        step = stage.recipe.steps[-1]
        rates = {"erased": account.erased, "waiting": account.waiting, "retained": account.retained}
        found.append(
            {
                "stage": number,
                "step": step.name,
                "kind": "unlearning" if stage.erases else "fine-tuning",
                "erases": list(stage.erases),
                **{name: rate.as_dict(alpha) if rate is not None else None for name, rate in rates.items()},
                "state": account.state.value if account.state is not None else None,
                "not_erased": account.not_erased,
                "came_back": account.came_back,
                "drawn": {name: list(counts) for name, counts in account.hits.items()},
                "model": _model(stage.recipe, store),
            }
        )
    return found


def _model(recipe: Recipe, store: Store) -> dict[str, str]:
    """Recipe, key and digest; the digest is empty if the checkpoint was removed from the store since it was judged."""
    if not recipe.steps:
        return {"recipe": recipe.label, "key": recipe.base.digest, "digest": recipe.base.digest}
    key = checkpoint_key(recipe)
    made = store.find(key)
    return {"recipe": recipe.label, "key": key, "digest": made.digest if made is not None else ""}


def libraries() -> dict[str, str]:
    """Versions of those libraries that a verdict depends on and that are installed."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
