"""Removes the Allure results of an earlier run before any test of this run starts.

It does not import allure: a release gate removes old results as well.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = "allure-results"
"""Folder below --resurgence-out for a pytest run's Allure results, unless --alluredir names another."""
OURS = (
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
"""Patterns of the file names of one run."""


def clean(directory: Path) -> None:
    """Remove an earlier run's results; other files and folders stay."""
    for pattern in OURS:
        for path in directory.glob(pattern):
            path.unlink(missing_ok=True)
