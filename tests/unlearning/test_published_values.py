"""What runs on Stable Diffusion is what was published: one recipe whole for each method and task."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from resurgence_harness.diffusion.parameters import Everything, NonCrossAttention
from resurgence_harness.errors import UserError
from resurgence_harness.presets import METHODS, OF_TASK, OF_VARIANT, SEVEN, ByCount, parse_change, settings_for
from resurgence_harness.presets.finetune_recipes import FINETUNE_RECIPES
from resurgence_harness.presets.recipes import RECIPES
from resurgence_harness.selection import CellPlan, Selection, plan_cell
from resurgence_harness.specs import Base, Cell, Concept
from resurgence_harness.storing import key
from resurgence_harness.tasks import PUBLISHED, TASKS, Task
from resurgence_harness.tasks.captions import CAPTIONS
from resurgence_harness.unlearning import (
    CaptionSample,
    FixedWeight,
    GradientMemory,
    NoProjection,
    ScaledTwice,
    TextReplaced,
    UniformTimesteps,
)
from tests.tasks.i2p_csv import I2PFile

SD = Base(digest="0" * 64, name="sd14", location="nowhere")
MICRO = Base(digest="0" * 64, name="micro")


@pytest.fixture(autouse=True)
def i2p(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The unsafe task's prompts."""
    monkeypatch.setenv("RESURGENCE_I2P", str(tmp_path / "i2p.csv"))
    monkeypatch.delenv("RESURGENCE_I2P_COLUMN", raising=False)
    I2PFile(tmp_path / "i2p.csv").write_good()


def planned(task: str, cell: str, *, base: Base = SD, **selection: Any) -> CellPlan:
    """The plan of a cell by its words."""
    method, count, finetuning = cell.rsplit("-", 2)
    asked = Cell(task=task, method=method, count=int(count), finetuning=finetuning)
    tasks = PUBLISHED if base is SD else TASKS
    return plan_cell(asked, base, task=tasks[task], selection=Selection(**selection))


def step(task: str, method: str, count: int, **selection: Any) -> Any:
    """The unlearning of a cell on Stable Diffusion."""
    return planned(task, f"{method}-{count}-lora", **selection).unlearned.steps[0]


def test_every_method_has_a_recipe_for_every_task_with_its_source() -> None:
    """Repository, commit and file; and a reason where it is another task's."""
    for method in SEVEN:
        assert RECIPES[method].keys() == PUBLISHED.keys() == OF_TASK["sd"].keys()
        for task, recipe in RECIPES[method].items():
            assert re.fullmatch(r"[\w-]+/[\w-]+", recipe.source.repository)
            assert re.fullmatch("[0-9a-f]{7,40}", recipe.source.commit) and recipe.source.place
            assert all(reason for _, reason in recipe.ours.values())
            assert OF_TASK["sd"][task][method] == recipe.settings
    for recipe in FINETUNE_RECIPES.values():
        assert recipe.source.commit and recipe.differs


def test_a_recipe_is_whole() -> None:
    """What a cell gets are its task's values and no other task's: nothing is left over from the family's recipe."""
    for method in SEVEN:
        for task, recipe in RECIPES[method].items():
            resolved = settings_for("sd", task=task, method=method)[METHODS[method].step.name]
            resolved = {name: value for name, value in resolved.items() if name not in METHODS[method].fixed}
            resolved.pop("arithmetic", None)  # this package's own, the same for every method
            assert resolved == {n: v for n, v in recipe.settings.items() if n not in METHODS[method].fixed}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_planned_for_every_task_and_count(method: str) -> None:
    """Each is a step whose values hold together, and has a key; nothing is left to be filled in."""
    for name, task in PUBLISHED.items():
        for count in task.counts:
            plan = planned(name, f"{method}-{count}-lora")
            assert len(key("checkpoint", plan.tuned)) == 64


def test_mace_by_count_and_by_task() -> None:
    """The authors' configurations."""
    weights = {count: step("celebrity", "mace", count).preserve_weight for count in (1, 5, 10, 100)}
    assert weights == {1: 8e3, 5: 5e4, 10: 8e4, 100: 2e5}
    one = step("celebrity", "mace", 1)
    assert (one.learning_rate, one.iterations, one.train_preserve_scale, one.fuse_preserve_scale) == (
        1e-4,
        50,
        1e-4,
        1e-4,
    )
    assert one.scaling == ScaledTwice()
    ship, three = step("object", "mace", 1), step("object", "mace", 3)
    assert (ship.learning_rate, ship.iterations, ship.ridge) == (1e-5, 50, 1e3)
    assert ship.train_preserve_scale == ship.fuse_preserve_scale == ship.preserve_weight == 0
    assert ship.general == ship.preserve == () and three.ridge == 1e2
    unsafe = step("unsafe", "mace", 4)
    assert (unsafe.learning_rate, unsafe.iterations, unsafe.preserve_weight) == (1e-5, 120, 0)
    assert unsafe.train_preserve_scale == unsafe.fuse_preserve_scale == 7e-7
    assert unsafe.timesteps == UniformTimesteps()
    assert step("copyright", "mace", 1).preserve_weight == 8e3


def test_mace_learns_from_eight_photos_of_each_concept() -> None:
    """As the authors: no sketches and paintings, and no hundreds of them."""
    for task, count in (("celebrity", 10), ("object", 3), ("unsafe", 4)):
        forget = step(task, "mace", count).forget
        assert len(forget) == 8 * count
        assert {prompt.text for prompt in forget.prompts} == {f"a photo of the {p.concept}" for p in forget.prompts}


def test_general_captions_hold_a_model_where_the_authors_use_coco() -> None:
    """Everywhere but for single objects, whose recipe has no preserved term."""
    for task, count in (("celebrity", 1), ("celebrity", 100), ("copyright", 1), ("unsafe", 4)):
        assert step(task, "mace", count).general == CaptionSample(captions=CAPTIONS, stand_for=616_767)
    assert 35 <= len(CAPTIONS) == len(set(CAPTIONS)) <= 50


def test_shs_is_the_authors_script_and_the_papers_form_has_a_word() -> None:
    """No projection, batches of 16, about 100 steps; shs-gem projects, on every base."""
    for task, count in (("celebrity", 10), ("copyright", 1), ("object", 3), ("unsafe", 4), ("nudity", 1)):
        plain, projected = step(task, "shs", count), step(task, "shs-gem", count)
        assert (plain.batch, plain.sparsity, plain.learning_rate, plain.trim_batches) == (16, 0.995, 1e-5, 10)
        assert 89 <= plain.iterations <= 109 and plain.projection == NoProjection()
        assert projected.projection == GradientMemory(margin=0.5, ridge=1e-3)
        assert projected.iterations == plain.iterations
    for task in (one for one in PUBLISHED.values() if one.name in TASKS):
        own = planned(task.name, f"shs-gem-{task.counts[0]}-lora", base=MICRO).unlearned.steps[0]
        assert isinstance(own.projection, GradientMemory)  # type: ignore[attr-defined]


def test_salun_is_one_of_two_recipes_whole() -> None:
    """A class: α .5, 5 epochs; nudity: α .1, 100 steps."""
    for task, count in (("celebrity", 10), ("copyright", 1), ("object", 3)):
        assert (step(task, "salun", count).retain_weight, step(task, "salun", count).iterations) == (0.5, 600)
    for task, count in (("unsafe", 4), ("nudity", 1)):
        assert (step(task, "salun", count).retain_weight, step(task, "salun", count).iterations) == (0.1, 100)


def test_erasediff_moves_what_the_authors_move() -> None:
    """Everything for a class, everything but cross-attention for nudity; λ is fixed at 1."""
    for task, count in (("unsafe", 4), ("nudity", 1)):
        assert step(task, "erasediff", count).subset == NonCrossAttention()
        assert step(task, "erasediff", count).iterations == 160
    for task, count in (("celebrity", 10), ("copyright", 1), ("object", 3)):
        assert step(task, "erasediff", count).subset == Everything()
        assert step(task, "erasediff", count).iterations == 60
    own = step("object", "erasediff", 1)
    assert own.weight == FixedWeight(value=1.0) and own.pseudo == TextReplaced() and own.batch == 16


def test_esd_and_sdd_have_the_authors_rates_on_every_subset() -> None:
    """1,000 updates at 1e-5 and batch 1 for ESD of 2023, 1,500 at 1e-5 for SDD."""
    for word in ("esd", "esd-strict", "esd-u", "esd-all"):
        own = step("object", word, 1)
        assert (own.iterations, own.batch, own.learning_rate, own.away) == (1_000, 1, 1e-5, 1.0)
    assert {OF_VARIANT["sd"][word]["learning_rate"] for word in ("esd-u", "esd-all")} == {1e-5}
    sdd = step("celebrity", "sdd", 100)
    assert (sdd.updates, sdd.batch, sdd.learning_rate, sdd.ema) == (1_500, 1, 1e-5, 0.999)


def test_uce_preserves_by_the_number_of_names() -> None:
    """max(.1, 1 / (1 + names)), whoever's the names are."""
    assert step("celebrity", "uce", 10).preserve_scale == 0.1
    own = step("copyright", "uce", 1)
    assert len(own.preserve) > 20 and own.preserve_scale == 0.1
    few = step("copyright", "uce", 1, changed=(parse_change('uce.preserve=["Batman", "Thor"]'),))
    assert [concept.name for concept in few.preserve] == ["Batman", "Thor"]
    assert few.preserve_scale == pytest.approx(1 / 3)
    assert step("copyright", "uce", 1, changed=(("uce.preserve_scale", 0.7),)).preserve_scale == 0.7


def test_a_few_retained_words_are_not_all_that_holds_a_model() -> None:
    """Every published task has neutral things, and the methods that keep anything keep them."""
    for task, count in (("copyright", 1), ("object", 3), ("unsafe", 4)):
        names = {prompt.concept for prompt in PUBLISHED[task].neutral}
        assert len(names) >= 20
        assert names <= {concept.name for concept in step(task, "uce", count).preserve}
        for method in ("salun", "shs", "erasediff"):
            assert names <= {prompt.concept for prompt in step(task, method, count).retain.prompts}


@pytest.mark.parametrize("task", PUBLISHED.values(), ids=lambda task: task.name)
def test_neutral_things_and_captions_name_nothing_that_a_task_erases_or_measures(task: Any) -> None:
    """As whole words, synonyms too."""
    texts = [" ".join(re.findall(r"\w+", text.casefold())) for text in (*CAPTIONS, *(p.text for p in task.neutral))]
    words = [
        word.casefold() for concept in (*task.erasable, *task.held_out, *task.preserve) for word in concept.aliases
    ]
    assert not [(word, text) for word in words for text in texts if f" {word} " in f" {text} "]


def test_values_by_count_are_those_of_the_nearest_count() -> None:
    """By ratio, the smaller of two that are as near."""
    values = ByCount.of({1: "a", 10: "b", 100: "c"})
    assert [values.at(count) for count in (1, 2, 3, 4, 10, 31, 32, 1000)] == list("aaabbbcc")


def test_a_variant_cannot_be_changed_into_another() -> None:
    """Its word in node ids and reports would say something else than what ran."""
    with pytest.raises(UserError, match="--resurgence-methods=esd-all"):
        step("object", "esd", 1, changed=(("esd.subset", Everything()),))
    with pytest.raises(UserError, match="shs-gem"):
        step("object", "shs-gem", 1, changed=(("shs.projection", NoProjection()),))
    assert step("object", "shs", 1, changed=(("shs.projection", GradientMemory()),)).projection == GradientMemory()


def test_a_task_of_ones_own_keeps_its_anchor() -> None:
    """The family's recipes stand for it, and say nothing of what its concepts are turned into, but for EraseDiff's."""
    own = Task(
        name="night",
        erasable=(Concept(name="night"),),
        counts=(1,),
        preserve=(Concept(name="noon"),),
        held_out=(Concept(name="dusk"),),
        templates=("a photo of {}", "{}"),
        anchor="a sky",
        severity="normal",
        judges=("darkness",),
    )
    for method in METHODS:
        plan = plan_cell(
            Cell(task="night", method=method, count=1, finetuning="lora"), SD, task=own, selection=Selection()
        )
        made: Any = plan.unlearned.steps[0]
        if method.startswith(("uce", "mace", "salun", "shs")):
            assert made.anchor == "a sky"
        assert len(key("checkpoint", plan.tuned)) == 64
    assert step("celebrity", "uce", 1).preserve_scale == 0.1
