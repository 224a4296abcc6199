"""What every claim does with its verdict: tell it to the reports, and pass or fail by it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from resurgence_harness.errors import Undecided, Violated
from resurgence_harness.pytest_plugin.properties import CELL_PROPERTY, KNOWN_PROPERTY, numbered

if TYPE_CHECKING:
    from resurgence_harness.statistics import Verdict


def tell(item: pytest.Item, record: Mapping[str, Any], verdict: Verdict) -> bool:
    """Put a cell's record into its test's properties, for controller and JUnit; whether Allure wants its page, too."""
    item.user_properties.append((CELL_PROPERTY, json.dumps(record, allow_nan=False)))
    item.user_properties += numbered(record)
    if verdict.kind == "KNOWN":
        item.user_properties.append((KNOWN_PROPERTY, verdict.sentence))
    return item.config.pluginmanager.has_plugin("allure_listener")


def passed(verdict: Verdict) -> Verdict:
    """The verdict if it is HOLDS or KNOWN; raise Violated or Undecided, with its arithmetic, if it is not."""
    __tracebackhide__ = True
    if verdict.kind == "VIOLATED":
        raise Violated(str(verdict))
    if verdict.kind == "UNDECIDED":
        raise Undecided(str(verdict))
    return verdict
