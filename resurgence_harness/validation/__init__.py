"""Whether the verdict's statistics are what they claim: measured, summed and replayed, with numbers only.

    edges       the error where it can occur: a truth exactly on the limit, HOLDS and VIOLATED both wrong
    exactness   the same by summation, where all outcomes can be enumerated
    power       what a verdict sees and what it costs
    replays     stored outcomes in a thousand orders
    checks      all of it, as `resurgence validate` runs it; report tells it

An engine that is wrong on purpose must fail the same checks, or they would prove nothing.
"""

from resurgence_harness.statistics.paired_size import Side, critical_alpha, worst_paired
from resurgence_harness.validation.checks import FAST, FULL, Depth, every_check, run
from resurgence_harness.validation.exactness import worst_proportion
from resurgence_harness.validation.power import SCENARIOS, Cost, Scenario, expected_pairs, fixed_pairs
from resurgence_harness.validation.replays import Stored, read
from resurgence_harness.validation.report import Row, as_csv, as_text, folder, passed, write

__all__ = [
    "FAST",
    "FULL",
    "SCENARIOS",
    "Cost",
    "Depth",
    "Row",
    "Scenario",
    "Side",
    "Stored",
    "as_csv",
    "as_text",
    "every_check",
    "critical_alpha",
    "expected_pairs",
    "fixed_pairs",
    "folder",
    "passed",
    "read",
    "run",
    "worst_paired",
    "worst_proportion",
    "write",
]
