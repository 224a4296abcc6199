"""A user's list of erased concepts in place of a task's own erase sets: a task with exactly these erased."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.limits.names import same_name
from resurgence_harness.specs import Concept
from resurgence_harness.tasks import Task


def erasing(task: Task, concepts: Sequence[Concept]) -> Task:
    """The task with these concepts erased, and none of them retained: its only count is their number.

    A concept is found by its name, however it is written; synonyms of the list replace the task's. UserError for a name
    that the task does not have, and for a list that leaves nothing to retain or has no prompts.
    """
    known = {same_name(one.name): one for one in (*task.erasable, *task.preserve, *task.held_out)}
    erased: list[Concept] = []
    for concept in concepts:
        usual = known.get(same_name(concept.name))
        if usual is None:
            raise UserError(
                sentence(
                    f'Task {task.name} has no concept "{shown(concept.name)}".',
                    known=f"{', '.join(one.name for one in task.erasable[:5])} … ({len(known)})",
                    do="Name concepts of the task, one a line: its judges know no others.",
                )
            )
        erased.append(replace(usual, synonyms=concept.synonyms) if concept.synonyms else usual)
    words = {same_name(word) for concept in erased for word in concept.aliases}
    preserve, held_out = (
        tuple(one for one in group if words.isdisjoint(map(same_name, one.aliases)))
        for group in (task.preserve, task.held_out)
    )
    changed: Task | None = None
    if preserve and held_out:
        changed = replace(
            task,
            erasable=tuple(erased),
            counts=(len(erased),),
            quick=(),
            preserve=preserve,
            held_out=held_out,
            erase_sets={},
        )
    prompted = {prompt.concept for prompt in changed.prompts(tuple(erased))} if changed is not None else set()
    missing = [one.name for one in erased if one.name not in prompted]
    if changed is None or missing:
        raise UserError(
            sentence(
                f'Task {task.name} has no prompts for "{shown(missing[0])}".'
                if changed is not None
                else f"Nothing would be left to retain: the list names all such concepts of task {task.name}.",
                concepts=len(erased),
                do="Shorten the list of erased concepts.",
            )
        )
    return changed
