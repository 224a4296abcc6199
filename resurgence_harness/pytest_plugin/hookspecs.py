"""Hooks that a suite's conftest.py may implement to add its own tasks and judges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from resurgence_harness.tasks import Task


@pytest.hookspec
def pytest_resurgence_tasks() -> Sequence[Task]:  # type: ignore[empty-body]
    """Return further tasks; tests name them with @pytest.mark.resurgence(task="…"). They may replace the package's."""


@pytest.hookspec
def pytest_resurgence_judges() -> Sequence[Any]:  # type: ignore[empty-body]
    """Return further judges (resurgence_harness.judging.contract); a task names them in its `judges`."""
