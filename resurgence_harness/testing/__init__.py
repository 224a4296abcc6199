"""Contract tests for judges, unlearnings and fine-tunings, as functions that your own tests can call.

    from resurgence_harness.testing import check_finetuning, check_judge, check_unlearning

    def test_my_judge():
        check_judge(MyJudge(), pictures)                  # uint8 [n, h, w, 3], at least two of them different

    def test_my_method():
        check_unlearning(MyMethod(concepts=…), StableDiffusion.load(directory))

Each raises AssertionError whose first line states what is wrong, and whose facts name the field, the tensor or the
file. The package's own judges and steps are tested with the same functions.
"""

from __future__ import annotations

from resurgence_harness.testing.judges import check_judge
from resurgence_harness.testing.steps import check_finetuning, check_unlearning, run_on

__all__ = ["check_finetuning", "check_judge", "check_unlearning", "run_on"]
