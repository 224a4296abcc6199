"""Which artifacts the tests need, in which order, why, and how long they take. Reads manifests; writes nothing.

    judgments ── need ──▶ images ── need ──▶ checkpoint ── needs ──▶ its parent, and images sampled from the base

A present artifact needs none of its inputs: stored judgments are used without their images and checkpoints.
Estimates come from the seconds recorded in the store for the same kind of work, else from the defaults declared here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil
from statistics import median
from typing import NamedTuple, Protocol

from resurgence_harness.finetuning.benign import BenignSet
from resurgence_harness.finetuning.contract import FineTuning
from resurgence_harness.finetuning.dreambooth import DreamBooth
from resurgence_harness.finetuning.given import GivenSet
from resurgence_harness.registry import in_key
from resurgence_harness.specs import Probe, Recipe, Sampler, SampleRequest, Step
from resurgence_harness.storing import Artifact, Condition, key

HELD_OUT = 100
"""About how many images, sampled from the base and never trained on, show whether a fine-tuning had an effect."""

JUDGMENTS_FORMAT = 2
"""Increased when verdicts need data that older stored judgments do not contain."""

SECONDS_PER_IMAGE = 0.06
"""Default cost of an image of 64 × 64 pixels and 10 sampler steps; grows with pixels and steps."""
SECONDS_PER_UPDATE = 0.25
"""Default cost of an optimiser step on 64 × 64 pixels."""
SECONDS_PER_SOLVE = 5.0
"""Default cost of a step without optimiser steps (a closed form)."""
SECONDS_PER_JUDGMENT = 0.005
"""Default cost of judging an image."""


class JudgeSpec(Protocol):
    """The fields of a judge that a plan needs; its weights are not loaded."""

    @property
    def name(self) -> str:
        """The judge's name in reports."""

    @property
    def version(self) -> int | str:
        """Increased when the meaning of its judgments changes."""

    @property
    def digest(self) -> str:
        """Digest of its weights."""


class Wanted(NamedTuple):
    """One piece of evidence that a test needs."""

    recipe: Recipe
    probe: SampleRequest
    judge: JudgeSpec


class Work(NamedTuple):
    """Amount of work, in units whose cost is comparable within a group."""

    group: str
    units: int


NO_WORK = Work("", 0)
"""Of an artifact that is made as a part of another."""


@dataclass(frozen=True, kw_only=True)
class Action:
    """One artifact that is needed: present already, or to be built."""

    kind: str
    """checkpoint, images or judgments."""
    key: str
    model: str
    """The recipe as a label: its steps, and how many concepts each erases."""
    label: str
    """Description of the artifact."""
    reason: Condition
    images: int = 0
    """Images sampled or judged; training images are counted by the action that samples them."""
    seconds: float = 0.0
    """Estimated time to build it; 0 if it is present."""
    learned: bool = False
    """Whether the estimate comes from builds recorded in this store."""
    work: Work = NO_WORK
    """The amount of work."""
    needs: tuple[str, ...] = ()
    """Keys of the planned artifacts that it is built from; empty if it is present."""
    recipe: Recipe | None = None
    """The model."""
    probe: SampleRequest | None = None
    """Its images; None for a checkpoint."""
    judge: JudgeSpec | None = None
    """Of judgments."""

    @property
    def needed(self) -> bool:
        """Whether it has to be built."""
        return self.reason is not Condition.PRESENT


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All artifacts needed, each once, inputs before the artifacts built from them."""

    actions: tuple[Action, ...]

    @property
    def needed(self) -> tuple[Action, ...]:
        """The actions whose artifacts have to be built."""
        return tuple(action for action in self.actions if action.needed)

    @property
    def seconds(self) -> float:
        """Estimated time for one worker that builds them one after another."""
        return sum(action.seconds for action in self.actions)

    @property
    def images(self) -> int:
        """Number of images that have to be sampled."""
        return sum(action.images for action in self.needed if action.kind == "images")


def plan(
    store: Shelf,
    wanted: Iterable[Wanted | tuple[Recipe, SampleRequest, JudgeSpec]],
    *,
    device: str = "",
    pace: Pace | None = None,
) -> Plan:
    """The actions that give every wanted (recipe, probe, judge), in an order in which they can be built.

    Estimates are for `device`, "cpu" or "cuda"; if it is not given, for the device used last. `pace`: as read before,
    for many plans of one store.
    """
    planner = _Planner(store, pace or Pace(store, device=device))
    kept = list(wanted)  # the planner recognises recipes by their identity
    for want in kept:
        planner.judged(*want)
    return Plan(actions=tuple(planner.actions.values()))


class Shelf(Protocol):
    """The part of a store that a plan reads."""

    def condition(self, key: str) -> Condition:
        """The state of a key."""

    def ls(self) -> list[Artifact]:
        """All usable artifacts, oldest first."""


class NothingStored:
    """A store without artifacts: a plan on it has every action, on every machine the same."""

    def condition(self, key: str) -> Condition:
        """Everything is missing."""
        return Condition.MISSING

    def ls(self) -> list[Artifact]:
        """Nothing, so that estimates are the defaults."""
        return []


def describe_needed(planned: Plan) -> str:
    """ "1 checkpoint, 240 images and 264 judgments"; empty if nothing is needed."""
    counts = Counter[str]()
    for action in planned.needed:
        counts[action.kind] += 1 if action.kind == "checkpoint" else action.images
    names = {"checkpoint": "checkpoint" if counts["checkpoint"] == 1 else "checkpoints"}
    parts = [
        f"{counts[kind]:,} {names.get(kind, kind)}" for kind in ("checkpoint", "images", "judgments") if counts[kind]
    ]
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


# Keys, shared by the plan and the bench


@lru_cache(maxsize=1024)
def checkpoint_key(recipe: Recipe) -> str:
    """Key of the weights after a recipe's last step; of the base itself if it has no steps."""
    return key("checkpoint", recipe)


def images_key(recipe: Recipe, probe: SampleRequest) -> str:
    """Key of the images sampled from a model with a probe."""
    return _images_key(checkpoint_key(recipe), probe)


def judgments_key(recipe: Recipe, probe: SampleRequest, judge: JudgeSpec) -> str:
    """Key of a judge's judgments of these images."""
    return _judgments_key(checkpoint_key(recipe), probe, json.dumps(_named(judge), sort_keys=True))


@lru_cache(maxsize=8192)
def _images_key(model: str, probe: SampleRequest) -> str:
    return key("images", (model, probe))


@lru_cache(maxsize=16384)
def _judgments_key(model: str, probe: SampleRequest, judge: str) -> str:
    return key("judgments", (JUDGMENTS_FORMAT, model, probe, json.loads(judge)))


def losses_key(recipe: Recipe) -> str:
    """Key of the benign losses before and after a recipe's last step."""
    return key("losses", checkpoint_key(recipe))


def answers_key(data: GivenSet, judge: JudgeSpec) -> str:
    """Key of a judge's answers on the images of a given set."""
    return key("answers", (data, _named(judge)))


def canaries_key(judge: JudgeSpec) -> str:
    """Key of a judge's results on its canaries, stored images with known labels."""
    return key("canaries", _named(judge))


def step_prefixes(recipe: Recipe) -> tuple[Recipe, ...]:
    """The recipe after its first step, after its second …; empty for a base."""
    return tuple(replace(recipe, steps=recipe.steps[:count]) for count in range(1, len(recipe.steps) + 1))


def held_out_probe(probe: Probe) -> Probe:
    """The same prompts with seeds that a fine-tuning on `probe` never saw, about `HELD_OUT` images."""
    prompts = probe.prompts[:HELD_OUT]
    first = max(probe.seeds) + 1
    return replace(probe, prompts=prompts, seeds=tuple(range(first, first + ceil(HELD_OUT / len(prompts)))))


def probes_of(step: Step) -> tuple[Probe, ...]:
    """Probes sampled from the base for a step: its training images, and a fine-tuning's held-out images.

    None for a fine-tuning on given images.
    """
    if isinstance(step, FineTuning):
        data = step.data
        return (data.probe, held_out_probe(data.probe)) if isinstance(data, BenignSet) else ()
    return tuple(value for value in vars(step).values() if isinstance(value, Probe))


def parent_probes_of(step: Step) -> tuple[Probe, ...]:
    """Probes that the model before a step draws for it: DreamBooth's class images."""
    prior = step.prior if isinstance(step, DreamBooth) else None
    return () if prior is None else (prior,)


def describe_recipe(recipe: Recipe) -> str:
    """A label with the number of concepts: "micro → esd(10) → lora"."""
    names = [recipe.base.name or recipe.base.digest[:8]]
    for step in recipe.steps:
        concepts = getattr(step, "concepts", None)
        names.append(f"{step.name}({len(concepts)})" if concepts is not None else step.name)
    return " → ".join(names)


def describe_images(recipe: Recipe, probe: SampleRequest) -> str:
    """ "250 images of micro → esd(10)"."""
    return f"{len(probe)} images of {describe_recipe(recipe)}"


# Estimates


def drawing(probe: SampleRequest) -> Work:
    """Number of images, comparable at one size and number of sampler steps."""
    sampler = probe.sampler
    return Work(f"draw {sampler.width}×{sampler.height}, {sampler.steps} steps", len(probe))


def training(step: Step) -> Work:
    """Optimiser steps of one kind of step, comparable at one batch size; a closed form is one unit."""
    updates = getattr(step, "updates", getattr(step, "steps", None))
    batch = getattr(step, "batch", None)
    return Work(f"{step.name}, {batch} at a time" if batch else step.name, updates if isinstance(updates, int) else 1)


def judging(judge: JudgeSpec, probe: SampleRequest) -> Work:
    """Number of images judged by one judge."""
    return Work(f"judge {judge.name}", len(probe))


class Pace:
    """Seconds per unit of each group of work: the median over the store's records for the device."""

    def __init__(self, store: Shelf, *, device: str = "") -> None:
        """Read the time of every build. `device` is "cpu", "cuda…", or empty for the device used last."""
        measured = [artifact for artifact in store.ls() if isinstance(artifact.facts.get("work"), Mapping)]
        chosen = _kind_of(device) if device or not measured else _kind_of(measured[-1].facts.get("device"))
        seen: dict[str, list[float]] = {}
        for artifact in measured:
            work = artifact.facts["work"]
            if _kind_of(artifact.facts.get("device")) == chosen:
                own = artifact.seconds - float(artifact.facts.get("seconds elsewhere", 0.0))
                seen.setdefault(str(work["group"]), []).append(max(own, 0.0) / max(int(work["units"]), 1))
        self._seen = {group: median(values) for group, values in seen.items()}

    def seconds(self, work: Work, *, declared: float) -> tuple[float, bool]:
        """(seconds, whether they come from recorded builds) for some work; `declared` is the default per unit."""
        learned = self._seen.get(work.group)
        return (declared if learned is None else learned) * work.units, learned is not None


# The actions for one piece of evidence


class _Planner:
    """Collects actions, inputs before the artifacts built from them, each once; every method returns a key."""

    def __init__(self, store: Shelf, pace: Pace) -> None:
        self.actions: dict[str, Action] = {}
        self._store, self._pace = store, pace
        self._chains: dict[int, tuple[Recipe, tuple[str, ...]]] = {}

    def judged(self, recipe: Recipe, probe: SampleRequest, judge: JudgeSpec) -> str:
        place = judgments_key(recipe, probe, judge)
        if place not in self.actions:
            reason = self._store.condition(place)
            needs = () if reason is Condition.PRESENT else (self.drawn(recipe, probe),)
            work = judging(judge, probe)
            cost = self._pace.seconds(work, declared=SECONDS_PER_JUDGMENT)
            label = f"{judge.name} on {describe_images(recipe, probe)}"
            self._add("judgments", place, recipe, label, reason, cost, needs, work, probe=probe, judge=judge)
        return place

    def drawn(self, recipe: Recipe, probe: SampleRequest) -> str:
        place = images_key(recipe, probe)
        if place not in self.actions:
            reason = self._store.condition(place)
            needs = () if reason is Condition.PRESENT else self.built(recipe)
            work, label = drawing(probe), describe_images(recipe, probe)
            cost = self._pace.seconds(work, declared=declared_seconds(probe.sampler))
            self._add("images", place, recipe, label, reason, cost, needs, work, probe=probe)
        return place

    def built(self, recipe: Recipe) -> tuple[str, ...]:
        """Keys of the checkpoints of all steps: loading a model reads every checkpoint from its first step on."""
        known = self._chains.get(id(recipe))
        if known is None:
            keys: tuple[str, ...] = ()
            for part in step_prefixes(recipe):
                keys += (self._trained(part, keys),)
            known = self._chains[id(recipe)] = (recipe, keys)  # with the recipe, so that its id stays its own
        return known[1]

    def _trained(self, recipe: Recipe, before: tuple[str, ...]) -> str:
        place = checkpoint_key(recipe)
        step = recipe.steps[-1]
        saves = isinstance(step, FineTuning) and bool(step.save_at)
        if (known := self.actions.get(place)) is not None and not (known.needed and saves):
            return place
        reason = self._store.condition(place)
        present = reason is Condition.PRESENT
        probes, needs = probes_of(step), before
        if not present:
            needs += tuple(self.drawn(Recipe(recipe.base), probe) for probe in probes)
            needs += tuple(self.drawn(recipe.before, probe) for probe in parent_probes_of(step))
        work = training(step)
        scale = _training_scale(step, probes)
        declared = SECONDS_PER_UPDATE * scale if work.units > 1 else SECONDS_PER_SOLVE
        cost = self._pace.seconds(work, declared=declared)
        needs = () if present else needs
        self._add("checkpoint", place, recipe, describe_recipe(recipe), reason, cost, needs, work)
        if not present and isinstance(step, FineTuning):
            for done in step.save_at:  # intermediate checkpoints of this training
                part = recipe.before.then(step.at(done))
                saved = checkpoint_key(part)
                label = f"{describe_recipe(part)}, saved at step {done}"
                found = self._store.condition(saved)
                self._add("checkpoint", saved, part, label, found, (0.0, cost[1]), (place,))
        return place

    def _add(
        self,
        kind: str,
        place: str,
        recipe: Recipe,
        label: str,
        reason: Condition,
        cost: tuple[float, bool],
        needs: tuple[str, ...],
        work: Work = NO_WORK,
        *,
        probe: SampleRequest | None = None,
        judge: JudgeSpec | None = None,
    ) -> None:
        present = reason is Condition.PRESENT
        action = Action(
            kind=kind,
            key=place,
            model=describe_recipe(recipe),
            label=label,
            reason=reason,
            images=len(probe) if probe is not None else 0,
            seconds=0.0 if present else cost[0],
            learned=cost[1] and not present,
            work=work,
            needs=() if present else tuple(dict.fromkeys(needs)),
            recipe=recipe,
            probe=probe,
            judge=judge,
        )
        self.actions.setdefault(place, action)


def declared_seconds(sampler: Sampler) -> float:
    """Default cost of an image in seconds, which grows with its pixels and the sampler's steps."""
    return SECONDS_PER_IMAGE * _scale(sampler) * sampler.steps / 10


def _scale(sampler: Sampler) -> float:
    return sampler.height * sampler.width / (64 * 64)


def _training_scale(step: Step, probes: Sequence[Probe]) -> float:
    """Pixels of a training image, relative to 64 × 64."""
    if isinstance(step, FineTuning) and isinstance(step.data, GivenSet):
        return step.data.height * step.data.width / (64 * 64)
    return _scale(probes[0].sampler) if probes else 1.0


def _kind_of(device: object) -> str:
    return str(device).split(":")[0]


def version_of(judge: JudgeSpec) -> str:
    """Version and weights of a judge as text, different for judges whose judgments have different keys."""
    origin = in_key(type(judge))
    source = "" if origin is None else f", from {key('origin', origin)[:12]}"
    return f"version {judge.version}, weights {judge.digest[:12]}{source}"


def _named(judge: JudgeSpec) -> dict[str, object]:
    own: dict[str, object] = {"name": judge.name, "version": judge.version, "digest": judge.digest}
    origin = in_key(type(judge))
    return own if origin is None else {**own, "from": origin}
