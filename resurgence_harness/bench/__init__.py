"""The only place where specs meet the store: what is missing is made, once, and what is there is read.

    Recipe ──build──▶ Checkpoint ──sample──▶ Images ──judge──▶ Judgments
    checkpoint()      tensors that differ    images()          evidence()
                      from the parent's

A warm store answers `evidence` without torch. On a cold one the base is loaded once and one further U-Net takes the
weights of one recipe after another. Every artifact records what it was made from, with what, on what, and how long it
took.
"""

from __future__ import annotations

from resurgence_harness.bench.bench import Bench
from resurgence_harness.bench.making import Progress

__all__ = ["Bench", "Progress"]
