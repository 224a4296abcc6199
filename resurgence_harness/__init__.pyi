from resurgence_harness.errors import HarnessError as HarnessError
from resurgence_harness.errors import UserError as UserError
from resurgence_harness.library import Comparison as Comparison
from resurgence_harness.library import Results as Results
from resurgence_harness.library import compare as compare
from resurgence_harness.library import examine as examine
from resurgence_harness.library import gate as gate
from resurgence_harness.library import load as load
from resurgence_harness.library import stress as stress
from resurgence_harness.reporting.verdict_json import CellResult as CellResult
from resurgence_harness.specs import Recipe as Recipe
from resurgence_harness.statistics import Policy as Policy

__version__: str
__all__ = [
    "CellResult",
    "Comparison",
    "HarnessError",
    "Policy",
    "Recipe",
    "Results",
    "UserError",
    "__version__",
    "compare",
    "examine",
    "gate",
    "load",
    "stress",
]
