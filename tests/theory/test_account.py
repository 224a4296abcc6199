"""`resurgence theory`: what it prints and draws, how long it takes, and that the page says the same."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from resurgence_harness import cli
from resurgence_harness.theory.account import Outcome, bounds, dynamics, statements
from resurgence_harness.theory.figures import draw

DOCS = Path(__file__).parents[2] / "docs"
NAMES = ["theory-bounds.svg", "theory-alpha.svg", "theory-dynamics.svg"]


def test_the_command_is_quick_and_loads_no_torch(tmp_path):
    """In a process of its own: within 20 s, tables and figures, exit code 0."""
    program = (
        "import sys; from resurgence_harness import cli\n"
        f"sys.argv = ['resurgence', 'theory', '--figures', {str(tmp_path / 'new')!r}]\n"
        "try: cli.main()\n"
        "finally: print('torch' in sys.modules)\n"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert time.monotonic() - started < 20
    assert done.returncode == 0, done.stderr
    *_, told, torch = done.stdout.splitlines()
    assert torch == "False" and told.startswith("3 figures in")
    assert "CORRECTED" in done.stdout and "‖P_C ΔW‖" in done.stdout
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(NAMES)


def test_a_file_is_no_directory_for_figures(tmp_path, monkeypatch, capsys):
    """A person's mistake: one sentence, exit code 4, before anything is computed."""
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setattr(sys, "argv", ["resurgence", "theory", "--figures", str(file)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    out, err = capsys.readouterr()
    assert left.value.code == 4 and out == "" and "is not a directory" in err and "Traceback" not in err


def test_every_sentence_has_an_outcome():
    """Twelve rows, three outcomes."""
    rows = statements().rows
    assert Counter(outcome for _, outcome, _ in rows) == {
        Outcome.CONFIRMED: 1,
        Outcome.SHARPENED: 5,
        Outcome.CORRECTED: 6,
    }


def test_the_bounds_table_marks_where_the_statement_fails():
    """At 0° for dim C = 1, 2, 3; at 45° for 1; nowhere for 4."""
    failing = [(row[0], row[1]) for row in bounds().rows if "fails" in row[7]]
    assert failing == [("1", "0°"), ("1", "45°"), ("2", "0°"), ("3", "0°")]


def test_the_page_has_the_printed_numbers():
    """Rows of the dynamics and outcomes of the sentences in docs/theory.md are the command's."""
    page = (DOCS / "theory.md").read_text()
    for row in dynamics().rows:
        assert "| " + " | ".join(row) + " |" in page
    for sentence, outcome, measured in statements().rows:
        assert outcome in page
        row = next(line for line in page.splitlines() if line.startswith(f"| {sentence} |"))
        assert row == f"| {sentence} | {outcome} | {measured} |"


def test_figures_are_the_same_bytes_and_small(tmp_path):
    """Drawn twice; the committed ones are SVG, under 200 kB, and shown on the page."""
    first, second = draw(tmp_path / "a"), draw(tmp_path / "b")
    assert [path.name for path in first] == NAMES
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
        committed = DOCS / one.name
        assert committed.stat().st_size < 200_000
        assert ElementTree.parse(committed).getroot().tag.endswith("svg")
    assert re.findall(r"\((theory-\w+\.svg)\)", (DOCS / "theory.md").read_text()) == NAMES
