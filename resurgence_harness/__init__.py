"""A safety regression test harness for concept resurgence in unlearned and fine-tuned Stable Diffusion models.

    import resurgence_harness as rh

    results = rh.examine("celebrity", methods="uce", counts=1, finetune="lora")
    results.passed, results.cell("uce-1-lora").after.rate

The public names are those in `__all__` (docs/library.md), the registered kinds of objects (docs/extending.md) and
`resurgence_harness.testing`; other modules are internal. Nothing is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PLACES = {
    "CellResult": "resurgence_harness.reporting.verdict_json",
    "Comparison": "resurgence_harness.library",
    "HarnessError": "resurgence_harness.errors",
    "Policy": "resurgence_harness.statistics",
    "Recipe": "resurgence_harness.specs",
    "Results": "resurgence_harness.library",
    "UserError": "resurgence_harness.errors",
    "compare": "resurgence_harness.library",
    "examine": "resurgence_harness.library",
    "gate": "",  # the package of this name, which can be called
    "load": "resurgence_harness.library",
    "stress": "resurgence_harness.library",
}

__all__ = ["__version__", *_PLACES]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place = _PLACES[name]
    return getattr(import_module(place), name) if place else import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
