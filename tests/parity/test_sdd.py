"""SDD's targets, losses, updates and moving average are those of the authors' code (docs/parity.md)."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.diffusion.parameters import CrossAttention, selected
from resurgence_harness.unlearning import SDD, TeacherOutput
from tests.parity import distilling_inputs as given
from tests.parity.given import agree, fingerprint, float64, precise, recorded
from tests.tiny import tiny_run

pytestmark = pytest.mark.slow


def test_targets_and_the_first_loss_are_the_authors(base: StableDiffusion) -> None:
    """For given x_t, t and c, in float32; the later targets are those of a student that has moved."""
    theirs = recorded("sdd")
    x_t, t = torch.from_numpy(theirs["x_t"][:1]).float(), torch.from_numpy(theirs["t"][:1])
    c, c_0 = moves.encode_texts(base, [given.CONCEPT.name]), moves.encode_texts(base, [""])
    with torch.no_grad():
        said, aim = moves.predict(base, x_t, t, c), moves.predict(base, x_t, t, c_0)

    agree("SDD target", aim, theirs["targets"][:1])
    agree("SDD first loss", moves.noise_errors(base, said, aim, t), theirs["losses"][:1])


def test_losses_and_updates_are_the_authors(base: StableDiffusion) -> None:
    """The whole of `SDD.apply`, with one concept, in float64: what the moving average has added to every tensor."""
    model, theirs = precise(base), recorded("sdd")
    facts: dict[str, Any] = {}
    sdd = SDD(
        concepts=(given.CONCEPT,),
        output=TeacherOutput(),
        ema=given.EMA,
        iterations=given.STEPS,
        iterations_per_concept=0,
        learning_rate=given.SDD_RATE,
        trajectories=given.TRAJECTORIES,
        trajectory_steps=given.MOMENTS,
        seed=int(theirs["seed"]),
    )
    with float64():
        changed = sdd.apply(model, tiny_run(model, record=facts.__setitem__))
    old = dict(model.unet.named_parameters())
    names = [name.removeprefix("unet.") for name in selected(CrossAttention(), [f"unet.{name}" for name in old])]
    moved = {name: value.detach() - old[name] for name, value in changed.unet.named_parameters() if name in names}

    agree("SDD losses, float64", list(facts["loss"].values()), theirs["losses"][[0, -1]])
    agree("SDD updates, float64", fingerprint(moved), theirs["teacher"])
    assert np.array_equal(theirs["count"], [len(names), crc32("\n".join(sorted(names)).encode())])
