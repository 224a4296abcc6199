"""Tasks: which concepts are erased, which are retained, and the prompts for both. Data only.

The four tasks exist twice under the same names: for the embedded microworld (`TASKS`) and for real Stable Diffusion
models (`PUBLISHED`). `selection.tasks_on` chooses by base.
"""

from __future__ import annotations

from resurgence_harness.tasks.celebrity import CELEBRITY
from resurgence_harness.tasks.copyright import COPYRIGHT
from resurgence_harness.tasks.object import OBJECT
from resurgence_harness.tasks.published import PUBLISHED
from resurgence_harness.tasks.task import Source, Task
from resurgence_harness.tasks.unsafe import UNSAFE

TASKS: dict[str, Task] = {task.name: task for task in (CELEBRITY, COPYRIGHT, UNSAFE, OBJECT)}
"""Every task of the microworld by its name."""

__all__ = ["CELEBRITY", "COPYRIGHT", "OBJECT", "PUBLISHED", "TASKS", "UNSAFE", "Source", "Task"]
