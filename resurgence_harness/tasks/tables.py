"""The tables of tasks in the registry: the microworld's and the published ones; every other task is in both."""

from __future__ import annotations

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.registry import Given, Table
from resurgence_harness.tasks.task import Task


def _read(given: object) -> Given:
    if not isinstance(given, Task):
        raise UserError(
            sentence(
                f"A task is expected, not {given!r:.80}.",
                got=type(given).__name__,
                do="Give an instance of resurgence_harness.tasks.Task.",
            )
        )
    return Given(given.name, given)


TASKS: Table[Task] = Table("task", _read)
"""Every task of the microworld by its name."""
PUBLISHED: Table[Task] = Table("published task", _read)
"""Every published task by its name, the same as that of the microworld's task."""
