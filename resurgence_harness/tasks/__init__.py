"""What is erased, what must survive, and how models are asked: data and nothing else."""

from __future__ import annotations

from resurgence_harness.tasks.celebrity import CELEBRITY
from resurgence_harness.tasks.task import Task

TASKS: dict[str, Task] = {task.name: task for task in (CELEBRITY,)}
"""Every task by its name."""

__all__ = ["CELEBRITY", "TASKS", "Task"]
