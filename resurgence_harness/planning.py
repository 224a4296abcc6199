"""Which artifacts the tests need, in which order, why, and how long they take. Reads manifests; writes nothing.

    judgments ── need ──▶ images ── need ──▶ checkpoint ── needs ──▶ its parent, and images sampled from the base

A present artifact needs none of its inputs: stored judgments are used without their images and checkpoints.
Estimates come from the seconds recorded in the store for the same kind of work, else from the defaults declared here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from resurgence_harness.storing import Condition, Store, key

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
    store: Store,
    wanted: Iterable[Wanted | tuple[Recipe, SampleRequest, JudgeSpec]],
    *,
    device: str = "",
    pace: Pace | None = None,
) -> Plan:
    """The actions that give every wanted (recipe, probe, judge), in an order in which they can be built.

    Estimates are for `device`, "cpu" or "cuda"; if it is not given, for the device used last. `pace` may be given if it
    was read before, since reading it opens every manifest of the store.
    """
    actions: dict[str, Action] = {}
    pace = pace or Pace(store, device=device)
    for want in wanted:
        for action in _judged(store, pace, *want):
            actions.setdefault(action.key, action)
    return Plan(actions=tuple(actions.values()))


# Keys, shared by the plan and the bench


@lru_cache(maxsize=1024)
def checkpoint_key(recipe: Recipe) -> str:
    """Key of the weights after a recipe's last step; of the base itself if it has no steps."""
    return key("checkpoint", recipe)


def images_key(recipe: Recipe, probe: SampleRequest) -> str:
    """Key of the images sampled from a model with a probe."""
    return key("images", (checkpoint_key(recipe), probe))


def judgments_key(recipe: Recipe, probe: SampleRequest, judge: JudgeSpec) -> str:
    """Key of a judge's judgments of these images."""
    return key("judgments", (JUDGMENTS_FORMAT, checkpoint_key(recipe), probe, _named(judge)))


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

    def __init__(self, store: Store, *, device: str) -> None:
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


def _judged(store: Store, pace: Pace, recipe: Recipe, probe: SampleRequest, judge: JudgeSpec) -> Iterator[Action]:
    place = judgments_key(recipe, probe, judge)
    reason = store.condition(place)
    if reason is not Condition.PRESENT:
        yield from _drawn(store, pace, recipe, probe)
    work = judging(judge, probe)
    seconds, learned = pace.seconds(work, declared=SECONDS_PER_JUDGMENT)
    label = f"{judge.name} on {describe_images(recipe, probe)}"
    yield _action("judgments", place, recipe, label, reason, seconds, learned, probe, work)


def _drawn(store: Store, pace: Pace, recipe: Recipe, probe: SampleRequest) -> Iterator[Action]:
    place = images_key(recipe, probe)
    reason = store.condition(place)
    if reason is not Condition.PRESENT:
        yield from _built(store, pace, step_prefixes(recipe))
    declared, work = declared_seconds(probe.sampler), drawing(probe)
    seconds, learned = pace.seconds(work, declared=declared)
    yield _action("images", place, recipe, describe_images(recipe, probe), reason, seconds, learned, probe, work)


def _built(store: Store, pace: Pace, recipes: Sequence[Recipe]) -> Iterator[Action]:
    """Checkpoints of all steps: loading a model reads every checkpoint from its first step on."""
    for recipe in recipes:
        place = checkpoint_key(recipe)
        reason = store.condition(place)
        step = recipe.steps[-1]
        probes = probes_of(step)
        if reason is not Condition.PRESENT:
            for probe in probes:
                yield from _drawn(store, pace, Recipe(recipe.base), probe)
            for probe in parent_probes_of(step):
                yield from _drawn(store, pace, recipe.before, probe)
        work = training(step)
        scale = _training_scale(step, probes)
        declared = SECONDS_PER_UPDATE * scale if work.units > 1 else SECONDS_PER_SOLVE
        seconds, learned = pace.seconds(work, declared=declared)
        yield _action("checkpoint", place, recipe, describe_recipe(recipe), reason, seconds, learned, None, work)
        if reason is not Condition.PRESENT and isinstance(step, FineTuning):
            for done in step.save_at:  # intermediate checkpoints of this training
                part = recipe.before.then(step.at(done))
                place, label = checkpoint_key(part), f"{describe_recipe(part)}, saved at step {done}"
                yield _action("checkpoint", place, part, label, store.condition(place), 0.0, learned, None)


def _action(
    kind: str,
    place: str,
    recipe: Recipe,
    label: str,
    reason: Condition,
    seconds: float,
    learned: bool,
    probe: SampleRequest | None,
    work: Work | None = None,
) -> Action:
    present = reason is Condition.PRESENT
    return Action(
        kind=kind,
        key=place,
        model=describe_recipe(recipe),
        label=label,
        reason=reason,
        images=len(probe) if probe is not None else 0,
        seconds=0.0 if present else seconds,
        learned=learned and not present,
        work=work or NO_WORK,
    )


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
