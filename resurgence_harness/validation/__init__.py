"""Validation of the verdict's statistics: error rates and power by simulation, exact summation and replays; no images.

    edges       error rates with the true value exactly at the limit, where HOLDS and VIOLATED are both wrong
    exactness   the same by summation, where all outcomes can be enumerated
    power       the power of a verdict, and the number of pairs it takes
    replays     stored outcomes in a thousand orders
    checks      all checks that `resurgence validate` runs
    report      their results as text and CSV

Engines that are wrong on purpose must fail the same checks, which shows that the checks detect errors.
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
