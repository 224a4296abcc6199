"""float16 in a suite: one batch for every process, and arms that were computed in two ways are drawn again."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from resurgence_harness.storing import Store
from tests.plugin.conftest import Folder, conftest_for

pytestmark = pytest.mark.slow

ARGUMENTS = ("--resurgence-methods=uce", "--resurgence-seeds=4", "--resurgence-engine=fixed")
BY_TRITON = """

from resurgence_harness.bench import bench

bench.arithmetic_of = lambda model, sampler: {"arithmetic": "float16", "computed by": "triton 3.6.0"}
"""
"""Stands for a GPU with Triton: its images differ from plain modules' by rounding at most."""
OF_WORKERS = """

import os

from resurgence_harness.presets import batches

if "PYTEST_XDIST_WORKER" in os.environ:
    batches.ON_CPU = 1
"""
"""Workers that would resolve `auto` to another number than the controller."""


@pytest.fixture
def half(suite: Folder, tmp_path: Path) -> Folder:
    """The tiny suite in float16, on a store of its own."""
    own = tuple(one for one in suite.settings if not one.startswith("sampler.batch"))
    return replace(suite, store=tmp_path / "own store", settings=(*own, "sampler.arithmetic=float16"))


def computed_by(folder: Folder) -> set[str]:
    """What computed the judged images and, as they say, the judgments; not the training images, which nothing pairs."""
    entries = {one.key: one for one in Store(folder.store).ls()}
    judgments = [one for one in entries.values() if one.kind == "judgments"]
    images = [entries[key] for one in judgments for key in one.inputs if entries[key].kind == "images"]
    assert judgments and images
    return {str(one.facts.get("computed by")) for one in (*judgments, *images)}


def test_workers_take_the_controllers_batch_and_two_ways_are_never_paired(half: Folder, gallery: Path) -> None:
    """The number is printed, recorded and the workers'. A mixed store is drawn again and gives the same verdict."""
    plain = conftest_for(gallery)
    half.write("conftest.py", plain)
    with (half.path / "conftest.py").open("a") as file:
        file.write(BY_TRITON + OF_WORKERS)
    first = half.run("-n", "2", "--resurgence-set=sampler.batch=auto", *settings(half), *ARGUMENTS)
    assert first.verdicts["cells"], first.output + first.errors
    assert "sampler.batch=auto is 4 on this machine" in first.output
    assert "Images are drawn in float16 on a CPU, several times slower than in float32" in first.output
    assert first.verdicts["selection"]["changed"]["sampler.batch"] == 4
    assert computed_by(half) == {"triton 3.6.0"}

    half.write("conftest.py", plain)  # now a machine without Triton, on which a part of the store is missing
    for entry in Store(half.store).ls():
        if entry.kind in ("images", "judgments") and "lora" in entry.label:
            shutil.rmtree(entry.path)
    second = half.run("-n", "0", "--resurgence-set=sampler.batch=4", *settings(half), *ARGUMENTS)
    assert second.code == first.code, second.output + second.errors
    (before,), (after,) = first.verdicts["cells"], second.verdicts["cells"]
    assert (before["verdict"], before["reason"]) == (after["verdict"], after["reason"])
    assert [text.rpartition(", ")[2] for text in after["drawn_with"]] == ["float16 by plain modules"]
    assert computed_by(half) == {"plain modules"}  # of the controller's own batch, so the same keys


def settings(folder: Folder) -> list[str]:
    """The folder's settings, which a --resurgence-set on the command line would replace."""
    return [f"--resurgence-set={one}" for one in folder.settings]
