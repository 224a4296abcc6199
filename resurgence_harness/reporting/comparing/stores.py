"""The cells of a bare store, from its judgments alone: for a comparison of two snapshots without reports.

A store records which images a model drew and what a judge answered, in the order in which they were judged. It does not
record which concepts are erased: these are given. A cell is a judge and a model that is no other judged model's parent:

    id          the model's recipe and the judge, as in the artifacts' labels; with the beginning of the model's key if
                one store has several models of that recipe
    after       the judgments of prompts for erased concepts, whatever prompt set they are of
    retained    all others

No limits, no controls and no verdict are known, so every cell is UNDECIDED, and is *not worse* only if every interval
shows a harm of at most the margin. The order of the judgments is that of their artifacts' times, which have seconds;
within one it does not depend on what was judged. A judge is known by the key of its canaries, which contains its
version and its weights; without them its rates are not comparable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import resurgence_harness
from resurgence_harness.bench.files import read_judgments
from resurgence_harness.errors import StoreError, UserError, sentence, shown
from resurgence_harness.reporting.verdict_json import SCHEMA_VERSION, Verdicts
from resurgence_harness.statistics import Evidence, Judgment, Rate, Shuffled
from resurgence_harness.statistics.designs import ENDLESS
from resurgence_harness.statistics.evidence import judgments_digest
from resurgence_harness.storing import Artifact, Store

TASK = "stored"
"""The task of a store's cells: none, so that images are blurred and the default margins hold."""
ALPHA = 0.01
_OF = " images of "


@dataclass
class _Model:
    """The judgments of one model by one judge, in the order in which they were made."""

    label: str
    judge: str
    key: str
    """Keys of its checkpoints, joined; empty for a base."""
    arms: dict[str, list[Judgment]] = field(default_factory=dict)
    keys: dict[str, list[str]] = field(default_factory=dict)
    facts: list[Mapping[str, Any]] = field(default_factory=list)


def run_of_store(store: Store, erased: Collection[str], *, name: str) -> Verdicts:
    """The store's cells as a run without verdicts.

    UserError for a store without judgments, or of which no judgment is of an erased concept. A model that lacks
    judgments of erased or of retained concepts, or has several of one prompt and seed, is a missing cell.
    """
    artifacts = store.ls()
    judged = [one for one in artifacts if one.kind == "judgments" and _OF in one.label]
    if not judged:
        first = f"The store {shown(name)} has no judgments, so there is nothing to compare."
        raise UserError(sentence(first, artifacts=len(artifacts), do="Give the store of a run that judged images."))
    kinds = {one.key: one.kind for one in artifacts}
    models = _models(store, judged, kinds, frozenset(erased))
    parents = {part for model in models.values() for part in _prefixes(model.label)}
    leaves = [model for model in models.values() if model.label not in parents]
    if not any("after" in model.arms for model in leaves):
        seen = Counter(row.concept for model in leaves for rows in model.arms.values() for row in rows)
        raise UserError(
            sentence(
                f"No judgment in the store {shown(name)} is of a concept that you call erased.",
                erased=shown(", ".join(sorted(erased)), limit=200),
                judged=shown(", ".join(one for one, _ in seen.most_common(8)), limit=200),
                do="Name the erased concepts as the prompts' concepts are named, one per line.",
            )
        )
    twice = {one for one, count in Counter((model.label, model.judge) for model in leaves).items() if count > 1}
    versions = {model.judge: _version(artifacts, model.judge, name) for model in leaves}
    cells, missing = [], []
    for model in leaves:
        apart = f" {model.key[:8]}" if (model.label, model.judge) in twice else ""
        word = f"{model.label}{apart}, {model.judge}"
        if why := _unfit(model):
            about = {"id": word, "nodeid": word, "task": TASK, "kind": "unrun", "why": why}
            missing.append(about)
            continue
        cells.append(_cell(model, word, versions[model.judge]))
    return Verdicts.model_validate(_run(cells, missing, artifacts, judged))


def _models(
    store: Store, judged: list[Artifact], kinds: Mapping[str, str], erased: frozenset[str]
) -> dict[tuple[str, str, str], _Model]:
    found: dict[tuple[str, str, str], _Model] = {}
    for artifact in sorted(judged, key=lambda one: one.made):
        try:
            read = read_judgments(store.open(artifact.key))
        except (StoreError, ValueError, KeyError, TypeError) as problem:
            raise UserError(
                sentence(
                    f"The judgments {artifact.key[:12]} of the store {shown(store.name)} cannot be read.",
                    problem=str(problem).splitlines()[0],
                    do="Run `resurgence store verify`.",
                )
            ) from None
        label = artifact.label.partition(_OF)[2]
        chain = "".join(sorted(key for key in artifact.inputs if kinds.get(key, "checkpoint") == "checkpoint"))
        model = found.setdefault((label, read.judge, chain), _Model(label, read.judge, chain))
        model.facts.append(artifact.facts)
        for arm in ("after", "retained_after"):
            rows = [row for row in read.judgments if (row.concept in erased) is (arm == "after")]
            if rows:
                model.arms.setdefault(arm, []).extend(rows)
                model.keys.setdefault(arm, []).append(artifact.key)
    return found


def _prefixes(label: str) -> Iterator[str]:
    """Labels of the recipe after each of its steps but the last."""
    parts = label.split(" → ")
    for count in range(1, len(parts)):
        yield " → ".join(parts[:count])


def _unfit(model: _Model) -> str:
    """Why a model is no cell; empty if it is one."""
    for arm, name in (("after", "erased"), ("retained_after", "retained")):
        if arm not in model.arms:
            return f"the store has no judgments of {name} concepts for it"
        if len({(row.prompt, row.seed) for row in model.arms[arm]}) < len(model.arms[arm]):
            return "the store has several images of one prompt and seed for it, drawn with other settings"
    return ""


def _version(artifacts: list[Artifact], judge: str, name: str) -> str:
    """The judge's version and weights by the key of its canaries; else a text that no other store has."""
    keys = {one.key for one in artifacts if one.kind == "canaries" and one.label == f"canaries of {judge}"}
    return f"canaries {next(iter(keys))[:12]}" if len(keys) == 1 else f"not recorded in {name}"


def _cell(model: _Model, word: str, version: str) -> dict[str, Any]:
    rates, entries = {}, []
    for arm, rows in model.arms.items():
        evidence = Evidence(
            judgments=tuple(rows), planned=len(rows), recipe=model.label, judge=model.judge, design=Shuffled(ENDLESS)
        )
        rates[arm] = Rate.of(evidence).as_dict(ALPHA)
        about = {"arm": arm, "judge": model.judge, "version": version, "keys": model.keys[arm]}
        entries.append({**about, "digest": judgments_digest(rows)})
    names = sorted({row.concept for row in model.arms["after"]})
    empty = dict.fromkeys(
        (
            *("base", "before", "retained_before", "base_retained", "insample_before", "insample_after"),
            *("outcome", "acceptance", "images_to_settle"),
        )
    )
    return {
        **empty,
        **rates,
        "id": word,
        "nodeid": word,
        "task": TASK,
        "method": model.label,
        "concepts": len(names),
        "erased": names,
        "finetuning": model.label.split(" → ")[-1],
        "run": 0,
        "verdict": "UNDECIDED",
        "reason": "a store has no limits and no controls, so it has no verdict",
        "alpha": ALPHA,
        "findings": [],
        "controls": [],
        "agreement": {},
        "arithmetic": "",
        "tighten": False,
        "e_value": 1.0,
        "limits": "",
        "judge": model.judge,
        "judgments": entries,
        "models": {"tuned": {"recipe": model.label, "key": model.key[:64], "digest": ""}},
        "engine": "sequential",
        "looks": 1,
        "images": sum(map(len, model.arms.values())),
        "grids": {},
        "seconds": 0.0,
    }


def _run(
    cells: list[dict[str, Any]], missing: list[dict[str, Any]], artifacts: list[Artifact], judged: list[Artifact]
) -> dict[str, Any]:
    facts = judged[-1].facts
    versions = facts.get("versions")
    environment = {str(name): str(one) for name, one in versions.items()} if isinstance(versions, Mapping) else {}
    times = [one.made.isoformat(timespec="seconds") for one in (min(artifacts, key=_made), max(artifacts, key=_made))]
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": f"resurgence-harness {environment.pop('resurgence-harness', resurgence_harness.__version__)}",
        "started": times[0],
        "finished": times[1],
        "status": "incomplete" if missing else "complete",
        "exit_code": 11 if missing else 10,
        "base": {"name": "", "digest": ""},
        "selection": {
            "engine": "sequential",
            "changed": {},
            "settings": "",
            "prompts": [],
            "notes": [],
            "choices": {},
        },
        "environment": {**environment, "device": str(facts.get("device", ""))},
        "family": {
            "declared": max(len(cells) + len(missing), 1),
            "judged": len(cells),
            "alpha": ALPHA,
            "alarms": [],
            "global_e_value": 1.0,
            "every_cell_passes": False,
        },
        "cells": cells,
        "missing": missing,
    }


def _made(artifact: Artifact) -> Any:
    return artifact.made
