"""The groups of a release gate's policy as tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from resurgence_harness.errors import UserError
from resurgence_harness.pytest_plugin.state import gating_in

if TYPE_CHECKING:
    from resurgence_harness.gate.release_policy import ConceptGroup, ReleasePolicy

FIXTURE = "gate_claim"
"""The fixture whose tests are the groups of the policy."""


class GroupWord(str):
    """A group's name as a test's parameter."""


def parametrize(metafunc: pytest.Metafunc) -> list[str]:
    """One test per group of the policy; returns the mistakes in the policy, if any."""
    if FIXTURE not in metafunc.fixturenames:
        return []
    mistakes: list[str] = []
    names: dict[str, str] = {}
    try:
        gating = gating_in(metafunc.config)
        names = {group.word: gating.policy.cell(group).id for group in gating.policy.groups}
    except UserError as error:
        mistakes = [str(error)]
    metafunc.parametrize(FIXTURE, [GroupWord(word) for word in names], indirect=True, ids=list(names.values()))
    return mistakes


def planned(item: Any) -> dict[str, Any] | None:
    """A collected group, as plain values that a worker can send; None for any other test."""
    word = word_of(item)
    if word is None:
        return None
    gating = gating_in(item.config)
    return {**group_entry(gating.policy, gating.group(word)), "nodeid": item.nodeid, "folder": str(item.path.parent)}


def group_entry(policy: ReleasePolicy, group: ConceptGroup) -> dict[str, Any]:
    """A group of the policy as a planned cell, before its test is collected."""
    cell = policy.cell(group)
    about = {"key": f"gate {cell.task}/{cell.id}", "id": cell.id, "task": cell.task, "nodeid": f"gate[{cell.id}]"}
    return {**about, "method": cell.method, "concepts": cell.count, "folder": "", "gate": True}


def word_of(item: Any) -> str | None:
    """Name of the group of a test; None for any other test."""
    callspec = getattr(item, "callspec", None)
    word = callspec.params.get(FIXTURE) if callspec is not None else None
    return word if isinstance(word, GroupWord) else None
