"""Options: where they are read, which wins, and what they select."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from tests.plugin.conftest import ROOT, Folder

pytestmark = pytest.mark.slow


def collected(folder: Folder, *arguments: str) -> list[str]:
    """Words of the collected cells."""
    ran = folder.run("--collect-only", "-q", *arguments)
    assert ran.code == 0, ran.output + ran.errors
    return [line.split("[")[1].rstrip("]") for line in ran.output.splitlines() if "[" in line]


def test_ids_are_stable_words(suite: Folder) -> None:
    """Methods × counts × fine-tunings."""
    assert collected(suite) == ["uce-1-lora", "esd-1-lora"]
    assert collected(suite, "--resurgence-counts=2", "--resurgence-finetune=lora,full", "--resurgence-methods=esd") == [
        "esd-2-lora",
        "esd-2-full",
    ]


def test_the_command_line_wins_over_the_environment_and_that_over_the_ini_file(suite: Folder) -> None:
    """Command line, environment, ini file, default."""
    suite.write("pytest.ini", "[pytest]\nresurgence_methods = esd\nresurgence_counts = 2\n")
    assert collected(suite) == ["esd-2-lora"]
    suite.environment = {"RESURGENCE_METHODS": "uce", "RESURGENCE_FINETUNE": "xattn"}
    assert collected(suite) == ["uce-2-xattn"]
    assert collected(suite, "--resurgence-methods=esd-u") == ["esd-u-2-xattn"]


def test_selecting_by_word(suite: Folder) -> None:
    """-k takes the words of the id."""
    assert collected(suite, "-k", "esd and lora") == ["esd-1-lora"]


def test_a_marker_says_what_its_test_is_about(suite: Folder) -> None:
    """The command line chooses within the marker; what they do not share is deselected, not skipped."""
    suite.write(
        "test_more.py",
        """
        import pytest

        @pytest.mark.resurgence(task="tiny", methods=["esd"], counts=[1, 2])
        def test_esd(claim):
            claim.stays_erased()
        """,
    )
    assert collected(suite, "test_more.py") == ["esd-1-lora", "esd-2-lora"]
    ran = suite.run("--collect-only", "-q", "--resurgence-methods=uce")
    assert "test_more" not in ran.output and "1 deselected" in ran.output


def test_fixtures_of_the_same_names_in_other_suites_are_left_alone(folder: Folder) -> None:
    """A suite that has its own cell, claim or judge, or parametrizes them, never meets ours."""
    folder.write(
        "test_other.py",
        """
        import pytest

        @pytest.fixture
        def cell():
            return "a prison"

        @pytest.fixture
        def claim(cell):
            return f"{cell} is no home"

        def test_fixture(claim, cell):
            assert claim == "a prison is no home"

        @pytest.mark.parametrize("evidence", [1, 2])
        def test_parameter(evidence):
            assert evidence
        """,
    )
    folder.write(
        "test_table.py",
        """
        import pytest

        @pytest.mark.parametrize("row, cell", [(1, "A"), (2, "B")])
        def test_spreadsheet(row, cell):
            assert cell in "AB"
        """,
    )
    ran = folder.run("-n", "2", "--resurgence-base=nowhere")
    assert ran.code == 0 and "5 passed" in ran.output, ran.output + ran.errors
    assert not (folder.path / "reports").exists()


def test_collecting_is_quick_writes_nothing_and_imports_no_torch(suite: Folder) -> None:
    """--collect-only on the whole celebrity suite."""
    code = (
        "import sys, time, pytest; start = time.monotonic();"
        f"code = pytest.main({suite.command('--collect-only', '-q', '--resurgence-profile=paper')[3:]!r});"
        "took = time.monotonic() - start;"
        "heavy = sorted({'torch', 'diffusers', 'transformers', 'peft', 'allure'} & set(sys.modules) - {'allure'});"
        "print('HEAVY', heavy, 'CODE', int(code), 'SECONDS', round(took, 2))"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=suite.path, env=suite.env(), capture_output=True, text=True)
    assert "HEAVY [] CODE 0" in done.stdout, done.stdout + done.stderr
    assert time.monotonic() - start < 10  # 2 s on a quiet machine
    assert not (suite.path / "reports").exists()


def test_importing_the_plugin_imports_neither_torch_nor_allure_nor_xdist() -> None:
    """It is loaded by every pytest run of its environment."""
    code = (
        "import sys, resurgence_harness.pytest_plugin;"
        "print(sorted({'torch', 'diffusers', 'transformers', 'peft', 'allure', 'allure_commons', 'xdist', 'PIL',"
        "'numpy', 'scipy', 'pydantic', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_tells_options_and_exit_codes(folder: Folder) -> None:
    """--help names every option, its ini twin, and what the exit codes say."""
    said = " ".join(folder.run("--help").output.split())
    for word in (
        "base",
        "methods",
        "counts",
        "finetune",
        "seeds",
        "runs",
        "profile",
        "device",
        "store",
        "limits",
        "data",
        "out",
    ):
        assert f"--resurgence-{word}" in said and f"resurgence_{word}" in said
    assert "--resurgence-caption-column" in said and "resurgence_caption_column" in said
    assert "10 UNDECIDED" in said and "11 incomplete" in said and "12 the harness failed" in said


def test_fixtures_are_documented(folder: Folder) -> None:
    """pytest --fixtures shows the public fixtures with their docstrings."""
    said = folder.run("--fixtures").output
    for name in (
        "base_model",
        "unlearned_model",
        "fine_tuned_model",
        "benign_images",
        "judge",
        "evidence",
        "claim",
        "cell",
    ):
        start = said.index(f"\n{name} -- ")
        assert said[start : start + 400].splitlines()[2].strip()


def test_the_marker_is_registered(suite: Folder) -> None:
    """--strict-markers knows it, and --markers explains it."""
    assert suite.run("--collect-only", "--strict-markers").code == 0
    assert "@pytest.mark.resurgence(task" in suite.run("--markers").output


@pytest.mark.parametrize("absent", [["no:allure_pytest"], ["no:xdist"], ["no:allure_pytest", "no:xdist"]])
def test_it_works_without_allure_and_xdist(suite: Folder, absent: list[str]) -> None:
    """Neither is needed."""
    flags = [part for name in absent for part in ("-p", name)]
    assert suite.run("--collect-only", "-q", *flags).code == 0
