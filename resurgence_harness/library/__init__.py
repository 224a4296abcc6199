"""The harness as a library: `import resurgence_harness as rh`.

    rh.examine("celebrity", methods="uce", counts=1, finetune="lora")       a suite's cells
    rh.stress("./my-erased", base="sd14", concepts=["Brad Pitt"])           a model that was unlearned elsewhere
    rh.gate("./candidate", unlearned="./my-erased", base="sd14", …)         a checkpoint before its release
    rh.load("reports/out")                                                  the results of any earlier run
    rh.compare("reports/a", "reports/b")                                    two runs of the same cells

The first four return `Results`: the content of the run's verdict.json, typed, which a notebook shows as table, curves
and worst images; `compare` returns a `Comparison`. They do what the command line does: `resurgence gate` and
`resurgence stress` run the same functions, and `examine` runs the suite that is in the package with pytest, in this
process. So stores, limits, reports, completeness and exit codes are the same. A mistake of the caller is a
`UserError`, a failure of the harness a `HarnessError`.
"""

from __future__ import annotations

from resurgence_harness.library.comparing import Comparison, compare
from resurgence_harness.library.gating import gate
from resurgence_harness.library.results import Results, load
from resurgence_harness.library.suites import examine, stress

__all__ = ["Comparison", "Results", "compare", "examine", "gate", "load", "stress"]
