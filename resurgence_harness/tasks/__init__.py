"""What is erased, what must survive, and how models are asked: data and nothing else.

The four tasks twice under the same names: of the embedded microworld (`TASKS`) and for real Stable Diffusions
(`PUBLISHED`). `selection.tasks_on` says which of them a base is asked.
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
