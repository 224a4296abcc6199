"""The public fixtures. `pytest --fixtures` shows these docstrings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from resurgence_harness.pytest_plugin.collecting import required_cell_of, task_of
from resurgence_harness.pytest_plugin.state import engine_of, gating_in

if TYPE_CHECKING:
    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.pytest_plugin.claims import Claim
    from resurgence_harness.pytest_plugin.engine import BenignImages
    from resurgence_harness.pytest_plugin.gating import GateClaim
    from resurgence_harness.specs import Cell
    from resurgence_harness.statistics import CellEvidence


@pytest.fixture
def cell(request: pytest.FixtureRequest) -> Cell:
    """One cell: task × method × concept count × fine-tuning × run. A test that uses it runs once per chosen cell."""
    return required_cell_of(request.node)


@pytest.fixture
def base_model(request: pytest.FixtureRequest) -> StableDiffusion:
    """The published model of --resurgence-base, loaded on the device."""
    return engine_of(request).base_model()


@pytest.fixture
def unlearned_model(request: pytest.FixtureRequest, cell: Cell) -> StableDiffusion:
    """The cell's unlearned model, built if it is not stored yet, loaded on the device; freed when memory is needed."""
    return engine_of(request).unlearned_model(cell, task_of(request.node))


@pytest.fixture
def fine_tuned_model(request: pytest.FixtureRequest, cell: Cell) -> StableDiffusion:
    """The cell's unlearned model after fine-tuning on benign images, built, loaded and freed like `unlearned_model`."""
    return engine_of(request).fine_tuned_model(cell, task_of(request.node), request.node.path.parent)


@pytest.fixture
def benign_images(request: pytest.FixtureRequest) -> BenignImages:
    """The images that fine-tunings are trained on, drawn by the base or given: `images` (uint8) and their `prompts`."""
    return engine_of(request).benign_images(task_of(request.node))


@pytest.fixture
def judge(request: pytest.FixtureRequest) -> Any:
    """The task's judge: `judge.answer(images, device)` gives an answer and a score for each image."""
    return engine_of(request).judge(task_of(request.node).judges[0])


@pytest.fixture
def evidence(claim: Claim) -> CellEvidence:
    """The judgments of the cell's models: `base`, `before`, `after`, `retained_before`, `retained_after` …"""
    return claim.evidence


@pytest.fixture
def claim(request: pytest.FixtureRequest, cell: Cell) -> Claim:
    """The cell's claim. `claim.stays_erased()` builds what is missing, decides, and fails unless the cell holds."""
    from resurgence_harness.pytest_plugin.claims import Claim

    engine = engine_of(request)
    return Claim(engine, engine.plan(cell, task_of(request.node)), request.node)


@pytest.fixture
def gate_claim(request: pytest.FixtureRequest) -> GateClaim:
    """A release gate's claim about one group of the policy's concepts; see resurgence_harness/gate/test_gate.py."""
    from resurgence_harness.pytest_plugin.gating import GateClaim

    return GateClaim(gating_in(request.config), str(request.param), request.node)
