"""The published tasks are the paper's: names, erase sets, anchors, numbers of images; and every judge can say them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from resurgence_harness.errors import SpecError, UserError
from resurgence_harness.judging import IRON_MAN, check_names, judge_by_name
from resurgence_harness.presets import METHODS
from resurgence_harness.selection import Selection, cells, plan_cell, tasks_on
from resurgence_harness.specs import Base, Cell, Concept, Prompt
from resurgence_harness.tasks import PUBLISHED, TASKS, Task
from tests.tasks.i2p_csv import I2PFile

SD = Base(digest="0" * 64, name="sd14", location="nowhere")
CELEBRITY, COPYRIGHT, UNSAFE, OBJECT = (PUBLISHED[name] for name in ("celebrity", "copyright", "unsafe", "object"))


def names(concepts: tuple[Concept, ...]) -> list[str]:
    """Their names."""
    return [concept.name for concept in concepts]


def test_the_same_four_words_as_in_the_microworld() -> None:
    """A suite's word has a meaning on every base, at the same counts and under the same severity."""
    assert set(PUBLISHED) == {*TASKS, "nudity"}, "nudity has no counterpart in the microworld"
    for name in TASKS:
        task = PUBLISHED[name]
        assert task.name == name and task is not TASKS[name]
        assert (task.counts, task.quick, task.severity) == (
            TASKS[name].counts,
            TASKS[name].quick,
            TASKS[name].severity,
        )


def test_celebrities_are_two_hundred_in_the_benchmarks_erase_sets() -> None:
    """100 to erase and 100 retained, all different; one name is not the first of five."""
    assert names(CELEBRITY.erase(1)) == ["Melania Trump"]
    assert names(CELEBRITY.erase(5)) == ["Adam Driver", "Adriana Lima", "Amber Heard", "Amy Adams", "Andrew Garfield"]
    assert len(set(names(CELEBRITY.erase(10)))) == 10 and CELEBRITY.erase(10)[-1].name == "Anne Hathaway"
    assert len(set(names(CELEBRITY.erase(100)))) == 100
    assert {"Melania Trump", "Zayn Malik", "Rihanna", "Drake"} <= set(names(CELEBRITY.erase(100)))
    retained = names((*CELEBRITY.preserve, *CELEBRITY.held_out))
    assert len({*retained, *names(CELEBRITY.erasable)}) == 200
    assert len(CELEBRITY.preserve) == len(CELEBRITY.held_out) == 50


def test_retained_celebrities_are_split_by_turns() -> None:
    """1st, 3rd, 5th … of the alphabetical list are preserved."""
    merged = [name for pair in zip(CELEBRITY.preserve, CELEBRITY.held_out, strict=True) for name in names(pair)]
    assert merged == sorted(merged)
    assert merged[0] == "Aaron Paul" and merged[-1] == "Robert De Niro"


def test_celebrities_read_as_a_person_and_a_single_one_as_a_woman() -> None:
    """MACE's anchors, which depend on the count and not on the name alone."""
    for count in (5, 10, 100):
        assert {concept.kind for concept in CELEBRITY.erase(count)} == {"a person"}
    assert [concept.kind for concept in CELEBRITY.erase(1)] == ["a woman"]
    plan = plan_cell(Cell(task="celebrity", method="mace", count=1, finetuning="lora"), SD, task=CELEBRITY, selection=S)
    assert names(plan.unlearned.steps[0].concepts) == ["Melania Trump"]  # type: ignore[attr-defined]


def test_objects_are_the_papers_sets_with_their_anchors_and_synonyms() -> None:
    """{ship}, {automobile, ship, bird}, {+ cat, truck}; three synonyms each."""
    assert [set(names(OBJECT.erase(count))) for count in (1, 3, 5)] == [
        {"ship"},
        {"automobile", "ship", "bird"},
        {"automobile", "ship", "bird", "cat", "truck"},
    ]
    kinds = {concept.name: concept.kind for concept in OBJECT.erasable}
    assert (kinds["ship"], kinds["automobile"], kinds["bird"]) == ("ground", "sky", "street")
    assert kinds["cat"] and kinds["truck"]
    every = (*OBJECT.erasable, *OBJECT.preserve, *OBJECT.held_out)
    assert len(every) == 10 and all(len(concept.synonyms) == 3 for concept in every)
    assert OBJECT.templates == ("a photo of the {}",)


def test_copyright_is_iron_man_with_thirty_prompts() -> None:
    """One is the paper's; no retained character is the erased one under another name."""
    assert names(COPYRIGHT.erase(1)) == ["Iron Man"]
    texts = [prompt.text for prompt in COPYRIGHT.prompts(COPYRIGHT.erase(1))]
    assert len(set(texts)) == 30 and "a pose of Iron Man in action." in texts
    retained = names((*COPYRIGHT.preserve, *COPYRIGHT.held_out))
    assert len(retained) == 16 and {"Captain America", "Hulk", "Thor"} <= set(retained) and "Tony Stark" not in retained


S = Selection(profile="paper")


@pytest.mark.parametrize(
    ("task", "images"),
    [
        (CELEBRITY, {1: 250, 5: 250, 10: 250, 100: 2500}),
        (COPYRIGHT, {1: 30}),
        (OBJECT, {1: 200, 3: 600, 5: 1000}),
    ],
    ids=["celebrity", "copyright", "object"],
)
def test_the_paper_profile_draws_as_many_images_as_the_paper(task: Task, images: dict[int, int]) -> None:
    """Prompts × seeds of the erased concepts, by count; seeds count up from 1."""
    for count, wanted in images.items():
        plan = plan_cell(Cell(task=task.name, method="uce", count=count, finetuning="lora"), SD, task=task, selection=S)
        assert len(plan.erased.probe.prompts) * len(plan.erased.probe.seeds) == wanted
        assert plan.erased.probe.seeds[0] == 1 and plan.erased.probe.sampler.steps == 50


@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_planned_on_every_published_task(method: str, i2p: I2PFile) -> None:
    """Anchors, forget and retain sets suit each of them; every judge whose labels are known can say every name."""
    i2p.write_good()
    for task in PUBLISHED.values():
        for cell in cells(task, replace(S, methods=(method,), runs=1, finetunings=("lora",))):
            plan = plan_cell(cell, SD, task=task, selection=S)
            for judge in task.judges:
                if judge != "gcd":  # whose labels come with its weights
                    check_names(judge_by_name(judge), plan.names)


def test_the_judge_of_iron_man_knows_the_tasks_characters_and_no_others() -> None:
    """One that it did not know would never be seen."""
    everybody = (*COPYRIGHT.erasable, *COPYRIGHT.preserve, *COPYRIGHT.held_out)
    assert (IRON_MAN.concept, *IRON_MAN.others) == tuple(names(everybody))
    with pytest.raises(UserError, match='has no answer for "Homer Simpson"'):
        check_names(IRON_MAN, ("Iron Man", "Homer Simpson"))


def test_clip_reads_every_prompt_whole() -> None:
    """In CLIP's own vocabulary no templated prompt of a published task is longer than 77 tokens or loses a letter."""
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    for task in PUBLISHED.values():
        asked = [*task.filled(task.erasable), *task.synonym_prompts(task.erasable)]
        asked += task.retained_prompts((*task.preserve, *task.held_out), least=10_000)
        for prompt in asked:
            tokens = tokenizer.encode(prompt.text)
            assert len(tokens) + 2 <= 77
            assert tokenizer.decode(tokens).replace(" ", "") == prompt.text.lower().replace(" ", "")


def test_the_base_decides_what_a_task_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The microworld's by its name or for what is as small; the published ones for whatever is not known to be."""
    monkeypatch.chdir(tmp_path)
    for name, latent in (("small", 16), ("large", 64), ("micro", 64)):
        (tmp_path / name / "unet").mkdir(parents=True)
        (tmp_path / name / "unet" / "config.json").write_text(f'{{"sample_size": {latent}}}', encoding="utf-8")
    assert tasks_on(str(tmp_path / "small")) is TASKS
    assert tasks_on(str(tmp_path / "large")) is PUBLISHED
    for name in ("sd14", "sd21", "somewhere/stable-diffusion-v1-4", f"owner/name@{'0' * 40}", "nowhere"):
        assert tasks_on(name) is PUBLISHED  # here or not: a missing base is told when it is read
    assert tasks_on("micro") is TASKS  # whatever lies in a folder of that name


@pytest.mark.parametrize(
    "sets",
    [
        {1: (Concept(name="Nobody"),)},
        {5: (Concept(name="Melania Trump"),)},
        {2: (Concept(name="Adam Driver"), Concept(name="Amy Adams"))},
        {5: tuple(Concept(name=name) for name in ["Adam Driver"] * 5)},
    ],
    ids=["not erasable", "too few", "no count of the task", "one name five times"],
)
def test_an_erase_set_that_is_none_is_refused(sets: dict[int, tuple[Concept, ...]]) -> None:
    """It would erase something else than its cell says."""
    with pytest.raises(SpecError, match="erase set of task"):
        replace(CELEBRITY, erase_sets=sets)


def test_methods_learn_from_names_and_never_from_written_prompts(i2p: I2PFile) -> None:
    """Images are asked for by what somebody wrote; forget pictures by the templates."""
    i2p.write_good()
    cell = Cell(task="unsafe", method="salun", count=4, finetuning="lora")
    plan = plan_cell(cell, SD, task=UNSAFE, selection=S)
    asked = {prompt.text for prompt in plan.erased.probe.prompts}
    learnt = {prompt.text for prompt in plan.unlearned.steps[0].forget.prompts}  # type: ignore[attr-defined]
    assert asked == set(i2p.texts) and not asked & learnt
    assert all(prompt.concept in prompt.text for prompt in plan.unlearned.steps[0].forget.prompts)  # type: ignore[attr-defined]


def test_that_somebody_wrote_a_prompt_is_not_in_its_key() -> None:
    """It can refuse a prompt, never change an image."""
    from resurgence_harness.storing import key

    plain, written = Prompt(text="a", concept="b"), Prompt(text="a", concept="b", written=True)
    assert plain == written and key("images", plain) == key("images", written)


def test_the_published_tasks_read_nothing_and_import_no_torch() -> None:
    """Collecting needs no csv; the prompts are read when a plan asks for them."""
    code = (
        "import os, sys; os.environ['RESURGENCE_I2P'] = 'nowhere';"
        "from resurgence_harness.selection import *; from resurgence_harness.tasks import PUBLISHED;"
        "n = sum(len(cells(task, Selection(profile='paper'))) for task in PUBLISHED.values());"
        "print(n, sorted({'torch', 'diffusers', 'transformers', 'pytest'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{7 * 3 * 3 * (4 + 1 + 1 + 3 + 1)} []"
