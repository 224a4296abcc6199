"""A very small base, its unlearned model and candidates as files, and the real command line in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from resurgence_harness import cli
from resurgence_harness.presets import parse_change
from resurgence_harness.registry import Origin, registered_by_suite, temporary
from resurgence_harness.registry.tables import OfSuite
from resurgence_harness.selection import Selection, plan_cell, resolve_base
from resurgence_harness.specs import Cell
from resurgence_harness.tasks import Task
from tests.gate import microworld
from tests.plugin.conftest import drawn_once
from tests.plugin.gallery import SEEDS, SETTINGS, TINY, GalleryJudge
from tests.shared import made_once
from tests.tiny import save_tiny_stable_diffusion

POLICY = f"""\
version: 1
task: tiny
concepts: {{erased: [cleo marsh, finn marsh]}}
seeds: {SEEDS}
limits: {{level: 0.3, delta: 0.3, delta_u: 0.3, incidental: 0.3}}
sampler: {{steps: 2, guidance: 7.5, batch: 32}}
"""
"""Limits so wide that a clear answer takes few images; a test that is about limits writes its own."""


CANDIDATES = ("unlearned", "passing", "regressing", "collapsed", "stranger")
"""What the U-Net files are."""


class Tiny(NamedTuple):
    """Files that a person would have."""

    base: Path
    gallery: Path
    files: dict[str, Path]
    """U-Net files by the names in CANDIDATES."""
    store: Path


class Said(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """UCE on two names, and what became of it: nearly nothing, nearly the base, noise, and another model."""
    drawn = drawn_once(tmp_path_factory)
    made = made_once(tmp_path_factory, "tiny", lambda folder: save_candidates(folder, drawn))
    files = {name: made / f"{name}.safetensors" for name in CANDIDATES}
    return Tiny(drawn / "base", drawn / "gallery.npz", files, made / "store")


def save_candidates(folder: Path, drawn: Path) -> None:
    """Write the U-Nets of CANDIDATES, for the base in the folder `drawn`."""
    import torch
    from safetensors.torch import save_file

    from resurgence_harness.bench import Bench
    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.storing import Store

    selection = Selection(changed=tuple(map(parse_change, SETTINGS)))
    cell = Cell(task="tiny", method="uce", count=2, finetuning="lora")
    plan = plan_cell(cell, resolve_base(str(drawn / "base")), task=TINY, selection=selection)
    bench = Bench(Store(folder / "store"))

    def unet(model: StableDiffusion) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in model.unet.state_dict().items()}

    first, unlearned = unet(bench.model(plan.base)), unet(bench.model(plan.unlearned))
    noise = torch.Generator().manual_seed(0)
    made = {
        "unlearned": unlearned,
        "passing": {name: torch.lerp(value, first[name], 0.02) for name, value in unlearned.items()},
        "regressing": {name: torch.lerp(value, first[name], 0.95) for name, value in unlearned.items()},
        "collapsed": {
            name: value + 0.5 * value.std() * torch.randn(value.shape, generator=noise) if value.ndim > 1 else value
            for name, value in unlearned.items()
        },
        "stranger": unet(StableDiffusion.load(save_tiny_stable_diffusion(folder / "other", seed=1))),
    }
    for name in CANDIDATES:
        save_file(made[name], folder / f"{name}.safetensors")


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory) -> microworld.Micro:
    """Candidates of every format on the embedded microworld."""
    return microworld.files_in(made_once(tmp_path_factory, "micro", microworld.make))


@pytest.fixture
def known(tiny: Tiny) -> Iterator[Tiny]:
    """The tiny task and its judge are registered in this process."""
    with temporary():
        registered_by_suite(own(GalleryJudge(str(tiny.gallery)), TINY))
        yield tiny


def own(judge: GalleryJudge, task: Task) -> list[OfSuite]:
    """A judge and a task as a conftest.py returns them."""
    origin = Origin.of_conftest("conftest.py")
    return [OfSuite("judge", judge, origin, Path(__file__)), OfSuite("task", task, origin, Path(__file__))]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with no CI around it."""
    for name in ("CI", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "RESURGENCE_STORE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def resurgence(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """The `resurgence` command in this process."""

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["resurgence", *map(str, arguments)])
        code: object = 0
        try:
            cli.main()
        except SystemExit as left:
            code = left.code
        said = capsys.readouterr()
        return Said(int(str(code or 0)), said.out, said.err)

    return run
