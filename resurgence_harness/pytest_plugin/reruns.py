"""Refuses runs that would repeat cells: repeating a cell until it passes is not evidence.

Images are stored, so a rerun judges the same images again; but its report could show "passed" in place of a harness
error that was never examined. Such a run is refused before it begins.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.pytest_plugin.collecting import is_cell

OPTIONS = {
    "reruns": "--reruns",
    "force_reruns": "--force-reruns",
    "force_flaky": "--force-flaky",
    "retries": "--retries",
}
"""Options of pytest-rerunfailures, flaky and pytest-retry that repeat every failed test, by their name in pytest."""
MARKER = "flaky"
"""The marker of all three."""


def refuse(config: pytest.Config) -> None:
    """UserError if options or the ini file would repeat every failed test."""
    found = [option for name, option in OPTIONS.items() if config.getoption(name, None)]
    found += [f"{name} in the ini file" for name in ("reruns", "retries") if _in_file(config, name)]
    if found:
        raise UserError(_message(", ".join(found)))


def mistakes(config: pytest.Config, items: Iterable[pytest.Item]) -> list[str]:
    """Error messages for collected cells that would be repeated; empty if there are none."""
    cells = [item for item in items if is_cell(item)]
    try:
        if cells:
            refuse(config)
    except UserError as error:
        return [str(error)]
    return [_message(f"@pytest.mark.{MARKER} on {item.nodeid}") for item in cells if item.get_closest_marker(MARKER)]


def _message(repeated: str) -> str:
    return sentence(
        "Cells are not run again until they pass.",
        repeated_by=repeated,
        do="Leave it out for suites. Checkpoints and images are in the store: another run continues from there.",
    )


def _in_file(config: pytest.Config, name: str) -> bool:
    """Whether the ini file sets this option."""
    try:
        value = config.getini(name)
    except (ValueError, KeyError):
        return False
    return str(value or "0").strip() not in ("0", "")
