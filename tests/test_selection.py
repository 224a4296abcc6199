"""Which cells there are, and what each of them asks for."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from resurgence_harness.errors import SpecError, UserError
from resurgence_harness.finetuning import FINETUNINGS
from resurgence_harness.presets import METHODS, OF_TASK, OF_VARIANT, PRESETS, FromTask, parse_change, settings_for
from resurgence_harness.selection import (
    BENIGN_SEED,
    CONTROL_IMAGES,
    ENGINES,
    Selection,
    allowed_counts,
    cells,
    narrowed,
    plan_cell,
)
from resurgence_harness.specs import Base, Cell
from resurgence_harness.statistics import zero_event_floor
from resurgence_harness.storing import key
from resurgence_harness.tasks import CELEBRITY, COPYRIGHT, PUBLISHED, TASKS, UNSAFE, Task

MICRO = Base(digest="0" * 64, name="micro")


def planned(cell: str = "esd-10-lora", *, task: Task = CELEBRITY, **selection: Any) -> Any:
    """The plan of a cell by its words."""
    method, count, finetuning = cell.rsplit("-", 2)
    return plan_cell(
        Cell(task=task.name, method=method, count=int(count), finetuning=finetuning, run=selection.pop("run", 0)),
        MICRO,
        task=task,
        selection=Selection(**selection),
    )


@pytest.mark.parametrize(("profile", "count"), [("quick", 14), ("full", 28), ("paper", 252)])
def test_profiles_have_their_sizes(profile: str, count: int) -> None:
    """Quick is 14 cells, full 28, paper all counts × three fine-tunings × three runs × seven methods."""
    found = cells(CELEBRITY, Selection(profile=profile))
    assert len(found) == count
    assert len({cell.id for cell in found}) == count


def test_ids_are_stable_words_and_checkpoints_stay_together() -> None:
    """A node id says method, count and fine-tuning; cells of one checkpoint are neighbours."""
    found = cells(CELEBRITY, Selection(methods=("esd",), counts=(1, 10), finetunings=("lora", "full"), runs=2))
    assert [cell.id for cell in found] == [
        f"esd-{count}-{finetuning}{run}"
        for count in (1, 10)
        for run in ("", "-run1")
        for finetuning in ("lora", "full")
    ]


@pytest.mark.parametrize("count", allowed_counts(TASKS.values()))
def test_default_cells_reach_the_zero_event_floor(count: int) -> None:
    """No default cell has fewer pairs than even a spotless result needs, nor fewer control images than the policy."""
    floor = max(zero_event_floor(0.05, 0.01), CONTROL_IMAGES, 103)
    for engine in ENGINES:
        plan = planned(f"uce-{count}-lora", engine=engine)
        assert len(plan.erased) >= floor
        assert len(plan.retained) >= 103


def test_paper_profile_draws_as_many_images_as_the_paper() -> None:
    """250 images of erased names for 1, 5 and 10 names, 2,500 for 100."""
    sizes = [len(planned(f"esd-{count}-lora", profile="paper").erased) for count in (1, 5, 10, 100)]
    assert sizes == [250, 250, 250, 2500]


def test_arms_ask_paired_questions() -> None:
    """Base, unlearned and fine-tuned are asked the very same probes."""
    for engine in ENGINES:
        arms = planned(engine=engine).arms
        assert arms["base"].grid == arms["before"].grid == arms["after"].grid
        assert arms["base_retained"].grid == arms["retained_before"].grid == arms["retained_after"].grid
        assert arms["before"].design == arms["after"].design
        assert arms["before"].recipe == arms["after"].recipe.before


def test_steps_on_the_way_change_no_key() -> None:
    """The judged model and its arms stay what they were; a step is the same fine-tuning, stopped; the end is none."""
    plain = planned()
    last = plain.finetuning.steps
    asked = planned(steps=(5, 20, last))
    assert asked.steps == (5, 20) == asked.finetuning.save_at and plain.steps == () and plain.checkpoints == {}
    assert key("checkpoint", asked.tuned) == key("checkpoint", plain.tuned) and list(asked.arms) == list(plain.arms)
    assert list(asked.checkpoints) == [20, 5] and asked.checkpoints[20].steps[-1].save_at == (5,)
    for step, recipe in asked.checkpoints.items():
        assert key("checkpoint", recipe) == key("checkpoint", plain.unlearned.then(plain.finetuning.at(step)))
    with pytest.raises(UserError, match=f"has no step {last + 1}"):
        planned(steps=(5, last + 1))


def test_utility_is_decided_on_names_that_nothing_has_seen() -> None:
    """Held-out names are in no benign set and no preserve set, and benign seeds are in no probe."""
    plan = planned("uce-10-lora")
    held_out = {prompt.concept for prompt in plan.retained.probe.prompts}
    seen = {prompt.concept for prompt in plan.benign.prompts} | {c.name for c in plan.unlearned.steps[0].preserve}
    assert len(held_out) == 50 and not held_out & seen
    assert min(plan.benign.seeds) >= BENIGN_SEED > max(*plan.erased.probe.seeds, *plan.retained.probe.seeds)


def test_runs_differ_in_their_training_seeds_alone() -> None:
    """A repetition unlearns and fine-tunes with another seed, and is asked the same."""
    first, second = planned(), planned(run=1)
    assert [step.seed for step in first.tuned.steps] == [0, 0]
    assert [step.seed for step in second.tuned.steps] == [1, 1]
    assert first.erased == second.erased and first.benign == second.benign


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("finetuning", FINETUNINGS)
def test_every_method_and_fine_tuning_can_be_planned(method: str, finetuning: str) -> None:
    """Each word makes a recipe with a key of its own."""
    cell = Cell(task=CELEBRITY.name, method=method, count=1, finetuning=finetuning)
    plan = plan_cell(cell, MICRO, task=CELEBRITY, selection=Selection())
    assert len(plan.tuned.steps) == 2
    assert key("checkpoint", plan.tuned) != key("checkpoint", planned("uce-1-lora", seeds=7).unlearned)


def test_unlearnings_share_images_that_no_probe_and_no_fine_tuning_sees() -> None:
    """Forget images are of every erased concept, retain images of preserved ones; every method has the same."""
    plans = {method: planned(f"{method}-5-lora") for method in ("salun", "shs", "erasediff", "mace")}
    forget = {plan.unlearned.steps[0].forget for plan in plans.values()}
    retain = {plan.unlearned.steps[0].retain for method, plan in plans.items() if method != "mace"}
    assert len(forget) == len(retain) == 1
    pictures, kept, plan = forget.pop(), retain.pop(), plans["mace"]
    assert {prompt.concept for prompt in pictures.prompts} == {concept.name for concept in CELEBRITY.erase(5)}
    assert {prompt.concept for prompt in kept.prompts} <= {concept.name for concept in CELEBRITY.preserve}
    seeds = [set(probe.seeds) for probe in (plan.erased.probe, plan.retained.probe, plan.benign, pictures, kept)]
    assert all(not seeds[a] & seeds[b] for a in range(5) for b in range(max(a + 1, 2), 5))


def test_variants_of_a_method_have_keys_of_their_own() -> None:
    """esd, esd-strict, esd-u … are different questions."""
    keys = {key("checkpoint", planned(f"{method}-1-lora").unlearned) for method in METHODS}
    assert len(keys) == len(METHODS)


def test_presets_name_fields_that_exist() -> None:
    """Every preset value can be set, and makes a plan."""
    for preset, groups in PRESETS.items():
        numbers = [
            (f"{group}.{name}", value)
            for group, values in groups.items()
            for name, value in values.items()
            if isinstance(value, int | float)
        ]
        assert numbers and settings_for(preset, numbers) == settings_for(preset)


def test_a_task_has_its_own_values_over_the_familys_and_a_change_over_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Field by field, for that task alone; what was resolved is in the key."""
    monkeypatch.setitem(OF_TASK["micro"], "unsafe", {"esd": {"iterations": 7, "away": 0.5}})
    own = planned("esd-4-lora", task=UNSAFE).unlearned
    assert (own.steps[0].iterations, own.steps[0].away) == (7, 0.5)
    assert own.steps[0].learning_rate == PRESETS["micro"]["esd"]["learning_rate"]
    assert planned().unlearned.steps[0].iterations == PRESETS["micro"]["esd"]["iterations"]
    told = planned("esd-4-lora", task=UNSAFE, changed=(("esd.iterations", 9),)).unlearned
    assert (told.steps[0].iterations, told.steps[0].away) == (9, 0.5)
    monkeypatch.delitem(OF_TASK["micro"], "unsafe")
    assert len({key("checkpoint", recipe) for recipe in (own, told, planned("esd-4-lora", task=UNSAFE).unlearned)}) == 3


def test_a_variant_has_its_own_values_over_the_tasks_and_a_change_over_all() -> None:
    """ESD on other parameters learns at another rate; the method itself keeps its own."""
    for task_of in (CELEBRITY, COPYRIGHT):
        plain, wide = (planned(f"{word}-1-lora", task=task_of).unlearned.steps[0] for word in ("esd", "esd-u"))
        assert (wide.learning_rate, wide.away) == (1e-4, 2.0) != (plain.learning_rate, plain.away)
        assert wide.iterations == plain.iterations
    told = planned("esd-all-1-lora", changed=(("esd.learning_rate", 3e-4),)).unlearned.steps[0]
    assert told.learning_rate == 3e-4
    for preset, variants in OF_VARIANT.items():
        assert set(variants) <= set(METHODS) and all(
            settings_for(preset, method=word)[METHODS[word].step.name][name] == value
            for word, own in variants.items()
            for name, value in own.items()
        )


def test_tasks_have_values_of_unlearnings_alone() -> None:
    """Images, fine-tunings and benign sets are the family's: tables compare tasks. Every value makes a plan."""
    methods = {method.step.name for method in METHODS.values()}
    for preset, tasks in OF_TASK.items():
        for task, groups in tasks.items():
            assert set(groups) <= methods and task in {**TASKS, **PUBLISHED}
            resolved = settings_for(preset, task=task)
            assert all(resolved[group][name] == value for group, own in groups.items() for name, value in own.items())
    for task in TASKS.values():
        for method in METHODS:
            assert planned(f"{method}-{task.counts[0]}-lora", task=task)


@pytest.mark.parametrize("task", [task for task in TASKS.values() if task.neutral], ids=lambda task: task.name)
def test_neutral_things_are_kept_where_a_preset_says_so(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the task's own retained concepts; never one that is erased or held out, nor in a fine-tuning."""
    monkeypatch.setitem(
        OF_TASK["micro"],
        task.name,
        {"uce": {"preserve": FromTask.WITH_NEUTRAL}, "salun": {"retain": FromTask.WITH_NEUTRAL}},
    )
    count = task.counts[0]
    uce, salun, esd = (planned(f"{word}-{count}-lora", task=task) for word in ("uce", "salun", "esd"))
    assert uce.unlearned.steps[0].preserve == (*task.preserve, *task.neutral_concepts)
    shown = {prompt.concept for prompt in salun.unlearned.steps[0].retain.prompts}
    assert shown == {concept.name for concept in (*task.preserve, *task.neutral_concepts)}
    texts = " ".join(prompt.text.casefold() for prompt in task.neutral)
    unseen = [word for concept in (*task.erasable, *task.held_out) for word in concept.aliases]
    assert not [word for word in unseen if f" {word.casefold()} " in f" {texts} "]
    assert salun.benign == esd.benign


def test_templates_of_retained_concepts_can_be_told_to_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    """The unsafe task asks for objects in words that no template for hazards has."""
    monkeypatch.setitem(OF_TASK["micro"], "unsafe", {"uce": {"templates": FromTask.ALL_TEMPLATES}})
    step = planned("uce-4-lora", task=UNSAFE).unlearned.steps[0]
    assert step.templates == tuple(dict.fromkeys(("{}", *UNSAFE.templates, *UNSAFE.retained_templates)))


def test_a_change_reaches_the_step() -> None:
    """--resurgence-set esd.iterations=7 trains for seven iterations."""
    change = parse_change("esd.iterations=7")
    assert planned(changed=(change,)).unlearned.steps[0].iterations == 7


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ({"methods": ("esx",)}, 'There is no method "esx".'),
        ({"finetunings": ("dreamboat",)}, 'There is no fine-tuning "dreamboat".'),
        ({"profile": "tiny"}, 'There is no profile "tiny".'),
        ({"counts": (0,)}, "0 concepts cannot be erased."),
        ({"seeds": 0}, "--resurgence-seeds is 0."),
        ({"runs": -1}, "--resurgence-runs is -1."),
        ({"steps": (0, 10)}, "The requested steps are (0, 10)."),
        ({"steps": (20, 10)}, "The requested steps are (20, 10)."),
        ({"steps": ()}, "The requested steps are ()."),
        ({"methods": ("esd", "esd")}, "The requested methods are empty or repeated: ('esd', 'esd')."),
        ({"changed": (("esd.colour", 3),)}, 'There is no setting "esd.colour".'),
        ({"changed": (("esd.iterations", 1.5),)}, "esd.iterations is 1.5."),
        ({"changed": (("magic.steps", 3),)}, 'There is no setting "magic.steps".'),
    ],
)
def test_unknown_words_are_named_with_the_known_ones(selection: dict[str, Any], words: str) -> None:
    """A wrong choice is one sentence with the value, and says what to do."""
    with pytest.raises(UserError) as caught:
        Selection(**selection)
    first, *rest = str(caught.value).splitlines()
    assert first == words
    assert rest


@pytest.mark.parametrize("text", ["esd.iterations", "esd.iterations=many", "esd.iterations=True", "=3"])
def test_a_change_must_be_a_number(text: str) -> None:
    """Text that sets no number is refused."""
    with pytest.raises(UserError, match="does not set a number"):
        parse_change(text)


def test_a_count_that_the_task_lacks_is_named() -> None:
    """Counts of other tasks are no cells of this one; none left is an error, not an empty run."""
    with pytest.raises(UserError, match="Task celebrity has no cell that erases 3 concepts"):
        cells(CELEBRITY, Selection(counts=(3,)))


def test_markers_narrow_what_was_chosen() -> None:
    """Within a marker's words the command line chooses; nothing in common is None."""
    assert narrowed(Selection(), methods=("esd",), counts=None) == Selection(methods=("esd",))
    assert narrowed(Selection(methods=("uce", "esd")), methods=("esd",)) == Selection(methods=("esd",))
    assert narrowed(Selection(methods=("uce",)), methods=("esd",)) is None


def test_an_erased_name_in_the_benign_set_is_refused() -> None:
    """A fine-tuning that shows the erased name again is no benign one."""
    from dataclasses import replace

    erased = CELEBRITY.erasable[0]
    sly = replace(erased, name=f"{erased.name} at home")
    task = replace(CELEBRITY, preserve=(*CELEBRITY.preserve[:49], sly))
    cell = Cell(task="celebrity", method="esd", count=1, finetuning="lora")
    with pytest.raises(SpecError, match=erased.name):
        plan_cell(cell, MICRO, task=task, selection=Selection())


def test_selecting_imports_no_torch() -> None:
    """Planning all cells of the paper is done in a process without torch."""
    code = (
        "import sys; from resurgence_harness.selection import *; from resurgence_harness.specs import Base;"
        "from resurgence_harness.tasks import CELEBRITY as task; s = Selection(profile='paper');"
        "[plan_cell(c, Base(digest='0' * 64), task=task, selection=s) for c in cells(task, s)];"
        "print(sorted({'torch', 'diffusers', 'transformers', 'pytest'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
