"""ESD's trajectories, targets, losses and updates are those of the authors' 2023 and 2025 code (docs/parity.md)."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.diffusion.parameters import CrossAttention, Parameters, StrictKeyValue, selected
from resurgence_harness.unlearning import ESD
from resurgence_harness.unlearning.esd import esd_target
from tests.parity import distilling_inputs as given
from tests.parity.given import agree, fingerprint, float64, precise, recorded
from tests.tiny import tiny_run

pytestmark = pytest.mark.slow

METHOD = "2025 esd-x"
SUBSETS = {METHOD: CrossAttention(), "2025 esd-x-strict": StrictKeyValue()}


def step(subset: Parameters) -> ESD:
    """The paper's η, which the 2025 code calls 2."""
    return ESD(
        concepts=(given.CONCEPT,),
        subset=subset,
        away=1.0,
        guidance=3.0,
        iterations=given.STEPS,
        learning_rate=given.RATE,
        trajectories=given.TRAJECTORIES,
        trajectory_steps=given.MOMENTS,
    )


@pytest.mark.parametrize("year", ["2025 esd-x", "2023"])
def test_targets_and_the_first_loss_are_the_authors(base: StableDiffusion, year: str) -> None:
    """For given x_t, t and c, in float32."""
    theirs, inputs = recorded("esd"), recorded("esd")
    x_t, t = torch.from_numpy(inputs["2025 esd-x x_t"]).float(), torch.from_numpy(inputs["2025 esd-x t"])
    c, c_0 = (moves.encode_texts(base, [text] * len(t)) for text in (given.CONCEPT.name, ""))
    with torch.no_grad():
        prompted, empty = moves.predict(base, x_t, t, c), moves.predict(base, x_t, t, c_0)
    aim = esd_target(empty, prompted, away=1.0)

    agree(f"ESD {year}, targets", aim, theirs[f"{year} targets"])
    agree(f"ESD {year}, first loss", ((prompted - aim) ** 2).mean((1, 2, 3))[:1], theirs[f"{year} losses"][:1])


def test_trajectories_losses_and_updates_are_the_authors(base: StableDiffusion) -> None:
    """The whole of their 2025 script and of `ESD.apply`, in float64."""
    model, theirs, facts, pool = precise(base), recorded("esd"), {}, {}

    def kept(kind: str, _: object, build: Any) -> Any:
        pool.update(build())
        return pool

    with float64():
        run = tiny_run(model, record=facts.__setitem__, cached=kept)
        changed = step(SUBSETS[METHOD]).apply(model, run)
    old = dict(model.unet.named_parameters())
    names = chosen(base, METHOD)
    moved = {name: value.detach() - old[name] for name, value in changed.unet.named_parameters() if name in names}
    rows = [row for row, t in enumerate(pool["t"]) for at in theirs[f"{METHOD} x_t"] if near(pool["x_t"][row], at)]

    agree(f"ESD {METHOD}, x_t", pool["x_t"][rows], theirs[f"{METHOD} x_t"][np.argsort(-theirs[f"{METHOD} t"])])
    agree(f"ESD {METHOD}, losses", list(facts["loss"].values()), theirs[f"{METHOD} losses"][[0, -1]])
    agree(f"ESD {METHOD}, updates, float64", fingerprint(moved), theirs[f"{METHOD} changes"])


@pytest.mark.parametrize("method", SUBSETS)
def test_what_moves_is_the_authors_choice(base: StableDiffusion, method: str) -> None:
    """As many tensors, of the same names."""
    names = chosen(base, method)

    assert [len(names), crc32("\n".join(names).encode())] == recorded("esd")[f"{method} count"].tolist()


def chosen(model: StableDiffusion, method: str) -> list[str]:
    """Names of what moves, sorted."""
    named = [f"unet.{name}" for name, _ in model.unet.named_parameters()]
    return sorted(name.removeprefix("unet.") for name in selected(SUBSETS[method], named))


def near(ours: torch.Tensor, theirs: np.ndarray) -> bool:
    """Whether this is the moment that was recorded."""
    return float((ours - torch.from_numpy(theirs)).norm()) < 1e-3


def test_the_2023_updates_are_the_2025_ones_at_the_same_moments() -> None:
    """What both systems add to the weights, given the same x_t and t."""
    agree("ESD 2023 and 2025, updates", recorded("esd")["2023 changes"], recorded("esd")["2025 esd-x changes"])
