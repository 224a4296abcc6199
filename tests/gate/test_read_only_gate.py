"""A gate on a store that cannot be written: warm it answers as ever, cold it says so and never passes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from resurgence_harness.reporting import verdict_json
from tests.gate.conftest import POLICY, Said, Tiny

pytestmark = pytest.mark.slow


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """A folder that nobody can write, as a read-only mount in a container."""
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("this process may not mount anything")
    bind = ["mount", "--bind", str(folder), str(folder)]
    if subprocess.run(bind, capture_output=True).returncode:
        pytest.skip("this process may not mount anything")
    try:
        if subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], capture_output=True).returncode:
            pytest.skip("this process may not remount anything")
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_warm_gate_runs_on_a_read_only_store(known: Tiny, here: Path, resurgence: Callable[..., Said]) -> None:
    """The same verdict; other prompts end with 12 and another candidate with 4, before anything is drawn."""
    (here / "policy.yaml").write_text(POLICY, encoding="utf-8")

    def gate(candidate: str) -> Said:
        models: list[Any] = ["--candidate", known.files[candidate], "--unlearned", known.files["unlearned"]]
        models += ["--base", known.base, "--store", here / "store", "--out", "out"]
        return resurgence("gate", "--policy", "policy.yaml", *models)

    assert gate("regressing").code == 1
    first = verdict_json.read(here / "out/verdict.json").cells[0]
    with unwritable(here / "store"):
        assert gate("regressing").code == 1
        again = verdict_json.read(here / "out/verdict.json").cells[0]
        assert (again.verdict, again.after) == (first.verdict, first.after)

        said = gate("passing")
        assert said.code == 4 and "Traceback" not in said.err, said.err

        (here / "policy.yaml").write_text(POLICY.replace("guidance: 7.5", "guidance: 7.0"), encoding="utf-8")
        said = gate("regressing")
        assert said.code == 12 and "is read-only" in said.out + said.err, said.out + said.err
        assert verdict_json.read(here / "out/verdict.json").cells == []
