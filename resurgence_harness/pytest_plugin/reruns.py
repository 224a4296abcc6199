"""A verdict is asked for once: repeating a cell until it passes is not evidence.

What was drawn is stored, so a rerun sees the same images again; but its report could show "passed" where a harness
error stood that nobody looked at. So a run that would repeat cells is refused before it begins.
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
    """UserError where options or the ini file would repeat every failed test."""
    asked = [option for name, option in OPTIONS.items() if config.getoption(name, None)]
    asked += [f"{name} in the ini file" for name in ("reruns", "retries") if _in_file(config, name)]
    if asked:
        raise UserError(_message(", ".join(asked)))


def mistakes(config: pytest.Config, items: Iterable[pytest.Item]) -> list[str]:
    """What is wrong with collected cells that would be repeated, in a sentence; nothing where none would."""
    cells = [item for item in items if is_cell(item)]
    try:
        if cells:
            refuse(config)
    except UserError as error:
        return [str(error)]
    return [_message(f"@pytest.mark.{MARKER} on {item.nodeid}") for item in cells if item.get_closest_marker(MARKER)]


def _message(asked: str) -> str:
    return sentence(
        "Cells are not run again until they pass.",
        asked=asked,
        do="Leave it out for suites. What was built and drawn is in the store: another run goes on from there.",
    )


def _in_file(config: pytest.Config, name: str) -> bool:
    """Whether an ini file that knows this word sets it."""
    try:
        value = config.getini(name)
    except (ValueError, KeyError):
        return False
    return str(value or "0").strip() not in ("0", "")
