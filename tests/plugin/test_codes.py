"""Exit codes of runs with cells: 1 is a regression and nothing else, whatever breaks, is full, or goes away."""

from __future__ import annotations

import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.plugin.conftest import Folder, Ran

pytestmark = pytest.mark.slow

IDLE = """
    import pytest

    pytestmark = pytest.mark.resurgence(task="tiny", methods=["uce"])


    def test_idle(claim):
        {body}
"""
PLAIN = "def test_plain(): {body}"
WORKERS = pytest.mark.parametrize("workers", ["0", "1"])


def idle(suite: Folder, body: str = "pass") -> None:
    """A suite of one cell that asks nothing of its claim."""
    suite.write("test_tiny.py", IDLE.format(body=body))


CASES = {
    "a cell without a claim": ("pass", "pass", 11),
    "a timeout": ("pytest.fail('Timeout (>1.0s) from pytest-timeout.')", "pass", 11),
    "a failed assertion": ("assert False", "pass", 11),
    "a harness error": ("raise OSError('full')", "pass", 12),
    "a user's mistake": (
        "from resurgence_harness.errors import UserError; raise UserError('There is no such moon.')",
        "pass",
        4,
    ),
    "Ctrl-C": ("raise KeyboardInterrupt", "pass", 2),
    "pytest.exit": ("pytest.exit('enough')", "pass", 11),
    "sys.exit": ("raise SystemExit(1)", "pass", 12),
}


@pytest.mark.parametrize("case", CASES)
def test_what_happens_in_a_cell_has_its_code(suite: Folder, case: str) -> None:
    """Table: the body of a cell's test, and the code; it is never that of a regression."""
    cell, plain, code = CASES[case]
    idle(suite, cell)
    suite.write("test_plain.py", PLAIN.format(body=plain))
    ran = suite.run("-n", "0")
    assert ran.code == code, ran.output + ran.errors
    assert (suite.path / "reports/out/verdict.json").exists() == (code != 4)


@pytest.mark.parametrize("status", ["0", "1"])
def test_a_test_that_takes_its_worker_with_it_is_incomplete(suite: Folder, status: str) -> None:
    """It was no cell, and the run is not whole."""
    idle(suite)
    suite.write("test_plain.py", PLAIN.format(body=f"__import__('os')._exit({status})"))
    ran = suite.run("-n", "1")
    assert ran.code == 11 and ran.verdicts["lost_worker"], ran.output + ran.errors


BREAKING = {
    "sessionfinish": "def pytest_sessionfinish(): raise RuntimeError('odd')",
    "a first sessionfinish": (
        "import pytest\n@pytest.hookimpl(tryfirst=True)\ndef pytest_sessionfinish(): raise RuntimeError('odd')"
    ),
    "unconfigure": "def pytest_unconfigure(): raise RuntimeError('odd')",
    "the summary": "def pytest_terminal_summary(): raise RuntimeError('odd')",
    "sys.exit": "def pytest_unconfigure(): raise SystemExit(1)",
    "sys.exit with 0": "def pytest_sessionfinish(): raise SystemExit(0)",
}


@pytest.mark.parametrize("how", BREAKING)
def test_a_plugin_that_breaks_at_the_end_is_12(suite: Folder, how: str) -> None:
    """Python would leave with 1 for what nobody caught, or with what the plugin says."""
    idle(suite)
    suite.write("pytest.ini", "[pytest]\nresurgence_methods = uce\naddopts = -p breaking\npythonpath = .\n")
    suite.write("breaking.py", BREAKING[how])
    ran = suite.run("-n", "0")
    assert ran.code == 12, ran.output + ran.errors
    assert "resurgence: Something went wrong that was not foreseen" in ran.errors


@pytest.mark.parametrize("words", [(), ("-p", "no:terminal")], ids=["terminal", "no terminal"])
@pytest.mark.parametrize("stdout", ["ascii", "cp1252", "full", "closed pipe", "closed"])
def test_what_cannot_be_printed_is_no_regression(suite: Folder, stdout: str, words: tuple[str, ...]) -> None:
    """The code stays; on a full disk it may be 12."""
    idle(suite)
    if stdout in ("ascii", "cp1252"):
        suite.environment |= {"PYTHONIOENCODING": stdout, "PYTHONUTF8": "0"}
    to = {"full": "> /dev/full", "closed pipe": "| true", "closed": ">&-"}.get(stdout, "")
    command = subprocess.list2cmdline(replace(suite, cold=True).command("-n", "0", *words)).replace('"', "'")
    ran = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} {to}"],
        cwd=suite.path,
        env=suite.env(),
        capture_output=True,
        timeout=900,
    )
    assert ran.returncode in ((11, 12) if stdout == "full" else (11,)), ran.stderr.decode(errors="replace")
    assert (suite.path / "reports/out/verdict.json").exists()


@pytest.mark.parametrize("name", ["verdict.json", "allure-results"])
def test_results_that_cannot_be_written_at_the_end_are_12(suite: Folder, name: str) -> None:
    """A folder stands where a file belongs, or a file where a folder belongs; one sentence.

    allure-pytest, which writes there as well, tells it with a traceback of its own.
    """
    make = (
        f"os.makedirs('reports/out/{name}')"
        if name == "verdict.json"
        else (f"__import__('shutil').rmtree('reports/out/{name}', True); open('reports/out/{name}', 'w').close()")
    )
    idle(suite, f"import os; {make}")
    ran = suite.run("-n", "0")
    said = ran.output + ran.errors
    assert ran.code == 12, said
    assert name == "allure-results" or ("INTERNALERROR" not in said and "Traceback" not in said), said
    assert "cannot be written" in said


def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(suite: Folder) -> None:
    """4, for it can be changed before hours are spent."""
    idle(suite)
    suite.write("taken", "")
    ran = suite.run("-n", "0", "--resurgence-out=taken/out")
    assert ran.code == 4 and "Give another folder with --resurgence-out." in ran.output + ran.errors


@pytest.mark.parametrize("options", ["timeout = 5\ntimeout_method = thread", "faulthandler_exit_on_timeout = true"])
def test_a_timeout_that_ends_pytest_is_refused(suite: Folder, options: str) -> None:
    """Its exit code would be that of a regression; in a worker it is a dead worker."""
    idle(suite)
    lines = f"{options}\nfaulthandler_timeout = 5\n"
    suite.write("pytest.ini", f"[pytest]\nresurgence_methods = uce\naddopts = -p limits\npythonpath = .\n{lines}")
    suite.write(
        "limits.py",
        "def pytest_addoption(parser):\n    for name in ('timeout', 'timeout_method'): parser.addini(name, name)\n",
    )
    ran = suite.run("-n", "0")
    assert ran.code == 4 and "would look like a regression" in ran.errors, ran.output + ran.errors


@WORKERS
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 2)])
def test_a_signal_ends_the_run_and_leaves_nothing(
    suite: Folder, tmp_path: Path, workers: str, number: signal.Signals, code: int
) -> None:
    """SIGTERM 143, SIGINT 2; workers are gone, no temporary folder stays, and what was written says interrupted."""
    idle(suite, "import os, pathlib, time; pathlib.Path('begun').write_text(str(os.getpid())); time.sleep(120)")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    suite.environment["TMPDIR"] = str(temporary)
    running = subprocess.Popen(
        replace(suite, cold=True).command("-n", workers),
        cwd=suite.path,
        env=suite.env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )
    deadline = time.monotonic() + 200
    while not (suite.path / "begun").exists() and time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.1)
    running.send_signal(number)
    output, _ = running.communicate(timeout=100)
    assert running.returncode == code, output.decode()
    ran = Ran(code, output.decode(), "", suite.path)
    assert (ran.verdicts["status"], ran.verdicts["exit_code"]) == ("interrupted", code)
    assert not [path for path in temporary.iterdir() if path.name.startswith("resurgence")]
    worker = Path("/proc", (suite.path / "begun").read_text(encoding="utf-8"), "stat")
    assert not worker.exists() or worker.read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"


def test_runs_without_cells_keep_the_codes_of_pytest(folder: Folder) -> None:
    """A UserError raised in somebody's test is that test's failure; pytest.exit stays what it is."""
    error = "from resurgence_harness.errors import UserError; raise UserError('no moon')"
    for body, code in ((error, 1), ("__import__('pytest').exit('enough', returncode=7)", 7), ("pass", 0)):
        folder.write("test_plain.py", f"def test_plain(): {body}")
        assert folder.run("-n", "0").code == code
    assert not (folder.path / "reports").exists()
