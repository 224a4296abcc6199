"""`resurgence validate`: what it prints, writes and leaves with."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from resurgence_harness import cli, validation
from resurgence_harness.errors import HarnessError, UserError
from resurgence_harness.statistics.betting import _Paths
from resurgence_harness.validation import edges
from resurgence_harness.validation.checks import run as run_checks
from resurgence_harness.validation.report import Must, Row

pytestmark = pytest.mark.slow

SMALL = replace(validation.FAST, replicates=200, numbers=(90,), orders=((12, 0, 2),), repeats=50, replays=50)
"""Enough to see an engine that is badly wrong."""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """run("--seed", 1) → (exit code, stdout, stderr), at a small depth."""
    monkeypatch.setattr(validation, "FAST", SMALL)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["resurgence", "validate", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capsys.readouterr()
        code = left.value.code
        return (code if isinstance(code, int) else 0), out, err

    return run


def test_all_is_well(run: Any, tmp_path: Path):
    """Exit 0, the table on stdout, progress on stderr, and the same in files that name their command."""
    outcomes = tmp_path / "o.csv"
    lines = [f"c{i % 5},p{i % 20},{i // 20},{int(i % 50 == 0)},{int(i % 45 == 1)}" for i in range(300)]
    outcomes.write_text("\n".join(["concept,prompt,seed,before,after", *lines]))
    code, out, err = run("--to", tmp_path / "out", "--outcomes", outcomes, "--seed", 0)
    assert code == 0, out
    assert "VALID: all" in out
    assert "Replay A/A" in out and "Replay A/B" in out and "WRONG ON PURPOSE" in out
    total = len(err.splitlines())
    assert f"{total}/{total} o, A/B 250" in err
    text = (tmp_path / "out" / "validate.txt").read_text()
    assert text.startswith(
        f"$ resurgence validate --to {tmp_path}/out --outcomes {outcomes} --seed 0\nresurgence-harness "
    )
    assert "VALID: all" in text
    assert (tmp_path / "out" / "validate.csv").read_text().startswith("check,setting,value,allowed,passed\n")


def test_a_wrong_engine_leaves_with_12(run: Any, monkeypatch: pytest.MonkeyPatch):
    """Evidence ten times too large: false claims on both sides, and they are named."""
    honest = _Paths.evidence
    monkeypatch.setattr(_Paths, "evidence", lambda paths, means: 10 * honest(paths, means))
    code, out, _ = run()
    assert code == 12
    assert "FAILED  Error at D = δ = 0.05: shuffled grid" in out
    assert "NOT VALID" in out


def test_a_check_without_teeth_leaves_with_12(run: Any, monkeypatch: pytest.MonkeyPatch):
    """Were the engine that peeks not caught, everything else could pass and nothing would be shown."""
    monkeypatch.setattr(edges, "_peeked", lambda design, x, limit, alpha: edges.Called(x[:, 0] > 1, x[:, 0] > 1))
    code, out, _ = run()
    assert code == 12
    assert "FAILED  Error at D = δ = 0.05: WRONG ON PURPOSE" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--outcomes", "missing.csv"], "cannot be read"),
        (["--seed", -1], "The seed is -1"),
        (["--jobs", 0], "0 processes"),
        (["--to", __file__], "cannot be written"),
    ],
)
def test_mistakes_are_told_in_a_sentence(run: Any, arguments: list[object], said: str):
    """Exit 4, no traceback, nothing measured."""
    code, out, err = run(*arguments)
    assert code == 4
    assert said in err
    assert "Traceback" not in err and not out


def one(value: float) -> list[Row]:
    """A check of one row."""
    return [Row("c", f"{value}", value, Must.AT_MOST, 1.0)]


def dies() -> list[Row]:
    """A check whose process ends."""
    import os

    os._exit(1)


def test_processes_give_the_same_rows_in_the_same_order():
    """Two at a time."""
    asked = [(str(i), partial(one, i / 10)) for i in range(6)]
    told: list[int] = []
    rows = run_checks(asked, jobs=2, progress=lambda name, seconds, done: told.append(done))
    assert rows == run_checks(asked)
    assert told == list(range(1, 7))


def test_a_process_that_dies_is_no_pass():
    """It is the harness that failed."""
    with pytest.raises(HarnessError, match="died"):
        run_checks([("one", partial(one, 0.1)), ("dies", dies)], jobs=2)
    with pytest.raises(UserError):
        run_checks([], jobs=0)


def test_the_fast_setting_end_to_end(tmp_path: Path):
    """In a process of its own: valid, and no torch was imported."""
    program = (
        "import sys; sys.argv = ['resurgence', 'validate', '--to', sys.argv[1]]\n"
        "from resurgence_harness import cli\n"
        "try: cli.main()\n"
        "finally: print('torch' in sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-2].startswith("VALID: all")
    assert done.stderr.splitlines()[-1] == "False"
    known = [line for line in (tmp_path / "validate.csv").read_text().splitlines() if line.endswith(",known")]
    assert any("n = 125" in line and "VIOLATED" in line for line in known)
