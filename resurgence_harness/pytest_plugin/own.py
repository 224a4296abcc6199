"""Reads and checks the tasks and judges that a suite's conftest.py returns from our hooks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.tasks import Task


def tasks_in(given: Iterable[object]) -> list[Task]:
    """Every task of the hook's results."""
    found = _all(given, "pytest_resurgence_tasks", "[NIGHT]")
    for task in found:
        if not isinstance(task, Task):
            raise UserError(
                sentence(
                    f"pytest_resurgence_tasks returned {task!r:.80}, which is not a Task.",
                    do="Return a list of resurgence_harness.tasks.Task.",
                )
            )
    _check_names(found, "tasks")
    return found


def judges_in(given: Iterable[object]) -> list[Any]:
    """Every judge of the hook's results."""
    found = _all(given, "pytest_resurgence_judges", "[Darkness()]")
    if found:
        from resurgence_harness.judging.declaring import check_declared

        for judge in found:
            check_declared(judge)
    _check_names(found, "judges")
    return found


def _all(given: Iterable[object], hook: str, example: str) -> list[Any]:
    """What the implementations of a hook returned, together."""
    found: list[Any] = []
    for one in given:
        if not isinstance(one, list | tuple):
            raise UserError(
                sentence(f"{hook} did not return a list.", got=repr(one)[:80], do=f"Return a list: return {example}.")
            )
        found += one
    return found


def _check_names(found: list[Any], what: str) -> None:
    first: dict[str, Any] = {}
    if twice := [one.name for one in found if first.setdefault(one.name, one) != one]:
        raise UserError(
            sentence(
                f'Two {what} are called "{twice[0]}".', do="Only one of them would be used: give each its own name."
            )
        )
