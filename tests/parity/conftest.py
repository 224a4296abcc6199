"""The model on which the authors' code was run."""

from __future__ import annotations

import pytest
import torch

from resurgence_harness.diffusion.model import StableDiffusion
from tests.parity.given import save_parity_base


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusion:
    """It in float32, as the product computes."""
    return StableDiffusion.load(save_parity_base(tmp_path_factory.mktemp("parity") / "base"))


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """The numbers were recorded on one thread: another order of float32's sums moves a weight over a threshold."""
    torch.set_num_threads(1)
