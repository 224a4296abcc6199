"""A plugin that is merely installed changes nothing: no codes, no files, no options read, no time."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from resurgence_harness.presets import PROFILES
from resurgence_harness.pytest_plugin import old_results, options, sight
from resurgence_harness.selection import ENGINES
from tests.plugin.conftest import INSTALLED, ROOT, STRANGERS, Folder

pytestmark = pytest.mark.slow

PLAIN = """
    import pytest

    @pytest.fixture
    def judge():
        return "a person"

    def test_plain(judge):
        assert judge == "a person"
"""
GENERATED = """
    def pytest_generate_tests(metafunc):
        if "cell" in metafunc.fixturenames:
            metafunc.parametrize("cell", [1, 2])
"""
NONSENSE = {f"RESURGENCE_{option.word.upper()}": "~nobody/\N{SNOWMAN} nonsense,," for option in options.OPTIONS}
CASES: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "nothing": ((), {}),
    "environment": ((), {**NONSENSE, "RESURGENCE_SET": "a=b", "RESURGENCE_FRESH": "perhaps"}),
    "no home": ((), {"HOME": "", "XDG_CACHE_HOME": ""}),
    "no cache": (("-p", "no:cacheprovider"), {}),
    "warnings are errors": (("-W", "error"), {"PYTHONWARNINGS": "error"}),
    "strict": (("--strict-config", "--strict-markers"), {}),
    "optimized": ((), {"PYTHONOPTIMIZE": "2", "PYTHONDONTWRITEBYTECODE": "1"}),
    "no terminal": (("-p", "no:terminal"), {}),
    "no temporary folder": (("-s", "-p", "no:tmpdir"), {"TMPDIR": "/dev/null", "TMP": "/dev/null"}),
    "workers": (("-n", "1"), NONSENSE),
    "our options": (("--resurgence-base=nowhere", "--resurgence-counts=some", "--resurgence-out=/dev/null/x"), {}),
    "ascii": ((), {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}),
}


@pytest.mark.parametrize("case", CASES)
def test_other_projects_notice_nothing(folder: Folder, case: str) -> None:
    """Table: words of the command line and variables of the environment under which a stranger's tests run as ever."""
    words, environment = CASES[case]
    folder.write("pytest.ini", "[pytest]\n")
    folder.write("test_plain.py", PLAIN)
    folder.environment |= environment
    quiet = () if "no:terminal" in words else ("-q",)
    command = [
        word
        for word in replace(folder, cold=True).command(*quiet, *words)
        if not word.startswith("--resurgence") or word in words
    ]
    old = folder.write("reports/out/verdict.json", "{}")
    ran = subprocess.run(command, cwd=folder.path, env=folder.env(), capture_output=True, timeout=900)
    said = (ran.stdout + ran.stderr).decode(errors="replace")
    assert ran.returncode == 0, said
    assert old.read_text(encoding="utf-8") == "{}" and "resurgence" not in said.replace(str(folder.path), "")
    assert {path.name for path in folder.path.iterdir()} <= {
        ".pytest_cache",
        "__pycache__",
        "pytest.ini",
        "reports",
        "test_plain.py",
    }


def test_a_parameter_of_the_same_name_that_a_hook_gives_is_left_alone(folder: Folder) -> None:
    """conftest.py parametrizes `cell`, without any fixture or marker."""
    folder.write("conftest.py", GENERATED)
    folder.write("test_plain.py", "def test_plain(cell): assert cell in (1, 2)")
    ran = folder.run("-n", "0", "-q")
    assert ran.code == 0 and "2 passed" in ran.output, ran.output + ran.errors


def test_loading_imports_next_to_nothing(folder: Folder) -> None:
    """What a run without cells imports of ours, and of what we stand on."""
    folder.write("test_plain.py", "def test_plain(): pass")
    heavy = {"torch", "diffusers", "numpy", "scipy", "pydantic", "yaml", "rich", "typer", "allure", "PIL", "filelock"}
    heavy |= {"transformers", "accelerate", "peft", "safetensors", "huggingface_hub", "matplotlib", "fsspec"}
    plugin = "" if INSTALLED else "-p', 'resurgence_harness.pytest_plugin', '"
    off = "".join(f"-p', 'no:{name}', '" for name in (*STRANGERS, "allure_pytest", "xdist", "xdist.looponfail"))
    code = (
        f"import sys, pytest; code = pytest.main(['{off}{plugin}-q']);"
        "ours = {name for name in sys.modules if name.startswith('resurgence_harness.')};"
        f"print(sorted({heavy} & set(sys.modules)), sorted(ours)); assert not {heavy} & set(sys.modules);"
        "deep = {name.split('.')[1] for name in ours};"
        "assert deep <= {'errors', 'pytest_plugin', 'process', 'diffusion'}, deep; sys.exit(code)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=folder.path, env=folder.env(), capture_output=True, text=True, timeout=900
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_words_of_the_help_are_those_that_are_read() -> None:
    """They are written out so that --help imports nothing."""
    assert tuple(PROFILES) == options.PROFILE_WORDS and ENGINES == options.ENGINE_WORDS


def test_nothing_in_a_strangers_folder_stops_the_look(tmp_path: Path) -> None:
    """Links that lead back, pipes, broken and foreign files, deep folders, names that are no text."""
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "back").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "test_pipe.py")
    (tmp_path / "test_nowhere.py").symlink_to(tmp_path / "none")
    (tmp_path / "test_bytes.py").write_bytes(b"resurgence \xff\x00")
    (tmp_path / "test_deep.py").write_text("resurgence = " + "(" * 5000, encoding="utf-8")
    (tmp_path / "test_escape.py").write_text("resurgence = '\\d'", encoding="utf-8")
    (tmp_path / "test_folder.py").mkdir()
    (tmp_path / "/".join("d" * 200)).mkdir(parents=True)
    arguments = [str(tmp_path), "no\x00path", "nowhere", "-x", "http://[", "test_pipe.py"]
    assert sight.look(arguments, tmp_path, policy=False) == sight.Sight()
    marked = "import pytest\npytestmark = pytest.mark.resurgence(task='tiny')\ndef test_x(claim): pass\n"
    (tmp_path / "test_ours.py").write_text(marked, encoding="utf-8")
    seen = sight.look([str(tmp_path)], tmp_path, policy=False)
    assert seen.claims and seen.folders == (tmp_path,) and not seen.gate
    assert sight.look(["resurgence_harness.gate"], tmp_path, policy=False).gate
    assert sight.look([str(ROOT / "resurgence_harness/gate/test_gate.py::test_x")], tmp_path, policy=False).gate


def test_the_options_under_which_pytest_only_shows_something_are_its_own(pytestconfig: pytest.Config) -> None:
    """By the names that pytest gives them."""
    known = [name for name in old_results.SHOWING if hasattr(pytestconfig.option, name)]
    cache = pytestconfig.pluginmanager.has_plugin("cacheprovider")
    assert set(old_results.SHOWING) - set(known) == (set() if cache else {"cacheshow"})
