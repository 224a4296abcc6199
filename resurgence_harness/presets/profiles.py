"""Named sizes of a run."""

from __future__ import annotations

from typing import Literal, NamedTuple

from resurgence_harness.presets.methods import SEVEN


class Profile(NamedTuple):
    """A named size of run."""

    methods: tuple[str, ...]
    counts: Literal["quick", "all"]
    """Concept counts of each task: its quick ones, or all that the paper reports."""
    finetunings: tuple[str, ...]
    runs: int
    paper_seeds: bool
    """Whether as many images are drawn as in the paper (for celebrities 250 to 2,500), or as a decision needs."""
    engine: str
    """How many images are drawn by default: "sequential", or "fixed" as in the paper."""


PROFILES: dict[str, Profile] = {
    "quick": Profile(SEVEN, "quick", ("lora",), 1, False, "sequential"),
    "full": Profile(SEVEN, "all", ("lora",), 1, False, "sequential"),
    "paper": Profile(SEVEN, "all", ("lora", "full", "xattn"), 3, True, "fixed"),
}
