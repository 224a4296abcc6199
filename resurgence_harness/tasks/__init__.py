"""What is erased, what must survive, and how models are asked: data and nothing else."""

from __future__ import annotations

from resurgence_harness.tasks.celebrity import CELEBRITY
from resurgence_harness.tasks.copyright import COPYRIGHT
from resurgence_harness.tasks.object import OBJECT
from resurgence_harness.tasks.task import Task
from resurgence_harness.tasks.unsafe import UNSAFE

TASKS: dict[str, Task] = {task.name: task for task in (CELEBRITY, COPYRIGHT, UNSAFE, OBJECT)}
"""Every task by its name."""

__all__ = ["CELEBRITY", "COPYRIGHT", "OBJECT", "TASKS", "UNSAFE", "Task"]
