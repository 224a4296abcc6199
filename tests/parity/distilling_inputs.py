"""What ESD and SDD are given: one concept, two trajectories of five steps, three updates."""

from __future__ import annotations

from resurgence_harness.specs import Concept

CONCEPT = Concept(name="ada quill", kind="a celebrity")
TRAJECTORIES, MOMENTS, STEPS = 2, 5, 3
RATE = 5e-5
SDD_RATE, EMA = 1e-4, 0.9
