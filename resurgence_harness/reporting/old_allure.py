"""What an earlier run left in a folder of Allure results, removed before any test of this one runs.

Without allure itself: a release gate removes old results, too.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = "allure-results"
"""Below --resurgence-out: a pytest run's Allure results, unless --alluredir names another folder."""
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
"""Names of the files of one run."""


def clean(directory: Path) -> None:
    """Remove an earlier run's results; other files and folders stay."""
    for pattern in OURS:
        for path in directory.glob(pattern):
            path.unlink(missing_ok=True)
