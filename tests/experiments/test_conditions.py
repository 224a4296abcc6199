"""The paper's selections are what the paper says, on whatever base."""

from __future__ import annotations

import pytest

from resurgence_harness.errors import UserError
from resurgence_harness.experiments import measuring
from resurgence_harness.experiments.conditions import EXPERIMENTS, SIZES, STEPS, experiment_named
from resurgence_harness.specs import Base
from resurgence_harness.tasks import TASKS

MICRO = Base(digest="0" * 64, name="micro")


def names(word: str, runs: int = 1) -> list[tuple[str, ...]]:
    """What is measured, as the columns of the table say it."""
    found = experiment_named(word)
    return [tuple(measuring.label(word, one).values()) for one in found.conditions(MICRO, runs)]


@pytest.mark.parametrize("word", EXPERIMENTS)
def test_no_condition_is_asked_twice(word: str) -> None:
    """Else a row would be overwritten, and a run that was cut would not know what is missing."""
    found = names(word, 2)
    assert found and len(set(found)) == len(found)


def test_table_1_has_every_task_and_method() -> None:
    """At the paper's concept counts; UCE is fine-tuned in full there, the others by LoRA."""
    rows = [dict(zip(measuring.ASKED, row, strict=True)) for row in names("table-1")]
    assert {(row["task"], row["concepts"]) for row in rows} == {
        ("celebrity", "10"),
        ("celebrity", "100"),
        ("copyright", "1"),
        ("unsafe", "4"),
        ("object", "3"),
    }
    assert len({row["method"] for row in rows}) == 7
    assert {row["finetuning"] for row in rows if row["method"] == "uce"} == {"full"}
    assert {row["finetuning"] for row in rows if row["method"] != "uce"} == {"lora"}


def test_appendix_j_saves_one_training_on_its_way() -> None:
    """Every size at every step; the models before the last are checkpoints of the longest training."""
    conditions = list(experiment_named("appendix-j").conditions(MICRO, 1))
    rows = [measuring.label("appendix-j", one) for one in conditions]
    assert {row["benign_images"] for row in rows} == {str(size) for size in SIZES}
    assert {row["steps"] for row in rows} == {str(steps) for steps in STEPS}
    for one in conditions:
        assert one.first is not None
        whole, part = one.first.steps[-1], one.plan.finetuning
        assert whole.at(part.steps) == part  # type: ignore[attr-defined]
        assert part.steps == whole.steps or part.steps in whole.save_at  # type: ignore[attr-defined]


def test_out_of_domain_images_never_ask_for_an_erased_name() -> None:
    """Whatever they show; and they are about as many as those in the domain."""
    for one in experiment_named("domains").conditions(MICRO, 1):
        texts = " ".join(prompt.text for prompt in one.plan.finetuning.data.probe.prompts).casefold()
        assert not any(name.name.casefold() in texts for name in TASKS["celebrity"].erase(10))
        assert 75 <= len(one.plan.finetuning.data.probe) <= 125


def test_an_unknown_word_is_told() -> None:
    """With those that there are."""
    with pytest.raises(UserError, match='There is no experiment "table-7"'):
        experiment_named("table-7")
