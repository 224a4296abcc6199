"""The model on which the authors' code was run."""

from __future__ import annotations

import pytest

from resurgence_harness.diffusion.model import StableDiffusion
from tests.parity.given import save_parity_base


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusion:
    """It in float32, as the product computes."""
    return StableDiffusion.load(save_parity_base(tmp_path_factory.mktemp("parity") / "base"))
