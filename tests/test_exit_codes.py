"""What every command ends with where the world around it is broken: a table of processes, each with its expected code.

1 is a regression and nothing else; nothing prints a traceback. Every row is a process of its own on a very small model
whose images are in the store already, so that a row takes seconds; xdist's workers share the model and the store.
"""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

from resurgence_harness.process import MEANINGS, ExitCode, combined, one_line
from tests.gate.conftest import POLICY, Tiny, tiny
from tests.plugin.conftest import INSTALLED, STRANGERS, conftest_for
from tests.plugin.gallery import SEEDS, SETTINGS
from tests.shared import made_once
from tests.warm_python import python

pytestmark = pytest.mark.slow

__all__ = ["tiny"]
ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "exit-codes.md"

SITE = """
import builtins, os, signal, sys, tempfile

if os.environ.get("NO_USER"):
    import pwd
    def getpwuid(number):
        raise KeyError("getpwuid(): uid not found")
    pwd.getpwuid = getpwuid
if os.environ.get("NO_TEMPORARY_FOLDER"):
    tempfile._candidate_tempdir_list = lambda: ["/proc/none"]
if os.environ.get("FAULT"):
    wanted, needle, kind = os.environ["FAULT"].split("|")
    sent = []

    def fault(event, arguments):
        if event != wanted or not isinstance(arguments[0], str) or needle not in arguments[0]:
            return
        if not kind.startswith("SIG"):
            raise getattr(builtins, kind)(*((28, "No space left on device") if kind == "OSError" else (1,)))
        if not sent:
            sent.append(kind)
            os.kill(os.getpid(), getattr(signal, kind))

    sys.addaudithook(fault)
"""
"""A sitecustomize.py: a user without an entry, no folder for temporary files, and faults where Python imports or opens
something: an exception, a full disk, or a signal."""

SUITE = """\
import pytest

pytestmark = pytest.mark.resurgence(task="tiny")


def test_stays_erased(claim):
    import colorsys  # which nothing else imports: the moment of a signal

    claim.stays_erased()
"""

CLI = """
from resurgence_harness import judging, tasks
from resurgence_harness.registry import Origin, register
from tests.plugin.gallery import TINY, GalleryJudge

register("task", TINY, Origin.of_conftest("conftest.py"))
register("judge", GalleryJudge({gallery!r}), Origin.of_conftest("conftest.py"))
from resurgence_harness.cli import main

main()
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One process: a command, what is wrong around it, and its code."""

    command: str
    wrong: str
    code: int
    says: str = ""
    """A pattern that stderr or stdout must have."""
    env: Mapping[str, str | None] = field(default_factory=dict)
    """Variables to set, or to remove."""
    shell: str = ""
    """What `sh` runs in place of the command; "$@" is the command."""
    ending: str = ""
    """Words added to the command."""
    stdout: str = "pipe"
    """pipe, full, left (a pipe that nobody reads) or gone (a terminal that was closed)."""

    def __str__(self) -> str:
        return f"{self.command}-{self.wrong}".replace(" ", "_")


class Ended(NamedTuple):
    """What a process left."""

    code: int
    out: str
    err: str
    folder: Path


CODES = {"gate": 0, "regression": 1, "ls": 0, "verify": 0, "gc": 0, "report": 0, "plan": 0, "theory": 0}
"""Commands where nothing is wrong, `build` apart, which takes a minute.

`regression` is a gate on a candidate that draws what was erased.
"""
NO_HOME = {"HOME": None, "XDG_CACHE_HOME": None, "RESURGENCE_STORE": None, "NO_USER": "1"}
POSIX = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
MOMENTS = {
    "gate": "resurgence_harness.gate.asking",
    "ls": "resurgence_harness.cli.store",
    "report": "matplotlib.figure",
    "plan": "resurgence_harness.planning",
    "build": "resurgence_harness.planning",
}
"""A module that each command imports while it runs."""


def rows() -> Iterator[Row]:
    """The table: everything that can be wrong around a process meets the gate once, and some of the cheap commands."""
    for command, code in CODES.items():
        if command not in ("gate", "regression"):  # which fill the store, with nothing wrong around them
            yield Row(command=command, wrong="nothing", code=code)
        if command in ("gate", "regression", "ls", "report"):
            yield Row(command=command, wrong="a full stdout", code=code or 12, says="printed: No space", stdout="full")
        if command in ("gate", "verify", "theory"):
            yield Row(command=command, wrong="a reader that left", code=code, stdout="left")
    for command in ("gate", "ls"):
        yield Row(command=command, wrong="closed streams", code=0, shell='exec "$@" <&- >&- 2>&-')
        yield Row(command=command, wrong="a terminal that went away", code=0, stdout="gone")
        yield Row(command=command, wrong="locale POSIX", code=0, env=POSIX)
    for command in ("ls", "report"):
        yield Row(command=command, wrong="stdout in ascii", code=0, env={"PYTHONIOENCODING": "ascii"})
    yield Row(command="plan", wrong="closed stdout", code=0, shell='exec "$@" >&-')
    for command in ("gate", "verify"):
        odd = {"COLUMNS": "²", "LINES": "-1", "TERMINAL_WIDTH": "x", "TERM": "dumb", "NO_COLOR": "1"}
        odd["PYTHONIOENCODING"] = "cp1252"
        yield Row(command=command, wrong="an odd terminal in cp1252", code=0, env=odd)
    for command in ("gate", "ls", "report"):
        yield Row(
            command=command,
            wrong="a working directory that is gone",
            code=4,
            says="working directory does not exist",
            shell='mkdir gone; cd gone; rmdir ../gone; exec "$@"',
        )
    bare, a_file = "without a store", {"RESURGENCE_STORE": "/dev/null"}
    for command in ("gate", "build", "ls"):
        yield Row(command=command, wrong="no home", code=4, says="--store", env=NO_HOME, ending=bare)
    for command in ("gate", "plan", "ls"):
        yield Row(command=command, wrong="a store that is a file", code=4, says="directory", env=a_file, ending=bare)
    yield Row(command="plugin", wrong="no home", code=4, says="home", env=NO_HOME, ending=bare)
    yield Row(command="others", wrong="no home", code=0, env=NO_HOME)
    for command in ("gate", "report"):
        unwritable = {"HOME": "/proc/none", "XDG_CACHE_HOME": "/proc"}
        code, says = (4, "no folder for temporary files") if command == "gate" else (0, "")
        yield Row(command=command, wrong="no temporary folder", code=code, says=says, env={"NO_TEMPORARY_FOLDER": "1"})
        yield Row(command=command, wrong="an unwritable home", code=0, env=unwritable)

    # Files that cannot be written
    nowhere = {"GITHUB_STEP_SUMMARY": "no/such/summary", "GITHUB_ACTIONS": "true"}
    for command, code in (("gate", 12), ("regression", 1)):
        yield Row(command=command, wrong="a summary nowhere", code=code, says="summary cannot be written", env=nowhere)
    yield Row(command="gate", wrong="no such device", code=4, says='There is no device "tpu"', ending="--device=tpu")
    own = {"GITHUB_STEP_SUMMARY": "out/verdict.json"}
    yield Row(command="gate", wrong="a summary over a report", code=4, says="appended to a report", env=own)
    for command, name, code in (("gate", "contact-sheet-erased.jpg", 12), ("regression", "verdict.json", 1)):
        full = {"FAULT": f"open|out/.{name}.|OSError"}
        yield Row(command=command, wrong=f"no room for {name}", code=code, says="cannot be written", env=full)
    for command, file in (("gate", "out"), ("report", "figures")):
        shell = f'touch {file}; "$@"'
        yield Row(command=command, wrong="an output folder that is a file", code=4, says=file, shell=shell)

    # Errors that nobody foresaw, and signals
    for command, moment in MOMENTS.items():
        for kind in ("RuntimeError", "SystemExit", "MemoryError", "RecursionError", "ImportError"):
            if kind == "RuntimeError" or command == "ls" or (kind, command) == ("SystemExit", "gate"):
                broken = {"FAULT": f"import|{moment}|{kind}"}
                yield Row(command=command, wrong=kind, code=12, says="not foreseen", env=broken)
        for name, code in (("SIGTERM", 143), ("SIGINT", 2), ("SIGHUP", 129)):
            if name == "SIGTERM" or command == "ls" or (name, command) == ("SIGINT", "gate"):
                sent = {"FAULT": f"import|{moment}|{name}"}
                yield Row(command=command, wrong=name, code=code, says="no verdict on any model", env=sent)
    broken = {"FAULT": "import|typer|ImportError"}
    yield Row(command="ls", wrong="no typer", code=12, says="not foreseen", env=broken)
    unwritable = {"FAULT": "import|resurgence_harness.cli.store|RuntimeError", "NO_TEMPORARY_FOLDER": "1"}
    yield Row(command="ls", wrong="RuntimeError and no temporary folder", code=12, says="not foreseen", env=unwritable)
    drawing = {"FAULT": "os.mkdir|/fresh/tmp/|SIGTERM"}
    yield Row(command="cold", wrong="SIGTERM", code=143, says="no verdict on any model", env=drawing)
    judging = {"FAULT": "import|colorsys|SIGTERM"}
    yield Row(command="plugin", wrong="SIGTERM", code=143, env=judging)

    # Command lines and files of a person
    for command in ("gate", "ls", "report", "plan"):
        yield Row(command=command, wrong="an unknown option", code=4 if command == "plan" else 2, ending="--nosuch")
    for wrong, text in (("empty", ""), ("not JSON", "{"), ("NaN", '{"tool": NaN}'), ("a list", "[]"), ("deep", "deep")):
        yield Row(
            command="report",
            wrong=f"a verdict that is {wrong}",
            code=4,
            says="half written|of another version",
            env={"TEXT": text if text != "deep" else "[" * 50_000},
            shell='mkdir odd; printf %s "$TEXT" > odd/verdict.json; "$@" --from odd',
        )
    yield Row(
        command="report",
        wrong="a verdict that is a folder",
        code=4,
        says="no results",
        shell='mkdir -p odd/verdict.json; "$@" --from odd',
    )


class World(NamedTuple):
    """What every row is run in."""

    place: Path
    known: Tiny


@pytest.fixture(scope="module")
def world(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Made by the first of xdist's workers."""
    return World(made_once(tmp_path_factory, "codes", lambda folder: make(tiny, folder)), tiny)


def make(tiny: Tiny, folder: Path) -> None:
    """A folder with everything that the commands need, and a warm store."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(SITE, encoding="utf-8")
    (folder / "cli.py").write_text(CLI.format(gallery=str(tiny.gallery)), encoding="utf-8")
    (folder / "policy.yaml").write_text(POLICY, encoding="utf-8")
    suite = folder / "suite"
    suite.mkdir()
    (suite / "pytest.ini").write_text("[pytest]\nresurgence_methods = uce\nresurgence_counts = 1\n", encoding="utf-8")
    lines = [line[8:] for line in conftest_for(tiny.gallery).splitlines()]
    (suite / "conftest.py").write_text("\n".join(lines), encoding="utf-8")
    (suite / "test_tiny.py").write_text(SUITE, encoding="utf-8")
    other = folder / "other"
    other.mkdir()
    (other / "test_other.py").write_text("def test_other():\n    pass\n", encoding="utf-8")
    (other / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    for command in ("gate", "regression"):  # draws what the rows then find in the store
        warm = ended(Row(command=command, wrong="nothing yet", code=CODES[command]), folder, tiny)
        assert warm.code == CODES[command], (command, warm)
        if command == "gate":
            shutil.copytree(warm.folder / "out", folder / "results")


def words(row: Row, place: Path, known: Tiny) -> list[str]:
    """The command line."""
    store = [] if row.ending == "without a store" else ["--store", str(known.store)]
    if row.command in ("gate", "regression", "cold"):
        store = ["--store", "fresh"] if row.command == "cold" else store
        candidate = known.files["regressing" if row.command == "regression" else "passing"]
        parents = ["--unlearned", known.files["unlearned"], "--base", known.base]
        return ["gate", "--policy", str(place / "policy.yaml"), "--candidate", *map(str, (candidate, *parents)), *store]
    if row.command in ("ls", "verify"):
        return ["store", row.command, *store]
    if row.command == "gc":
        return ["store", "gc", "--older-than", "100000", *store]
    if row.command == "report":
        return ["report", "--from", str(place / "results"), "--figures", "figures"]
    if row.command == "theory":
        return ["theory"]
    chosen = [f"--resurgence-base={known.base}", f"--resurgence-seeds={SEEDS}"]
    chosen += [f"--resurgence-store={known.store}"] if store else []
    chosen += [f"--resurgence-set={setting}" for setting in SETTINGS]
    return [row.command, str(place / "suite"), *chosen] if row.command != "plugin" else [str(place / "suite"), *chosen]


def command_line(row: Row, place: Path, known: Tiny) -> list[str]:
    """The whole process's words."""
    plugin = [] if INSTALLED else ["-p", "resurgence_harness.pytest_plugin"]
    program = python() if warm(row) else sys.executable
    off = [part for name in STRANGERS for part in ("-p", f"no:{name}")]
    if row.command == "others":
        line = [program, "-m", "pytest", *off, *plugin, "-q", str(place / "other")]
    elif row.command == "plugin":
        line = [program, "-m", "pytest", *off, *plugin, "-q", *words(row, place, known)]
    elif row.command in ("gate", "regression", "cold"):
        line = [program, str(place / "cli.py"), *words(row, place, known), "--out", "out"]
    else:
        line = [program, "-m", "resurgence_harness.cli", *words(row, place, known)]
    line += [row.ending] if row.ending.startswith("-") else []
    return ["sh", "-c", row.shell, "sh", *line] if row.shell else line


def warm(row: Row) -> bool:
    """Whether a row may start in a Python that has imported the libraries: nothing is wrong with how it starts."""
    starting = [name for name in row.env if name.startswith(("PYTHON", "LC_", "NO_"))]
    return row.command in ("gate", "regression") and row.stdout == "pipe" and not (row.shell or starting)


def ended(row: Row, place: Path, known: Tiny) -> Ended:
    """Run one row in a folder of its own."""
    folder = place / "rows" / re.sub(r"\W", "_", str(row))
    (folder / "tmp").mkdir(parents=True)
    strange = ("RESURGENCE", "PYTEST", "GITHUB", "CI", "HF_", "PYTHON", "COLUMNS", "XDG_")
    env: dict[str, str | None] = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    env |= {"PYTHONPATH": f"{place / 'site'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    env |= {"TMPDIR": str(folder / "tmp"), "PYTEST_ADDOPTS": "" if INSTALLED else "-p resurgence_harness.pytest_plugin"}
    env |= row.env
    given = {name: value for name, value in env.items() if value is not None}
    read, write = os.pipe() if row.stdout == "left" else pty.openpty() if row.stdout == "gone" else (None, None)
    full = open("/dev/full", "w", encoding="utf-8") if row.stdout == "full" else None  # noqa: SIM115
    try:
        started = subprocess.Popen(
            command_line(row, place, known),
            cwd=folder,
            env=given,
            stdin=subprocess.DEVNULL,
            stdout=full or write or subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        for end in (read, write):
            if end is not None:
                os.close(end)
        out, err = started.communicate(timeout=600)
    finally:
        if full is not None:
            full.close()
    return Ended(started.returncode, out or "", err, folder)


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full, terminals and signals as Linux has them")
@pytest.mark.parametrize("row", list(rows()), ids=str)
def test_a_process_ends_with_its_code(row: Row, world: World) -> None:
    """The expected code, no traceback, no 1 but a regression's, and nothing half-written."""
    left = ended(row, *world)
    said = left.out + left.err
    assert left.code == row.code, (left.code, said[-2000:])
    assert row.code != ExitCode.REGRESSION or row.command == "regression"
    assert "Exception ignored" not in said
    if "no temporary folder" not in row.wrong or row.code == 0:
        assert "Traceback" not in said, said[-2000:]
    if row.says and row.stdout != "gone" and "2>&-" not in row.shell:
        assert re.search(row.says, said), said[-2000:]
    if row.says == "not foreseen" and "temporary" not in row.wrong:
        (path,) = re.findall(r"^  traceback\s+(.+)$", left.err, re.M)
        assert "Traceback (most recent call last)" in Path(path).read_text(encoding="utf-8")
    reports = sorted(path.name for path in (left.folder / "out").iterdir()) if (left.folder / "out").is_dir() else []
    reports = [name for name in reports if not name.startswith("resurgence-error-")]
    if row.command in ("gate", "regression") and row.code in (0, 1) and "verdict.json" not in row.wrong:
        assert "verdict.json" in reports
    elif "no room" in row.wrong or row.code in (2, 143, 129):
        assert reports == []
    if row.command == "cold":
        assert list((left.folder / "fresh" / "tmp").iterdir()) == []
    ours = [path.name for path in (left.folder / "tmp").iterdir() if path.name.startswith("resurgence")]
    assert not ours or row.says == "not foreseen", ours


def test_the_documentation_has_the_same_table() -> None:
    """docs/exit-codes.md: one section for each code, which begins with its meaning; --help has them all."""
    sections = re.findall(r"^## (\d+)\n\n(.+)$", DOCS.read_text(encoding="utf-8"), re.M)
    assert {int(code): text.split("**")[1] for code, text in sections} == {int(c): m for c, m in MEANINGS.items()}
    assert set(MEANINGS) == set(ExitCode)
    assert all(f"{code:d} {meaning}" in one_line() for code, meaning in MEANINGS.items() if code)


def test_the_order_of_codes_that_apply_together() -> None:
    """1, then 12, 11, 10; 0 where there is none."""
    order = [ExitCode.REGRESSION, ExitCode.HARNESS_ERROR, ExitCode.INCOMPLETE, ExitCode.UNDECIDED]
    for first, code in enumerate(order):
        assert combined(reversed(order[first:])) is code
    assert combined([]) is combined([ExitCode.DONE]) is ExitCode.DONE


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """nohup: SIGHUP does not end the command."""
    script = (
        "import os, signal\n"
        "from resurgence_harness.process import guarded\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "guarded(lambda: os.kill(os.getpid(), signal.SIGHUP))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 0
    script = script.replace("SIG_IGN", "SIG_DFL")
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 128 + signal.SIGHUP
