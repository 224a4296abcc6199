"""What is ready on this machine for which task on which base: `resurgence doctor`.

requirements    base, prompts, judges' weights, calibration: what is missing, and the command that gives it
machine         device, memory, disk, versions
pace            how long a run takes here, from a short measurement
"""

from __future__ import annotations

from resurgence_harness.readiness.machine import machine
from resurgence_harness.readiness.pace import Pace, measure
from resurgence_harness.readiness.requirements import Requirement, State, requirements

__all__ = ["Pace", "Requirement", "State", "machine", "measure", "requirements"]
