"""Hooks that a suite's conftest.py may implement to register its own methods, judges and tasks.

What a conftest.py returns may have the name of another one, of this package or an installed one, and replaces it; every
verdict then says so. Packages register theirs by entry points (docs/extending.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from resurgence_harness.tasks import Task


@pytest.hookspec
def pytest_resurgence_unlearnings() -> Sequence[Any]:  # type: ignore[empty-body]
    """Return further unlearning methods: classes derived from Unlearning, or presets.Method for variants."""


@pytest.hookspec
def pytest_resurgence_finetunings() -> Sequence[Any]:  # type: ignore[empty-body]
    """Return further fine-tunings: classes derived from FineTuning."""


@pytest.hookspec
def pytest_resurgence_tasks() -> Sequence[Task]:  # type: ignore[empty-body]
    """Return further tasks; tests name them with @pytest.mark.resurgence(task="…")."""


@pytest.hookspec
def pytest_resurgence_judges() -> Sequence[Any]:  # type: ignore[empty-body]
    """Return further judges (resurgence_harness.judging.contract); a task names them in its `judges`."""
