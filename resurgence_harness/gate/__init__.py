"""The release gate: which limits apply to a cell, and which results were accepted."""

from resurgence_harness.gate.policy import Limits, load_limits

__all__ = ["Limits", "load_limits"]
