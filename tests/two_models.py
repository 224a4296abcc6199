"""The tiny Stable Diffusions of these tests: in the style of SD v1.4, of v2.1, and of XL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from resurgence_harness.diffusion.model import StableDiffusion
from tests.tiny import save_tiny_stable_diffusion, save_tiny_stable_diffusion_xl


@pytest.fixture(scope="session")
def v1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory: noise prediction, padded with the end token."""
    return save_tiny_stable_diffusion(tmp_path_factory.mktemp("v1"))


@pytest.fixture(scope="session")
def v2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory: velocity prediction, padded with "!", wider text states."""
    return save_tiny_stable_diffusion(
        tmp_path_factory.mktemp("v2"), prediction_type="v_prediction", pad_token="!", text_width=48
    )


@pytest.fixture(scope="session")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory: two text encoders, pooled text and sizes, several transformer layers per block."""
    return save_tiny_stable_diffusion_xl(tmp_path_factory.mktemp("xl"))


@pytest.fixture(scope="session")
def load(v1: Path, v2: Path, xl: Path) -> Callable[[str], StableDiffusion]:
    """load("v1"), load("v2") or load("xl"); each is read once, for no test may change it."""
    models: dict[str, StableDiffusion] = {}

    def read(word: str) -> StableDiffusion:
        if word not in models:
            models[word] = StableDiffusion.load({"v1": v1, "v2": v2, "xl": xl}[word])
        return models[word]

    return read


@pytest.fixture
def model(load: Callable[[str], StableDiffusion]) -> StableDiffusion:
    """The v1 style model."""
    return load("v1")
