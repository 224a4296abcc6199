"""Recipes of several stages: what is read, what is refused, and what each stage erases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resurgence_harness.errors import SpecError, UserError
from resurgence_harness.finetuning import FINETUNINGS, ImageFolder
from resurgence_harness.finetuning.image_folder import Row
from resurgence_harness.planning import checkpoint_key, step_prefixes
from resurgence_harness.presets import METHODS, read_settings
from resurgence_harness.presets.lives import MOST_STAGES, closed, erasures, parse_life, written_out
from resurgence_harness.selection import STAGE_SEEDS, CellPlan, Selection, cells, plan_cell
from resurgence_harness.specs import Base, Cell, Life, Stage
from resurgence_harness.tasks import CELEBRITY, COPYRIGHT, OBJECT

MICRO = Base(digest="0" * 64, name="micro")
NAMES = tuple(concept.name for concept in CELEBRITY.erasable)


def planned(text: str, **selection: Any) -> CellPlan:
    """The plan of the one cell of a recipe."""
    chosen = Selection(lives=(parse_life(text),), **selection)
    (cell,) = cells(CELEBRITY, chosen)
    return plan_cell(cell, MICRO, task=CELEBRITY, selection=chosen)


def erased_by_stage(text: str) -> list[tuple[str, ...]]:
    """Names of the concepts that each stage erases."""
    return [tuple(concept.name for concept in own) for own in erasures(parse_life(text), CELEBRITY)]


# What is read

UNLEARNINGS = st.builds(
    lambda name, number, more: Stage(name=name, unlearning=True, first=0 if more else number, more=number * more),
    st.sampled_from(sorted(METHODS)),
    st.integers(0, 100),
    st.booleans(),
)
TUNINGS = st.builds(lambda name: Stage(name=name, unlearning=False), st.sampled_from(sorted(FINETUNINGS)))
LIVES = st.builds(
    lambda start, first, middle, last, name: (name, (*start, first, *middle, last)),
    st.lists(TUNINGS, max_size=2),
    UNLEARNINGS,
    st.lists(UNLEARNINGS | TUNINGS, max_size=8),
    TUNINGS,
    st.sampled_from(["", "yearly", "a-b2"]),
)


@given(LIVES, st.integers(0, 3))
def test_what_is_written_out_is_read_as_the_same_recipe(life: tuple[str, tuple[Stage, ...]], spaces: int) -> None:
    """Any recipe of names and numbers, with any spaces, with or without a name of its own."""
    name, stages = life
    text = (" " * spaces + ">" + " " * spaces).join(map(str, stages))
    found = parse_life(f"{name}: {text}" if name else text)
    assert found.stages == stages and (not name or found.name == name)
    again = written_out(found)
    assert again is not None and parse_life(again) == found


@given(st.text(alphabet="uce lora(2+)>:-", max_size=40))
def test_any_text_is_a_recipe_or_a_users_mistake(text: str) -> None:
    """No other error, and what is read has an unlearning and ends with a fine-tuning."""
    try:
        found = parse_life(text)
    except UserError:
        return
    assert any(stage.unlearning for stage in found.stages) and not found.stages[-1].unlearning


def test_a_name_is_made_of_the_stages() -> None:
    """Recipes that differ in their numbers have different names, so the ids of their cells differ."""
    names = [parse_life(text).name for text in ("uce(2) > lora > uce(+2) > full", "uce > lora", "uce(+2) > lora")]
    assert names == ["uce2-lora-uce2more-full", "uce-lora", "uce2more-lora"]


# What is refused


@pytest.mark.parametrize(
    ("text", "first", "position"),
    [
        ("uce > > lora", "Stage 2 of the recipe is empty.", "character 7"),
        ("", "Stage 1 of the recipe is empty.", "character 1"),
        ("uce > lora >", "Stage 3 of the recipe is empty.", "character 13"),
        (
            "uce > lroa",
            'Stage 2 of the recipe is "lroa", which is neither an unlearning method nor a fine-tuning.',
            "character 7",
        ),
        ("uce(2 > lora", 'Stage 1 of the recipe is "uce(2", which is not readable.', "character 1"),
        ("uce(2) lora", 'Stage 1 of the recipe is "uce(2) lora", which is not readable.', "character 1"),
        ("uce(0) > lora", 'Stage 1 of the recipe is "uce(0)", which erases nothing.', "character 1"),
        ("uce > lora(2)", 'Stage 2 of the recipe is "lora(2)", but a fine-tuning erases no concepts.', "character 7"),
        ("a: uce >  x", 'Stage 2 of the recipe is "x", which is neither', "character 11"),
    ],
)
def test_a_mistake_in_a_stage_names_its_position(text: str, first: str, position: str) -> None:
    """Its number and character, and the recipe."""
    with pytest.raises(UserError) as raised:
        parse_life(text)
    assert str(raised.value).startswith(first) and position in str(raised.value)


def test_an_unknown_name_lists_the_known_ones() -> None:
    """Methods and fine-tunings."""
    with pytest.raises(UserError) as raised:
        parse_life("uce > loar")
    assert all(name in str(raised.value) for name in (*METHODS, *FINETUNINGS))


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("lora > full", "The recipe has no unlearning, so nothing in it can come back."),
        ("uce > lora > uce", "The recipe ends with an unlearning; the claim is that nothing comes back in"),
        (" > ".join(["uce > lora"] * MOST_STAGES), f"The recipe has {2 * MOST_STAGES} stages."),
        ("uce: uce > lora", 'The recipe "uce" has the name of an unlearning method.'),
        ("ten-10: uce > lora", 'A recipe cannot be called "ten-10".'),
        (": uce > lora", 'A recipe cannot be called "".'),
    ],
)
def test_a_chain_that_claims_nothing_is_refused(text: str, first: str) -> None:
    """In one sentence; a recipe may begin with a fine-tuning, but must unlearn and end with a fine-tuning."""
    with pytest.raises(UserError) as raised:
        parse_life(text)
    assert str(raised.value).startswith(first)
    assert parse_life("lora > uce > full").stages[0] == Stage(name="lora", unlearning=False)


def test_two_recipes_of_one_name_are_refused() -> None:
    """Given names and made ones."""
    for texts in (("a: uce > lora", "a: esd > lora"), ("uce > lora", "uce > lora")):
        with pytest.raises(UserError, match="Two recipes are called"):
            Selection(lives=tuple(map(parse_life, texts)))


@pytest.mark.parametrize(
    ("values", "option"),
    [
        ({"methods": ("uce",)}, "--resurgence-methods"),
        ({"finetunings": ("lora",)}, "--resurgence-finetune"),
        ({"steps": (5,)}, "--resurgence-steps"),
        ({"counts": (1,)}, "--resurgence-counts"),
    ],
)
def test_options_that_a_recipe_replaces_are_refused(values: dict[str, Any], option: str) -> None:
    """They would have no effect; counts have one where a recipe leaves its number open."""
    with pytest.raises(UserError, match=f"{option} has no meaning for a recipe"):
        Selection(lives=(parse_life("uce(2) > lora"),), **values)
    Selection(lives=(parse_life("uce > lora"),), counts=(1,))


# What each stage erases


def test_the_notations_of_an_erasure() -> None:
    """A set, the next ones, and everything so far."""
    assert erased_by_stage("uce(2) > lora > uce(+2) > lora > uce > esd(3) > full") == [
        NAMES[:2],
        (),
        NAMES[2:4],
        (),
        NAMES[:4],
        NAMES[:3],
        (),
    ]
    assert erased_by_stage("uce(+1) > lora")[0] == NAMES[:1]


def test_an_open_number_is_the_cells_count() -> None:
    """One cell for each count; a task's own erase set of this count is used."""
    life = parse_life("uce > lora > uce(+2) > lora")
    found = cells(CELEBRITY, Selection(lives=(life,), counts=(1, 5)))
    assert [cell.id for cell in found] == [f"{life.name}-{count}-lora" for count in (3, 7)]
    (cell,) = cells(OBJECT, Selection(lives=(parse_life("uce > lora"),), counts=(3,)))
    assert cell.life is not None and erasures(cell.life, OBJECT)[0] == OBJECT.erase(3)


@pytest.mark.parametrize("text", ["uce(2) > lora", "uce(1) > lora > uce(+1) > lora"])
def test_more_concepts_than_the_task_has_are_refused(text: str) -> None:
    """When the cells are chosen, before anything is planned."""
    with pytest.raises(UserError, match="erases more concepts than task copyright has"):
        cells(COPYRIGHT, Selection(lives=(parse_life(text),)))


# What is planned


def test_a_short_recipe_is_the_ordinary_cell() -> None:
    """The same models and images under the same keys: nothing is built twice."""
    life = planned("uce(5) > lora")
    plain = plan_cell(
        Cell(task="celebrity", method="uce", count=5, finetuning="lora"), MICRO, task=CELEBRITY, selection=Selection()
    )
    assert life.arms == plain.arms and life.unlearned == plain.unlearned and life.tuned == plain.tuned
    assert [stage.recipe for stage in life.stages] == [plain.unlearned, plain.tuned] and plain.stages == ()


def test_recipes_share_the_stages_with_which_they_begin() -> None:
    """Their keys are those of the common beginning."""
    short, long = planned("uce(2) > lora"), planned("uce(2) > lora > uce(+2) > full")
    keys = [checkpoint_key(recipe) for recipe in step_prefixes(long.tuned)]
    assert keys[:2] == [checkpoint_key(recipe) for recipe in step_prefixes(short.tuned)]
    assert len(set(keys)) == 4 and [checkpoint_key(stage.recipe) for stage in long.stages] == keys


def test_before_is_the_model_right_after_a_concepts_own_erasure() -> None:
    """Each concept is compared with itself there; a fine-tuning between two erasures is not part of "before"."""
    plan = planned("uce(2) > lora > uce(+2) > lora")
    first, _, second, last = (stage.recipe for stage in plan.stages)
    before = plan.arms["before"]
    assert dict(before.by_concept) == {**dict.fromkeys(NAMES[:2], first), **dict.fromkeys(NAMES[2:4], second)}
    assert before.recipes == (first, second) and plan.arms["after"].recipes == (last,)
    assert plan.arms["retained_before"].recipes == (second,)  # utility: right before the last fine-tuning


def test_everything_erased_again_has_one_model_before() -> None:
    """All concepts were last erased by one stage, so the arm is an ordinary one; trailing fine-tunings are after it."""
    plan = planned("uce(2) > lora > uce(4) > lora > full")
    before = plan.arms["before"]
    assert before.by_concept == () and before.recipe == plan.stages[2].recipe == plan.unlearned
    assert plan.arms["after"].recipe == plan.stages[4].recipe


def test_a_recipe_may_begin_with_a_fine_tuning() -> None:
    """The published model is still what shows that the concepts are drawn, and what retained ones are compared with."""
    plan = planned("lora > uce(2) > full")
    assert [len(recipe.steps) for recipe in (plan.base, plan.unlearned, plan.tuned)] == [0, 2, 3]
    assert plan.arms["base"].recipe == plan.arms["base_retained"].recipe == plan.base
    assert plan.arms["before"].recipes == (plan.unlearned,) and [stage.erases for stage in plan.stages] == [
        (),
        NAMES[:2],
        (),
    ]


def test_stages_of_a_kind_have_different_training_seeds() -> None:
    """The first have the run's, so they are those of ordinary cells; later ones see other batches and noise."""
    chosen = Selection(lives=(parse_life("esd(1) > lora > esd > lora > lora"),), runs=2)
    _, cell = cells(CELEBRITY, chosen)
    plan = plan_cell(cell, MICRO, task=CELEBRITY, selection=chosen)
    steps: list[Any] = list(plan.tuned.steps)
    seeds = [step.seed for step in steps]
    assert seeds == [1, 1, 1 + STAGE_SEEDS, 1 + STAGE_SEEDS, 1 + 2 * STAGE_SEEDS]


# The settings file


def written(folder: Path, text: str) -> Path:
    """A settings file."""
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def images(folder: Path) -> ImageFolder:
    """Stands for a folder of images."""
    return ImageFolder(digest=folder.name)


def test_a_settings_file_has_recipes_with_values(tmp_path: Path) -> None:
    """Each stage its method, concepts, data and settings; values of the whole run are beside them."""
    found = read_settings(
        written(
            tmp_path,
            f"""
uce: {{ridge: 0.7}}
recipes:
  short: uce(2) > lora
  long:
    - uce(2)
    - {{finetuning: lora, data: customer, settings: {{steps: 7}}}}
    - {{unlearning: uce, concepts: [{NAMES[7]}, {NAMES[9]}], settings: {{erase_scale: 0.5}}}}
    - {{unlearning: esd, concepts: "+1"}}
    - {{unlearning: esd, concepts: 3}}
    - full
""",
        ),
        images=images,
    )
    assert dict(found.changed) == {"uce.ridge": 0.7}
    short, long = found.lives
    assert (short.name, str(short), long.name) == ("short", "uce(2) > lora", "long") and written_out(long) is None
    selection = Selection(lives=found.lives, changed=found.changed)
    _, cell = cells(CELEBRITY, selection)
    plan = plan_cell(cell, MICRO, task=CELEBRITY, selection=selection)
    steps: Any = plan.tuned.steps
    assert steps[0].erase_scale != steps[2].erase_scale == 0.5 and steps[0].ridge == steps[2].ridge == 0.7
    assert steps[1].steps == 7 != steps[5].steps
    assert [concept.name for concept in steps[2].concepts] == [NAMES[7], NAMES[9]]
    assert [concept.name for concept in steps[3].concepts] == [NAMES[2]]
    assert steps[1].data.folder == ImageFolder(digest="customer") and steps[1].data.forbidden == NAMES[:2]
    assert "Fine-tuning data: 0 of 0 given images (digest customer)" in plan.notes[0]
    assert cell.count == 5 and set(plan.erased.probe.concepts) == {*NAMES[:3], NAMES[7], NAMES[9]}


@pytest.mark.parametrize(
    ("stages", "sentence"),
    [
        ("[]", "The recipe bad has no stages."),
        ("[uce, '']", "Stage 2 of the recipe is empty."),
        ("[uce, {}]", "Stage 2 of the recipe is empty."),
        ("[uce, 3]", "Stage 2 of the recipe is 3, which is no stage."),
        ("[{unlearning: lora}, lora]", "Stage 1 of the recipe names 'lora' as unlearning, which it is not."),
        ("[{unlearning: uce, finetuning: lora}, lora]", "Stage 1 of the recipe needs either an unlearning or"),
        ("[{method: uce}, lora]", 'Stage 1 of the recipe has a key "method".'),
        ("[{unlearning: uce, data: x}, lora]", 'Stage 1 of the recipe is "uce": an unlearning has no data.'),
        (
            "[uce, {finetuning: lora, concepts: 2}]",
            'Stage 2 of the recipe is "lora": a fine-tuning erases no concepts.',
        ),
        ("[{unlearning: uce, concepts: 0}, lora]", "Stage 1 of the recipe erases 0, which names no concepts."),
        ("[{unlearning: uce, concepts: [a, b, a]}, lora]", 'Stage 1 of the recipe names the concept "a" twice.'),
        ("[uce, {finetuning: lora, data: 3}]", "Stage 2 of the recipe has the data 3, which is no folder."),
        ("[uce, {finetuning: lora, settings: {}}]", "Stage 2 of the recipe has the settings {}, which set nothing."),
        ("[uce, {finetuning: lora, settings: {size: 3}}]", 'There is no setting "lora.size".'),
        ("lora > full", "The recipe has no unlearning"),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence(tmp_path: Path, stages: str, sentence: str) -> None:
    """With the file's path."""
    path = written(tmp_path, f"recipes:\n  bad: {stages}\n")
    with pytest.raises(UserError) as raised:
        read_settings(path, images=images)
    first = str(raised.value).splitlines()[0]
    assert first.startswith(f"{path}: ") and sentence in first


def test_a_name_that_the_task_does_not_have_is_refused(tmp_path: Path) -> None:
    """When the cells are chosen: the file does not know the task."""
    path = written(tmp_path, "recipes:\n  r: [{unlearning: uce, concepts: [Nobody At All]}, lora]\n")
    with pytest.raises(UserError, match='erases "Nobody At All", which task celebrity does not have'):
        cells(CELEBRITY, Selection(lives=read_settings(path).lives))


def test_a_caption_may_name_what_is_erased_only_later() -> None:
    """A fine-tuning before any erasure forbids nothing; the same after it is refused."""
    row = Row("metadata.jsonl, row 1", "a.png", "0" * 64, f"a photo of {NAMES[0]}")
    data = ImageFolder(digest="d", rows=(row,))
    tuning, erasing = Stage(name="lora", unlearning=False, data=data), Stage(name="uce", unlearning=True, first=1)
    plain = Stage(name="lora", unlearning=False)
    for stages, refused in (((tuning, erasing, plain), False), ((erasing, tuning), True)):
        selection = Selection(lives=(Life(name="r", stages=stages),))
        (cell,) = cells(CELEBRITY, selection)
        try:
            plan_cell(cell, MICRO, task=CELEBRITY, selection=selection)
            assert not refused
        except SpecError as error:
            assert refused and "caption with the erased name" in str(error)


def test_closed_changes_an_open_number_only() -> None:
    """The first unlearning's, wherever it stands."""
    assert str(closed(parse_life("lora > uce > full"), 3)) == "lora > uce(3) > full"
    life = parse_life("uce(2) > lora")
    assert closed(life, 3) is life
