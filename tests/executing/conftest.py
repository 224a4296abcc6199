"""A user's folder with a very small base, a suite, and `resurgence build` in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.plugin.conftest import Folder, Ran, folder, gallery, shared_store, suite, tiny_base
from tests.plugin.gallery import SEEDS

__all__ = ["build", "folder", "gallery", "own_store", "shared_store", "suite", "tiny_base"]

TIMES = re.compile(r"^(seconds|started|finished|minutes|python|platform|machine|host|workers|command|.*_seconds)$")
"""Names in verdict.json of times, hosts, and how the run was started."""

Build = Callable[..., Ran]


@pytest.fixture
def own_store(suite: Folder, tmp_path: Path) -> Folder:
    """The suite with a store that nothing else uses."""
    suite.store = tmp_path / "store"
    return suite


@pytest.fixture
def build() -> Build:
    """build(folder, "--shard", "1/2") runs `resurgence build` in a process of its own."""

    def build(folder: Folder, *arguments: str, store: Path | None = None, **environment: str) -> Ran:
        own = [f"--resurgence-base={folder.base}", f"--resurgence-store={store or folder.store}"]
        own += [f"--resurgence-seeds={SEEDS}", *(f"--resurgence-set={setting}" for setting in folder.settings)]
        program = [folder.command()[0], "-m", "resurgence_harness.cli", "build"]
        done = subprocess.run(
            [*program, *arguments, ".", *own],
            cwd=folder.path,
            env={**folder.env(), **environment},
            capture_output=True,
            text=True,
            timeout=600,
        )
        return Ran(done.returncode, done.stdout, done.stderr, folder.path)

    return build


def without_times(value: Any) -> Any:
    """verdict.json without times and hosts."""
    if isinstance(value, dict):
        return {name: without_times(one) for name, one in value.items() if not TIMES.match(name)}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def canonical(ran: Ran) -> str:
    """verdict.json of a run as text, without times and hosts."""
    return json.dumps(without_times(ran.verdicts), sort_keys=True, indent=1).replace(str(ran.folder), "HERE")


def made(store: Path) -> dict[str, str]:
    """Key → label of every artifact of a store."""
    found = {}
    for manifest in sorted(store.glob("??/*/manifest.json")):
        read = json.loads(manifest.read_text(encoding="utf-8"))
        found[manifest.parent.name] = f"{read['kind']}: {read['words']}"
    return found


def leftovers(store: Path) -> list[str]:
    """Folders of builds that did not end."""
    return os.listdir(store / "tmp") if (store / "tmp").is_dir() else []
