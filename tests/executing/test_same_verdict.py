"""One plan, built by one process, by xdist, by shards, by processes and by Ray: the same verdict.json."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.executing.conftest import Build, canonical, leftovers, made
from tests.plugin.conftest import Folder

pytestmark = pytest.mark.slow

CELLS = ("--resurgence-methods=uce", "--resurgence-counts=1,2")
"""Two unlearned models, so two lineages."""


def by_xdist(folder: Folder, build: Build) -> None:
    """Two workers of pytest."""
    assert folder.run(*CELLS, "-n", "2").code == 0


def by_shards(folder: Folder, build: Build) -> None:
    """One after the other; between them the suite says what is missing, and builds nothing."""
    first = build(folder, "--shard", "2/2", *CELLS)
    assert first.code == 0 and first.output.startswith("Shard 2/2: 1 of 2 cells.\n"), first.errors
    there = made(folder.store)
    halfway = folder.run(*CELLS, "-n", "0", "--resurgence-no-build")
    (missing,) = halfway.verdicts["missing"]
    assert (halfway.code, halfway.verdicts["status"]) == (11, "incomplete"), halfway.output
    assert missing["why"].startswith("Not built: the store lacks 2 checkpoints, "), missing
    assert made(folder.store) == there
    assert build(folder, "--shard", "1/2", *CELLS).code == 0


def by_processes(folder: Folder, build: Build) -> None:
    """Two processes with a schedule."""
    ran = build(folder, "--workers", "2", *CELLS)
    assert ran.code == 0 and "artifacts built on 2 processes." in ran.output, ran.errors


def by_ray(folder: Folder, build: Build) -> None:
    """Two actors; a second build has nothing to do and starts no Ray."""
    ran = build(folder, "--engine", "ray", "--workers", "2", *CELLS)
    assert ran.code == 0 and "artifacts built on Ray on 1 node." in ran.output, ran.errors
    again = build(folder, "--engine", "ray", "--address", "127.0.0.1:1", *CELLS)
    assert again.code == 0 and again.output.startswith("Nothing has to be built.\n"), again.errors


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What one process said and made; filled by the first test that needs it."""
    return {}


@pytest.mark.parametrize("way", [by_xdist, by_shards, by_processes, by_ray], ids=lambda way: way.__name__)
def test_the_verdicts_are_byte_identical_up_to_times_and_hosts(
    way: Callable[[Folder, Build], None],
    own_store: Folder,
    build: Build,
    alone: dict[str, object],
    tmp_path: Path,
) -> None:
    """verdict.json, and the artifacts with their digests; nothing half made is left."""
    if not alone:
        kept, own_store.store = own_store.store, tmp_path / "alone"
        ran = own_store.run(*CELLS, "-n", "0")
        assert ran.code == 0, ran.output + ran.errors
        alone |= {"verdict": canonical(ran), "made": made(own_store.store)}
        own_store.store = kept
    way(own_store, build)
    there = made(own_store.store)
    ran = own_store.run(*CELLS, "-n", "0", "--resurgence-no-build")
    assert ran.code == 0, ran.output + ran.errors
    assert canonical(ran) == alone["verdict"]
    assert there == alone["made"] == made(own_store.store)
    assert leftovers(own_store.store) == []
