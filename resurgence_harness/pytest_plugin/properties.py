"""Names of the user properties in which a test sends its results to the controller and to JUnit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CELL_PROPERTY = "resurgence_cell"
"""Carries a cell's record from the worker to the controller."""
HARNESS_PROPERTY, MISTAKE_PROPERTY = "resurgence_harness_error", "resurgence_user_error"
UNBUILT_PROPERTY = "resurgence_not_built"
"""Reasons why a cell has no verdict."""
KNOWN_PROPERTY = "resurgence_known"
"""The message of a KNOWN cell, for Allure's result."""


def numbered(record: Mapping[str, Any]) -> list[tuple[str, object]]:
    """One property per number of a cell, for `--junitxml`."""
    from resurgence_harness.reporting.junit import numbers

    return [(f"resurgence.{name}", value) for name, value in numbers(record)]
