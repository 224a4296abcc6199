"""Connects specs with the store: missing artifacts are built once, present ones are loaded.

    Recipe ──build──▶ Checkpoint ──sample──▶ Images ──judge──▶ Judgments
    checkpoint()      tensors that differ    images()          evidence()
                      from the parent's

With a warm store, `evidence` does not import torch. With a cold one the base is loaded once, and one more U-Net is
reused for the weights of all recipes. Every artifact records its inputs, the device, the library versions and the time
of its build.
"""

from __future__ import annotations

from resurgence_harness.bench.bench import Bench
from resurgence_harness.bench.benign_check import BenignCheck, check_benign
from resurgence_harness.bench.making import Observer, Progress

__all__ = ["Bench", "BenignCheck", "Observer", "Progress", "check_benign"]
