"""Tasks: which concepts are erased, which are retained, and the prompts for both. Data only.

The four tasks exist twice under the same names: for the embedded microworld (`TASKS`) and for real Stable Diffusion
models (`PUBLISHED`). `selection.tasks_on` chooses by base. Tasks of other packages and of a suite are in both tables.
"""

from __future__ import annotations

from resurgence_harness.registry import BUILT_IN, register
from resurgence_harness.tasks.celebrity import CELEBRITY
from resurgence_harness.tasks.copyright import COPYRIGHT
from resurgence_harness.tasks.object import OBJECT
from resurgence_harness.tasks.published import PUBLISHED
from resurgence_harness.tasks.tables import TASKS
from resurgence_harness.tasks.task import Source, Task
from resurgence_harness.tasks.unsafe import UNSAFE

for _task in (CELEBRITY, COPYRIGHT, UNSAFE, OBJECT):
    register("task", _task, BUILT_IN)

__all__ = ["CELEBRITY", "COPYRIGHT", "OBJECT", "PUBLISHED", "TASKS", "UNSAFE", "Source", "Task"]
