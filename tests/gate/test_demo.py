"""`resurgence gate --demo`: four real candidates, four answers, with limits so wide that they take one or two looks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from resurgence_harness.gate import demo
from resurgence_harness.gate.release_policy import PolicyFile, SamplerEntry
from resurgence_harness.limits.limits_file import PolicyEntry
from resurgence_harness.reporting import verdict_json

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the two demonstrations share."""
    return tmp_path_factory.mktemp("demo")


WIDE = PolicyEntry(level=0.2, delta=0.3, delta_u=0.3, incidental=0.3)


def test_the_demonstration_shows_four_answers(here: Path, store: Path, resurgence: Any, monkeypatch: Any) -> None:
    """As it is, but for wider limits and rougher pictures: exit 0 says that every answer was the expected one."""
    monkeypatch.setattr(demo, "ASKED", PolicyFile(limits=WIDE, sampler=SamplerEntry(steps=5)))

    said = resurgence("gate", "--demo", "--store", store, "--out", "out", "--device", "cpu")

    assert said.code == 0, said.err
    runs = {one.name: verdict_json.read(here / "out" / one.name / "verdict.json") for one in demo.CANDIDATES}
    answers = {name: (run.cells[0].verdict, run.exit_code) for name, run in runs.items()}
    assert answers == {
        "passing": ("HOLDS", 0),
        "regressing": ("VIOLATED", 1),
        "collapsed": ("UNDECIDED", 10),
        "undecided": ("UNDECIDED", 10),
    }
    states = {control["name"]: control["state"] for control in runs["collapsed"].cells[0].controls}
    assert states["utility"] == "failed"
    assert "budget of 275 images is spent" in runs["undecided"].cells[0].reason
    for one in demo.CANDIDATES:
        assert one.why in said.out and (here / "out" / one.name / "contact-sheet-erased.jpg").is_file()


def test_a_demonstration_that_goes_wrong_says_so(here: Path, store: Path, resurgence: Any, monkeypatch: Any) -> None:
    """An unexpected answer is exit 12, never a picture of a working gate."""
    monkeypatch.setattr(demo, "ASKED", PolicyFile(limits=WIDE, sampler=SamplerEntry(steps=5)))
    collapsed = next(one for one in demo.CANDIDATES if one.name == "collapsed")
    monkeypatch.setattr(demo, "CANDIDATES", (replace(collapsed, expected="HOLDS", budget=1),))

    said = resurgence("gate", "--demo", "--store", store, "--out", "out", "--device", "cpu")

    assert said.code == 12
    assert "collapsed: expected HOLDS, got UNDECIDED" in said.err
