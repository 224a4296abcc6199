"""Contract tests of tasks: `check_task(task)`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.judging import check_names, judge_by_name
from resurgence_harness.selection import RETAINED_PROMPTS, Selection, cells, plan_cell, resolve_base
from resurgence_harness.specs import Concept, Prompt
from resurgence_harness.tasks import Task
from resurgence_harness.unlearning.contract import first_named

if TYPE_CHECKING:
    from resurgence_harness.judging import Judge


def check_task(task: Task, *, judges: Iterable[Judge] = (), base: str = "micro") -> None:
    """Test a task's contract; AssertionError names the prompt, the concept or the judge that violates it.

    `judges`: judges that are not registered, such as those of a conftest.py. `base`: the model whose tokenizer must
    encode every prompt, as for --resurgence-base. Nothing is sampled.
    """
    _require(
        isinstance(task, Task), f"{type(task).__name__} is not a Task.", do="Give a resurgence_harness.tasks.Task."
    )
    check_word(task)
    for count in task.counts:
        check_prompts(task, count)
    check_retained(task)
    check_judges(task, judges)
    check_plans(task, base)


def check_word(task: Task) -> None:
    """The name can be used in node ids and folders."""
    plain = task.name.replace("-", "").replace("_", "")
    _require(
        plain.isascii() and plain.isalnum(),
        f'The task name "{task.name}" cannot be used in node ids.',
        do="Use letters, digits and hyphens.",
    )


def check_prompts(task: Task, count: int) -> None:
    """Every erased concept has a prompt, no prompt occurs twice, and every filled template contains the name."""
    concepts = task.erase(count)
    prompts = task.prompts(concepts)
    prompted = {prompt.concept for prompt in prompts}
    missing = [concept.name for concept in concepts if concept.name not in prompted]
    _require(
        not missing,
        f'Task {task.name} has no prompt for "{_first(missing)}".',
        count=count,
        without=_some(missing),
        do="Add a template with {}, or written prompts for every erasable concept.",
    )
    for kind, found in (("prompts", prompts), ("synonym prompts", task.synonym_prompts(concepts))):
        texts = [prompt.text for prompt in found]
        twice = sorted({text for text in texts if texts.count(text) > 1})
        _require(not twice, f"The {kind} of task {task.name} contain one twice.", prompts=_some(twice))
    for concept in concepts:
        without = [prompt.text for prompt in task.filled((concept,)) if first_named((concept,), [prompt.text]) is None]
        _require(
            not without,
            f'A template of task {task.name} does not contain the name "{concept.name}" as whole words.',
            prompt=_first(without),
            do="Put {} between spaces or punctuation.",
        )


def check_retained(task: Task) -> None:
    """No prompt of a retained or neutral concept contains an erasable concept: it would be a hit, or train it."""
    groups: dict[str, Sequence[Prompt]] = {
        "preserve": task.retained_prompts(task.preserve, least=RETAINED_PROMPTS),
        "held_out": task.retained_prompts(task.held_out, least=RETAINED_PROMPTS),
        "neutral": task.neutral,
    }
    for group, prompts in groups.items():
        found = first_named(task.erasable, [prompt.text for prompt in prompts])
        _require(
            found is None,
            f'A prompt of {group} in task {task.name} contains the erasable "{found[1] if found else ""}".',
            prompt=found[0] if found else "",
            do="Rename the concept, or write templates that do not contain an erasable name.",
        )
    names = {alias.casefold(): concept.name for concept in task.erasable for alias in concept.aliases}
    others: list[Concept] = [*task.preserve, *task.held_out, *task.neutral_concepts]
    shared = [alias for concept in others for alias in concept.aliases if alias.casefold() in names]
    _require(
        not shared,
        f'"{_first(shared)}" names both an erasable and a retained concept of task {task.name}.',
        names=_some(shared),
        do="Remove it from the synonyms of one of them.",
    )


def check_judges(task: Task, judges: Iterable[Judge] = ()) -> None:
    """Every judge is known and has an answer for every concept: without one its return could never be detected."""
    own: dict[str, Any] = {judge.name: judge for judge in judges}
    names = [concept.name for concept in (*task.erasable, *task.preserve, *task.held_out)]
    for name in task.judges:
        try:
            check_names(own[name] if name in own else judge_by_name(name), names)
        except UserError as mistake:
            raise AssertionError(str(mistake)) from None


def check_plans(task: Task, base: str = "micro") -> None:
    """Cells of every count can be planned, and the base's tokenizer encodes every prompt."""
    from resurgence_harness.examining import check_prompts as encoded

    resolved = resolve_base(base)
    selection = Selection(methods=("uce", "esd"), counts=task.counts)
    try:
        plans = [plan_cell(cell, resolved, task=task, selection=selection) for cell in cells(task, selection)]
        encoded(plans, resolved, also=[prompt for plan in plans if plan.benign for prompt in plan.benign.prompts])
    except UserError as mistake:
        raise AssertionError(str(mistake)) from None


def _first(names: Sequence[str]) -> str:
    return names[0] if names else ""


def _some(names: Sequence[str]) -> str:
    return f"{len(names)}: {', '.join(names[:5])}{' …' if len(names) > 5 else ''}"


def _require(fits: object, first: str, /, *, do: str = "", **facts: object) -> None:
    if not fits:
        raise AssertionError(sentence(first, do=do, **facts))
