"""Allure results of an earlier run: removed by the gate and the plugin, neither of which needs Allure for that."""

from __future__ import annotations

from pathlib import Path

_OURS = (
    "*-result.json",
    "*-container.json",
    "*-attachment*",
    "*-globals.json",
    "*-check.json",
    "*-perf.json",
    "environment.properties",
    "executor.json",
    "categories.json",
)


def clean(directory: Path) -> None:
    """Remove an earlier run's results; other files and folders stay. For the controller, before any test runs."""
    for pattern in _OURS:
        for path in directory.glob(pattern):
            path.unlink(missing_ok=True)
