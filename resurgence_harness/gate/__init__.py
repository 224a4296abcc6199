"""The release gate: judges a candidate against a policy file, and writes all reports.

`resurgence_harness.gate` is this package and, called, the library's function: `rh.gate(candidate, …)`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

OUT = Path("reports/gate")
"""Where a gate writes its reports, unless another folder is given."""


class _Gate(ModuleType):
    """A module whose class can be called: importing any part of this package puts it at `resurgence_harness.gate`."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """`resurgence_harness.library.gate`, which is imported only here: it lies above this package."""
        return import_module("resurgence_harness.library").gate(*arguments, **named)


sys.modules[__name__].__class__ = _Gate
