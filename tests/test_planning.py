"""A plan says what is missing, why, and how long it takes; it reads manifests and writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from resurgence_harness.finetuning import BenignSet, LoRA
from resurgence_harness.planning import (
    HELD_OUT,
    SECONDS_PER_IMAGE,
    Plan,
    Wanted,
    checkpoint_key,
    describe_recipe,
    drawing,
    held_out_probe,
    images_key,
    judgments_key,
    plan,
    training,
)
from resurgence_harness.specs import Base, Concept, Probe, Prompt, Recipe, Sampler
from resurgence_harness.storing import Artifact, Condition, Store
from resurgence_harness.unlearning import ESD, UCE

ADA = Concept(name="ada quill", kind="a celebrity")
BASE = Recipe(Base(digest="ab" * 32, name="micro"))
SAMPLER = Sampler(steps=10, height=64, width=64)
ASKED = Probe(prompts=(Prompt(text="ada quill", concept="ada quill"),), seeds=(1, 2, 3, 4), sampler=SAMPLER)
BENIGN = Probe(prompts=(Prompt(text="cleo marsh", concept="cleo marsh"),), seeds=(101, 102), sampler=SAMPLER)
UNLEARNED = BASE.then(UCE(concepts=(ADA,)))
TUNED = UNLEARNED.then(LoRA(data=BenignSet(probe=BENIGN), steps=100))


@dataclass(frozen=True)
class Eye:
    """What a plan needs to know of a judge."""

    name: str = "eye"
    version: int = 1
    digest: str = "00" * 32


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store")


def put(store: Store, key: str, kind: str, *, content: bytes = b"x", **facts: Any) -> Artifact:
    """Something that was made earlier."""
    inputs = facts.pop("inputs", {})

    def build(folder: Path) -> Mapping[str, Any]:
        (folder / "file").write_bytes(content)
        return facts

    return store.make(key, kind=kind, label=kind, inputs=inputs, build=build)


def told(planned: Plan) -> list[tuple[str, str, str]]:
    """A plan in three words a line."""
    return [(action.kind, action.model, action.reason.value) for action in planned.actions]


def test_everything_is_missing_at_first(store: Store) -> None:
    """Parents come before children, and images that the base draws before the fine-tuning that needs them."""
    planned = plan(store, [Wanted(TUNED, ASKED, Eye())])
    assert told(planned) == [
        ("checkpoint", "micro → uce(1)", "missing"),
        ("images", "micro", "missing"),
        ("images", "micro", "missing"),
        ("checkpoint", "micro → uce(1) → lora", "missing"),
        ("images", "micro → uce(1) → lora", "missing"),
        ("judgments", "micro → uce(1) → lora", "missing"),
    ]
    assert planned.images == 2 + HELD_OUT + 4
    assert not store.root.exists()


def test_nothing_is_planned_twice(store: Store) -> None:
    """Two wishes that share a checkpoint share its action."""
    wanted = [(UNLEARNED, ASKED, Eye()), (TUNED, ASKED, Eye()), (UNLEARNED, ASKED, Eye(name="other"))]
    actions = plan(store, wanted).actions
    assert len({action.key for action in actions}) == len(actions)
    assert sum(action.kind == "judgments" for action in actions) == 3
    assert sum(action.kind == "checkpoint" for action in actions) == 2


def test_a_model_saved_on_the_way_costs_no_training_of_its_own(store: Store) -> None:
    """Where the whole training has still to run it leaves the model; where it is there, the part is trained anew."""
    whole = TUNED.before.then(replace(TUNED.steps[-1], save_at=(1,)))
    part = TUNED.before.then(TUNED.steps[-1].at(1))
    wanted = [Wanted(whole, ASKED, Eye()), Wanted(part, ASKED, Eye())]

    def seconds() -> list[float]:
        actions = plan(store, wanted).actions
        return [one.seconds for one in actions if one.key == checkpoint_key(part)]

    assert seconds() == [0.0]
    assert sum(one.kind == "judgments" for one in plan(store, wanted).needed) == 2
    for recipe in (TUNED.before, whole):
        put(store, checkpoint_key(recipe), "checkpoint")
    (anew,) = seconds()
    assert anew > 0


def test_what_is_judged_is_not_looked_behind(store: Store) -> None:
    """Judgments that are there need neither images nor checkpoints."""
    put(store, judgments_key(TUNED, ASKED, Eye()), "judgments")
    planned = plan(store, [(TUNED, ASKED, Eye())])
    assert told(planned) == [("judgments", "micro → uce(1) → lora", "present")]
    assert (planned.needed, planned.seconds, planned.images) == ((), 0, 0)


def test_old_images_serve_a_new_judge(store: Store) -> None:
    """Only the judging is planned."""
    put(store, images_key(TUNED, ASKED), "images")
    planned = plan(store, [(TUNED, ASKED, Eye(digest="11" * 32))])
    assert [(action.kind, action.needed) for action in planned.actions] == [("images", False), ("judgments", True)]


def test_corrupt_things_are_planned_again(store: Store) -> None:
    """A file of the wrong length is noticed without reading it through."""
    made = put(store, images_key(BASE, ASKED), "images", content=b"xxxx")
    (made.path / "file").write_bytes(b"x")
    assert told(plan(store, [(BASE, ASKED, Eye())])) == [
        ("images", "micro", "corrupt"),
        ("judgments", "micro", "missing"),
    ]


def test_changed_inputs_are_the_reason(store: Store) -> None:
    """Images of a checkpoint that has come out different since are planned again, and the plan says why."""
    place = checkpoint_key(UNLEARNED)
    parent = put(store, place, "checkpoint", content=b"one")
    put(store, images_key(UNLEARNED, ASKED), "images", inputs={place: parent.digest})
    assert plan(store, [(UNLEARNED, ASKED, Eye())]).actions[0].reason is Condition.PRESENT
    put(store, place, "checkpoint", content=b"two", inputs={"0" * 64: "x"})
    assert told(plan(store, [(UNLEARNED, ASKED, Eye())])) == [
        ("checkpoint", "micro → uce(1)", "present"),
        ("images", "micro → uce(1)", "inputs changed"),
        ("judgments", "micro → uce(1)", "missing"),
    ]


def test_estimates_start_from_declared_costs(store: Store) -> None:
    """Without a history the declared costs stand, larger images and more steps in proportion."""
    small = plan(store, [(BASE, ASKED, Eye())]).actions[0]
    large = replace(ASKED, sampler=replace(SAMPLER, height=128, width=128, steps=20))
    assert small.seconds == pytest.approx(4 * SECONDS_PER_IMAGE)
    assert plan(store, [(BASE, large, Eye())]).actions[0].seconds == pytest.approx(8 * small.seconds)
    assert not small.learned


def remember(store: Store, name: int, work: Any, own_seconds: float, device: str = "cpu") -> None:
    """Something that took this long, told as a bench tells it."""
    from resurgence_harness.storing import key

    facts: dict[str, Any] = {"work": work._asdict(), "device": device, "seconds elsewhere": -own_seconds}
    put(store, key("past", [name, device]), "past", **facts)


def test_estimates_are_learned_from_the_store(store: Store) -> None:
    """The median of what the same kind of work took per image, on the same device."""
    for name, seconds in enumerate((8, 10, 500)):
        remember(store, name, drawing(replace(ASKED, seeds=tuple(range(10)))), seconds)
    remember(store, 0, drawing(ASKED), 0.004, device="cuda")
    action = plan(store, [(BASE, ASKED, Eye())], device="cpu").actions[0]
    assert action.seconds == pytest.approx(4.0, rel=0.01)
    assert action.learned
    assert plan(store, [(BASE, ASKED, Eye())], device="cuda:1").actions[0].seconds == pytest.approx(0.004, rel=0.3)


def test_training_is_learned_per_step(store: Store) -> None:
    """Twice the optimiser steps take twice as long; another batch size is another kind of work."""
    short = LoRA(data=BenignSet(probe=BENIGN), steps=50)
    remember(store, 0, training(short), 10)
    actions = plan(store, [(TUNED, ASKED, Eye())]).actions
    assert next(action for action in actions if action.model.endswith("lora")).seconds == pytest.approx(20, rel=0.01)
    other = UNLEARNED.then(replace(short, batch=8))
    actions = plan(store, [(other, ASKED, Eye())]).actions
    assert not next(action for action in actions if action.model.endswith("lora")).learned


def test_the_units_of_a_step_are_its_updates() -> None:
    """ESD counts its updates, a fine-tuning its steps, a closed form itself."""
    assert training(ESD(concepts=(ADA,), iterations=70)).units == 70
    assert training(LoRA(data=BenignSet(probe=BENIGN), steps=9)).units == 9
    assert training(UCE(concepts=(ADA,))).units == 1


def test_held_out_images_were_never_trained_on() -> None:
    """Same questions, other seeds, about as many images whatever the size of the set."""
    for prompts in (1, 5, 48, 200):
        probe = replace(BENIGN, prompts=tuple(Prompt(text=f"a {n}", concept="c") for n in range(prompts)))
        held = held_out_probe(probe)
        assert not set(held.seeds) & set(probe.seeds)
        assert set(held.prompts) <= set(probe.prompts)
        assert HELD_OUT <= len(held) <= 2 * HELD_OUT


def test_recipes_in_words_tell_how_many_concepts() -> None:
    """ "micro → uce(1) → lora"."""
    assert describe_recipe(TUNED) == "micro → uce(1) → lora"
    assert describe_recipe(Recipe(Base(digest="ab" * 32))) == "abababab"
