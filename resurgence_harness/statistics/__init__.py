"""From judgments to a verdict. Pure functions of counts; no tensors, no files.

Judgment ──▶ Evidence ──▶ Rate, Pairs ──criterion──▶ Finding ──policy, acceptance, controls──▶ Verdict
"""

from resurgence_harness.statistics.along_steps import AlongSteps, StepRate, along_steps, with_steps
from resurgence_harness.statistics.assessment import ImageGroup
from resurgence_harness.statistics.betting import betting_bounds, e_value
from resurgence_harness.statistics.confusion import confusion
from resurgence_harness.statistics.criteria import Finding, Incidental, Level, NoRise, Utility
from resurgence_harness.statistics.designs import FIXED, Design, Fixed, Hybrid, Shuffled
from resurgence_harness.statistics.evidence import (
    DrawnDifferently,
    Evidence,
    Judgment,
    Outcome,
    Pairs,
    agreement,
    check_paired,
    pairs,
)
from resurgence_harness.statistics.intervals import (
    clopper_pearson,
    mcnemar_exact,
    paired,
    tango,
    zero_event_floor,
)
from resurgence_harness.statistics.judge_error import JudgeAccuracy
from resurgence_harness.statistics.rates import Rate
from resurgence_harness.statistics.reach import bound_at_zero, cannot_hold
from resurgence_harness.statistics.stages import StageEvidence, StageState, accounts, check_stages
from resurgence_harness.statistics.verdicts import (
    Acceptance,
    Binding,
    CellEvidence,
    Control,
    Controls,
    ControlState,
    Differs,
    FilledTemplate,
    Losses,
    Policy,
    UnlearningOutcome,
    Verdict,
    VerdictKind,
    decide,
    exit_code,
)

__all__ = [
    "FIXED",
    "AlongSteps",
    "StepRate",
    "along_steps",
    "with_steps",
    "Design",
    "Fixed",
    "ImageGroup",
    "Hybrid",
    "Shuffled",
    "betting_bounds",
    "e_value",
    "Acceptance",
    "Binding",
    "CellEvidence",
    "Control",
    "ControlState",
    "Controls",
    "Differs",
    "DrawnDifferently",
    "Evidence",
    "FilledTemplate",
    "Finding",
    "Incidental",
    "JudgeAccuracy",
    "Judgment",
    "Level",
    "Losses",
    "NoRise",
    "Outcome",
    "Pairs",
    "Policy",
    "Rate",
    "UnlearningOutcome",
    "Utility",
    "Verdict",
    "VerdictKind",
    "agreement",
    "check_paired",
    "clopper_pearson",
    "confusion",
    "decide",
    "exit_code",
    "mcnemar_exact",
    "paired",
    "pairs",
    "tango",
    "zero_event_floor",
    "bound_at_zero",
    "StageEvidence",
    "StageState",
    "accounts",
    "cannot_hold",
    "check_stages",
]
