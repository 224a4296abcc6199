"""`resurgence new`: what it writes works as written, and a mistake is a sentence that writes nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from resurgence_harness.cli.starting_files import FILES
from tests.plugin.conftest import INSTALLED, ROOT, Folder
from tests.warm_python import python

pytestmark = pytest.mark.slow
MODULES = {"unlearning": "fade_out", "judge": "grey_level", "task": "two_animals"}
CLASSES = {"unlearning": "FadeOut", "judge": "GreyLevel", "task": "TWO_ANIMALS"}
SUITE = """
    import pytest

    pytestmark = pytest.mark.resurgence(task="two-animals")


    def test_stays_erased(claim):
        claim.stays_erased()
"""


class Ended(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


def run(here: Path, *arguments: str) -> Ended:
    """A module of Python in a folder."""
    ran = subprocess.run(
        [python(), "-m", *arguments],
        cwd=here,
        env=Folder(here, here, here).env(),
        capture_output=True,
        text=True,
        timeout=900,
    )
    return Ended(ran.returncode, ran.stdout, ran.stderr)


def new(here: Path, *arguments: str) -> Ended:
    """`resurgence new`."""
    return run(here, "resurgence_harness.cli", "new", *arguments)


@pytest.mark.parametrize("kind", FILES)
def test_a_new_file_and_its_test_work_as_written(tmp_path: Path, kind: str) -> None:
    """The test passes, the style is that of this package, and a suite finds it under its name."""
    name, module = MODULES[kind].replace("_", "-"), MODULES[kind]
    made = new(tmp_path, kind, name)
    assert made.code == 0 and made.err == "", made
    assert {file.name for file in tmp_path.iterdir()} == {f"{module}.py", f"test_{module}.py"}
    assert f"def pytest_resurgence_{kind}s():" in made.out and f'"resurgence.{kind}s"' in made.out
    plugin = [] if INSTALLED else ["-p", "resurgence_harness.pytest_plugin"]
    tested = run(tmp_path, "pytest", "-q", "-p", "no:cacheprovider", *plugin, f"test_{module}.py")
    assert tested.code == 0 and "1 passed" in tested.out, tested
    style = ["ruff", "check", "--no-cache", f"--config={ROOT / 'pyproject.toml'}"]
    ignored = ["--ignore=D,I001", "."]  # the names in the files are the user's; their order depends on them
    checked = run(tmp_path, *style, *ignored)
    assert checked.code == 0, checked.out


def test_the_three_together_make_a_suite(tmp_path: Path) -> None:
    """Method and task through the hooks that the command prints: one cell is collected and planned."""
    folder = Folder(tmp_path, tmp_path, tmp_path / "store")
    for kind, module in MODULES.items():
        printed = new(tmp_path, kind, module.replace("_", "-")).out
        lines = printed.partition("conftest.py:\n")[2].partition("\nor in every suite")[0]
        folder.write(f"{module}_hook.py", lines)
    conftest = "".join((tmp_path / f"{module}_hook.py").read_text(encoding="utf-8") for module in MODULES.values())
    folder.write("conftest.py", conftest)
    folder.write("test_suite.py", SUITE)
    only = ["--resurgence-methods=fade-out", "--resurgence-counts=1", f"--resurgence-store={folder.store}"]
    planned = run(tmp_path, "resurgence_harness.cli", "plan", "test_suite.py", *only)
    assert planned.code == 0, planned
    assert "two-animals/fade-out-1-lora" in planned.out and "share 1.0" in planned.out


MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "an unknown kind": (("finetuning", "x"), 'There is no kind "finetuning" to write.'),
    "an empty name": (("judge", ""), '"" cannot be the name of a file and of a node id.'),
    "capitals": (("judge", "Grey"), '"Grey" cannot be the name of a file and of a node id.'),
    "a digit first": (("judge", "3d"), '"3d" cannot be the name of a file and of a node id.'),
    "a path": (("judge", "../grey"), '"../grey" cannot be the name of a file and of a node id.'),
    "an underscore": (("judge", "grey_level"), '"grey_level" cannot be the name of a file and of a node id.'),
    "two hyphens": (("judge", "grey--level"), '"grey--level" cannot be the name of a file and of a node id.'),
    "a keyword": (("judge", "lambda"), '"lambda" cannot be the name of a file and of a node id.'),
    "a line break": (("judge", "grey\n"), '"grey\\n" cannot be the name of a file and of a node id.'),
    "too long": (("judge", "x" * 41), f'"{"x" * 41}" cannot be the name of a file and of a node id.'),
    "an installed module": (("judge", "numpy"), "A Python module called numpy exists already"),
    "a module of Python": (("judge", "json"), "A Python module called json exists already"),
    "the suite's conftest": (("task", "conftest"), "A Python module called conftest exists already"),
    "an existing file": (("judge", "there"), "there.py exists already."),
    "an existing test": (("judge", "tested"), "test_tested.py exists already."),
    "a dangling link": (("judge", "linked"), "linked.py exists already."),
    "a file for a folder": (("judge", "grey", "--into", "there.py"), "there.py cannot be written into."),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_a_sentence_and_writes_nothing(tmp_path: Path, what: str) -> None:
    """Exit code 4, no traceback, and every file as it was."""
    arguments, sentence = MISTAKES[what]
    (tmp_path / "there.py").write_text("mine", encoding="utf-8")
    (tmp_path / "test_tested.py").write_text("mine", encoding="utf-8")
    (tmp_path / "linked.py").symlink_to(tmp_path / "nowhere.py")
    before = sorted(file.name for file in tmp_path.iterdir())
    ended = new(tmp_path, *arguments)
    assert ended.code == 4 and ended.err.startswith(f"resurgence: {sentence}") and ended.out == "", ended
    assert "Traceback" not in ended.err
    assert sorted(file.name for file in tmp_path.iterdir()) == before
    assert (tmp_path / "there.py").read_text(encoding="utf-8") == "mine"
