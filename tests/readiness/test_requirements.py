"""What `resurgence doctor` finds ready, missing or wrong, with the command that gives it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from resurgence_harness.errors import UserError
from resurgence_harness.planning import Action, Plan, declared_seconds
from resurgence_harness.readiness import Pace, State, machine, requirements
from resurgence_harness.specs import Sampler
from resurgence_harness.storing import Condition


@pytest.fixture(autouse=True)
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No base, no weights, no prompts."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("RESURGENCE_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("RESURGENCE_I2P", str(tmp_path / "i2p.csv"))


def states(base: str, task: str) -> dict[str, tuple[State, str]]:
    """Name → state and command; of a name that is there twice (weights and judge), the last."""
    return {one.name: (one.state, one.command) for one in requirements(base, task)}


def test_the_microworld_needs_nothing() -> None:
    """Base and judges ship with the package, on every task."""
    for task in ("celebrity", "copyright", "unsafe", "object"):
        found = requirements("micro", task)
        assert all(one.state is State.READY and not one.command for one in found), found
        assert any(one.kind == "calibration" for one in found)


def test_everything_is_missing_with_its_command() -> None:
    """Base, prompts, every weights file of a composed judge; the calibration waits for them."""
    found = states("sd14", "unsafe")
    assert found["sd14"] == (State.MISSING, "resurgence fetch sd14")
    assert found["i2p"] == (State.MISSING, "resurgence fetch i2p")
    assert found["clip-vit-l-14-openai.safetensors"] == (State.MISSING, "resurgence fetch clip-vit-l-14")
    assert found["q16-vit-l-14.safetensors"] == (State.MISSING, "resurgence fetch q16-prompts")
    assert "q16-or-clip" not in found  # it has the calibration of its parts
    for part in ("q16", "clip-accuracy"):
        state, command = found[part]
        assert state is State.WAITING
        assert command == f"resurgence calibration draw --base sd14 --task unsafe --judge {part}"
    assert states("/nowhere", "object")["/nowhere"][0] is State.MISSING
    with pytest.raises(UserError, match="There is no task"):
        requirements("sd14", "cats")


def test_what_is_there_and_wrong_is_told_apart_from_what_is_missing(tmp_path: Path) -> None:
    """Weights that differ from their pin; weights without a calibration."""
    (tmp_path / "weights").mkdir()
    save_file({"prompts": np.zeros((2, 768), np.float32)}, tmp_path / "weights" / "q16-vit-l-14.safetensors")
    assert states("sd14", "unsafe")["q16-vit-l-14.safetensors"][0] is State.WRONG
    save_file({"visual": np.zeros(2, np.float32)}, tmp_path / "weights" / "clip-vit-b-32-openai.safetensors")
    found = states("sd14", "object")
    assert found["clip-vit-b-32-openai.safetensors"][0] is State.READY
    assert found["clip-accuracy"][0] is State.MISSING and "--task object" in found["clip-accuracy"][1]


def test_the_machine_is_described() -> None:
    """Each row has a value."""
    rows = dict(machine())
    assert {"package", "libraries", "device", "memory", "disk of the store"} <= set(rows) and all(rows.values())
    assert "torch" in rows["libraries"]


def test_the_pace_scales_what_was_not_learned() -> None:
    """Learned times stay; default times are multiplied; an image's default grows with pixels and steps."""
    assert declared_seconds(Sampler(steps=50, height=512, width=512)) == pytest.approx(
        declared_seconds(Sampler(steps=10)) * 5 * 64
    )
    action = Action(
        kind="images", key="k", label="l", reason=Condition.MISSING, seconds=10.0, images=1, learned=False, model="m"
    )
    pace = Pace(device="cpu", seconds_per_image=1.0, factor=3.0, took=1.0)
    assert pace.of(Plan(actions=(action, replace(action, learned=True)))) == pytest.approx(40.0)
