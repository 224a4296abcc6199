"""A planted regression is the share of the way back that it says, and nothing else moves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from resurgence_harness.diffusion.model import StableDiffusion, tensors
from resurgence_harness.diffusion.run import Run
from resurgence_harness.errors import SpecError
from resurgence_harness.experiments.planted import Planted, planted
from resurgence_harness.selection import Selection, plan_cell
from resurgence_harness.specs import Base, Cell
from resurgence_harness.tasks import CELEBRITY
from tests.tiny import save_tiny_stable_diffusion

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusion:
    """A tiny Stable Diffusion."""
    folder: Path = tmp_path_factory.mktemp("base")
    return StableDiffusion.load(str(save_tiny_stable_diffusion(folder)))


@pytest.fixture(scope="module")
def changed(base: StableDiffusion) -> StableDiffusion:
    """The same with its attention's keys and values moved."""
    model = base.copy()
    with torch.no_grad():
        for name, value in model.unet.named_parameters():
            if "attn2.to_k" in name or "attn2.to_v" in name:
                value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(3)))
    return model


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_weights_move_by_the_share(base: StableDiffusion, changed: StableDiffusion, share: float) -> None:
    """What differs from the base lies so much nearer to it; the input and everything else stay."""
    before = {name: value.clone() for name, value in tensors(changed).items()}
    run = Run(base=base, base_digest="b", parent_digest="p")
    found, original = tensors(Planted(share=share).apply(changed, run)), tensors(base)
    for name, value in before.items():
        assert torch.equal(tensors(changed)[name], value)
        wanted = value + share * (original[name] - value)
        assert torch.allclose(found[name], wanted, atol=1e-6)
        if torch.equal(value, original[name]) or share == 1:
            assert torch.equal(found[name], original[name])
    assert any(not torch.equal(found[name], value) for name, value in before.items())


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    """Nothing planted, or more than all of it."""
    with pytest.raises(SpecError, match="cannot be planted"):
        Planted(share=share)


def test_nothing_planted_is_the_cell_itself() -> None:
    """At 0 no step is added; above it one, after the fine-tuning, and the unlearned model stays."""
    cell = Cell(task="celebrity", method="uce", count=1, finetuning="lora")
    plan = plan_cell(cell, Base(digest="0" * 64, name="micro"), task=CELEBRITY, selection=Selection())
    assert planted(plan, 0.0) is plan
    moved = planted(plan, 0.25)
    assert moved.tuned.steps == (*plan.tuned.steps, Planted(share=0.25))
    assert moved.arms["before"] == plan.arms["before"]
