"""Contract tests for judges, tasks, unlearnings and fine-tunings, as functions that your own tests can call.

    from resurgence_harness.testing import check_finetuning, check_judge, check_task, check_unlearning

    def test_my_judge():
        check_judge(MyJudge(), pictures)                  # uint8 [n, h, w, 3], at least two of them different

    def test_my_method():
        check_unlearning(MyMethod(concepts=…), StableDiffusion.load(directory))

    def test_my_task():
        check_task(MY_TASK, judges=[MyJudge()])

Each raises AssertionError whose first line states what is wrong, and whose facts name the field, the tensor, the prompt
or the file. The package's own judges, steps and tasks are tested with the same functions. `resurgence new` writes a
method, a judge or a task with such a test.
"""

from __future__ import annotations

from resurgence_harness.testing.judges import check_judge
from resurgence_harness.testing.steps import check_finetuning, check_unlearning, run_on
from resurgence_harness.testing.tasks import check_task

__all__ = ["check_finetuning", "check_judge", "check_task", "check_unlearning", "run_on"]
