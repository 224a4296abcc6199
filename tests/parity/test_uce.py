"""UCE's edited matrices are those of the authors' 2023 and 2025 code (docs/parity.md)."""

from __future__ import annotations

import numpy as np
import pytest

from resurgence_harness.diffusion.model import StableDiffusion, tensors
from resurgence_harness.diffusion.parameters import StrictKeyValue, selected
from resurgence_harness.specs import Concept
from resurgence_harness.unlearning import UCE, LastSubjectToken, SubjectAndAfter
from tests.parity.given import ANCHOR, ERASED, PRESERVED, agree, deviation, recorded
from tests.tiny import tiny_run

pytestmark = pytest.mark.slow

CONCEPTS = tuple(Concept(name=name, kind="a celebrity") for name in ERASED)
KEPT = tuple(Concept(name=name, kind="a celebrity") for name in PRESERVED)
LARGEST_PRESERVE = max(0.1, 1 / 3)
"""The 2023 code's weight where two names and the empty text are preserved."""
STEPS = {
    "2023": UCE(concepts=CONCEPTS, anchor=ANCHOR, preserve=KEPT, preserve_scale=LARGEST_PRESERVE),
    "2023 nothing": UCE(concepts=CONCEPTS, anchor=" ", preserve=KEPT, preserve_scale=LARGEST_PRESERVE),
    "2025": UCE(concepts=CONCEPTS, anchor=ANCHOR, preserve=KEPT, tokens=LastSubjectToken()),
}


def edited(model: StableDiffusion) -> np.ndarray:
    """All key and value matrices, in the order of their names."""
    found = tensors(model)
    return np.concatenate([found[name].numpy().ravel() for name in sorted(selected(StrictKeyValue(), found))])


@pytest.mark.parametrize("system", STEPS)
def test_edited_matrices_are_the_authors(base: StableDiffusion, system: str) -> None:
    """Every entry of the 32 matrices, and the edit itself, which is smaller."""
    ours, theirs, before = edited(STEPS[system].apply(base, tiny_run(base))), recorded("uce")[system], edited(base)

    agree(f"UCE {system}, matrices", ours, theirs)
    agree(f"UCE {system}, edits", ours - before, theirs - before)


def test_the_records_tell_the_systems_apart() -> None:
    """The other system's tokens would have been noticed."""
    assert isinstance(STEPS["2023"].tokens, SubjectAndAfter)
    assert deviation(recorded("uce")["2023"], recorded("uce")["2025"]) > 0.01
    assert deviation(recorded("uce")["2023"], recorded("uce")["2023 nothing"]) > 0.01
