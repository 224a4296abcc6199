"""A user's empty folder, a very small base, and a runner of pytest in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.plugin.gallery import SEEDS, SETTINGS, draw_gallery
from tests.shared import made_once
from tests.tiny import save_tiny_stable_diffusion
from tests.warm_python import python

ROOT = Path(__file__).parents[2]
INSTALLED = any(point.name == "resurgence" for point in entry_points(group="pytest11"))
WIDE = "policy: {level: 0.3, delta: 0.3, delta_u: 0.3, incidental: 0.3}\n"
"""Limits so wide that a clear answer takes few images; a test that is about limits writes its own."""
STRANGERS = ("cacheprovider", "hypothesispytest", "benchmark", "anyio")
"""Plugins that have nothing to do with ours and take a second to load."""
SUITE = """
    import pytest

    pytestmark = pytest.mark.resurgence(task="tiny")


    def test_stays_erased(claim):
        claim.stays_erased()
"""


@dataclass
class Ran:
    """What a run of pytest left."""

    code: int
    output: str
    errors: str
    folder: Path

    @property
    def verdicts(self) -> dict[str, Any]:
        """verdict.json."""
        found: dict[str, Any] = json.loads((self.folder / "reports/out/verdict.json").read_text(encoding="utf-8"))
        return found

    @property
    def results(self) -> list[dict[str, Any]]:
        """Allure's results."""
        files = sorted((self.folder / "reports/out/allure-results").glob("*-result.json"))
        return [json.loads(file.read_text(encoding="utf-8")) for file in files]


@dataclass
class Folder:
    """A user's folder, and how pytest is started in it."""

    path: Path
    base: Path
    store: Path
    settings: tuple[str, ...] = SETTINGS
    environment: dict[str, str] = field(default_factory=dict)
    cold: bool = False
    """Start Python itself: for what a process imports, and for signals."""

    def write(self, name: str, text: str) -> Path:
        """Write a file."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text).lstrip("\n"), encoding="utf-8")
        return file

    def command(self, *arguments: str) -> list[str]:
        """pytest with this folder's base, store and presets."""
        started = {name for name in self.environment if name.startswith("PYTHON")} - {"PYTHONPATH"}
        program = sys.executable if self.cold or started else python()
        plugin = [] if INSTALLED else ["-p", "resurgence_harness.pytest_plugin"]
        own = [f"--resurgence-base={self.base}", f"--resurgence-store={self.store}", f"--resurgence-seeds={SEEDS}"]
        own += [f"--resurgence-set={setting}" for setting in self.settings]
        given = {argument.split("=")[0] for argument in arguments}
        kept = [word for word in own if word.split("=")[0] not in given]
        off = [part for name in STRANGERS for part in ("-p", f"no:{name}")]
        return [program, "-m", "pytest", *off, *plugin, *kept, *arguments]

    def env(self) -> dict[str, str]:
        """The environment of a run, without choices of the run that tests it."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RESURGENCE", "PYTEST"))}
        return {**inherited, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **self.environment}

    def run(self, *arguments: str, timeout: float = 900) -> Ran:
        """Run pytest here."""
        done = subprocess.run(
            self.command(*arguments), cwd=self.path, env=self.env(), capture_output=True, text=True, timeout=timeout
        )
        return Ran(done.returncode, done.stdout, done.stderr, self.path)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion of random weights, on disk."""
    return drawn_once(tmp_path_factory) / "base"


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that this base draws, for the judge to know."""
    return drawn_once(tmp_path_factory) / "gallery.npz"


def drawn_once(factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny base and its gallery."""

    def make(folder: Path) -> None:
        draw_gallery(save_tiny_stable_diffusion(folder / "base"), folder / "gallery.npz")

    return made_once(factory, "drawn", make)


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all tests of a worker, some of which look at what a run has added to it."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def folder(tmp_path: Path, tiny_base: Path, shared_store: Path) -> Folder:
    """An empty folder that can be run in; for runs that build nothing."""
    made = tmp_path / "user"
    made.mkdir()
    # Two methods are enough to try the instrument with.
    (made / "pytest.ini").write_text("[pytest]\nresurgence_methods = uce,esd\n", encoding="utf-8")
    return Folder(made, tiny_base, shared_store)


@pytest.fixture
def suite(folder: Folder, gallery: Path) -> Folder:
    """A folder with the tiny task, its judge, and one suite."""
    folder.write("conftest.py", conftest_for(gallery))
    folder.write("test_tiny.py", SUITE)
    folder.write("limits.yaml", WIDE)
    return folder


def conftest_for(gallery: Path) -> str:
    """A user's conftest.py with a task and a judge."""
    return f"""
        from tests.plugin.gallery import TINY, GalleryJudge


        def pytest_resurgence_tasks():
            return [TINY]


        def pytest_resurgence_judges():
            return [GalleryJudge({str(gallery)!r})]
    """


Runner = Callable[..., Ran]
