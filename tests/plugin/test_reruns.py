"""A cell is not run again until it passes: such a run is refused, with and without workers, and builds nothing."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Folder
from tests.plugin.test_mistakes import refused

pytestmark = pytest.mark.slow

OPTION = """

def pytest_addoption(parser):
    parser.addoption("--reruns", type=int, dest="reruns")
"""
"""As pytest-rerunfailures has it; with that plugin installed, its own is tried."""


@pytest.fixture
def repeatable(suite: Folder, request: pytest.FixtureRequest) -> Folder:
    """A suite in an environment that can repeat tests."""
    if not request.config.pluginmanager.has_plugin("rerunfailures"):
        suite.write("repeating.py", OPTION)
    return suite


def arguments(folder: Folder) -> tuple[str, ...]:
    """Load the stand-in, if there is one."""
    return ("-p", "repeating") if (folder.path / "repeating.py").is_file() else ()


@pytest.mark.parametrize("workers", ["0", "2"])
def test_reruns_are_refused(repeatable: Folder, workers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """--reruns 3 with cells is a mistake, told in a sentence."""
    repeatable.environment["PYTHONPATH"] = f"{repeatable.path}:{repeatable.env()['PYTHONPATH']}"
    said = refused(repeatable, *arguments(repeatable), "-n", workers, "--reruns=3")
    assert said == "Cells are not run again until they pass."


def test_a_flaky_cell_is_refused(suite: Folder) -> None:
    """The marker of the same plugins; no result and no verdict is left."""
    text = (suite.path / "test_tiny.py").read_text(encoding="utf-8")
    suite.write("test_tiny.py", text.replace("def test_stays", "@pytest.mark.flaky(reruns=3)\ndef test_stays"))
    ran = suite.run("-n", "0")
    assert ran.code == 4 and "ERROR: Cells are not run again until they pass." in ran.output + ran.errors
    assert not [path for path in suite.path.glob("reports/**/*") if path.is_file()]


def test_tests_without_cells_may_be_repeated(repeatable: Folder) -> None:
    """Other people's tests are none of our business."""
    repeatable.environment["PYTHONPATH"] = f"{repeatable.path}:{repeatable.env()['PYTHONPATH']}"
    (repeatable.path / "test_tiny.py").unlink()
    repeatable.write("test_plain.py", "def test_plain(): pass")
    assert repeatable.run(*arguments(repeatable), "--reruns=3").code == 0
