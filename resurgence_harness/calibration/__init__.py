"""A judge's calibration on pictures that a person labelled, from drawing them to sharing the counts.

drawing    pictures of the base and of unlearned and fine-tuned models, with seeds and prompts of no suite
counting   the judge's answers against the labels → counts by kind, canaries, who labelled and when
sharing    a calibration as one file, checked when it is imported
seen       what a picture must not be: one that a suite asks for
"""

from __future__ import annotations

from resurgence_harness.calibration.counting import Counted, count, store
from resurgence_harness.calibration.drawing import Wish, choices_of, draw
from resurgence_harness.calibration.sharing import export, import_from

__all__ = ["Counted", "Wish", "choices_of", "count", "draw", "export", "import_from", "store"]
