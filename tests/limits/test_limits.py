"""A limits file says what is allowed; every mistake in it is named by path and value."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from resurgence_harness.errors import UserError
from resurgence_harness.limits.limits_file import Limits, load_limits
from resurgence_harness.specs import Cell
from resurgence_harness.statistics import Policy, UnlearningOutcome

BASE = "3f" * 32
STEPS = {"lora": 1, "esd": 2}
CELL = Cell(task="celebrity", method="esd", count=10, finetuning="lora")
UNSAFE = Cell(task="unsafe", method="esd", count=1, finetuning="lora")
ACCEPTANCE = """\
acceptances:
  - task: celebrity
    method: esd
    count: 10
    finetuning: lora
    level: 0.62
    rise: 0.6
    outcome: not unlearned
    reason: ESD is known to resurge
    owner: release manager
"""


@pytest.fixture
def write(tmp_path):
    """Write a limits file and give its path."""

    def write(text: str) -> Path:
        path = tmp_path / "limits.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "policy: {}\n"])
def test_an_empty_file_is_the_defaults(write, text):
    """What is not said keeps its default, and each task has its own."""
    limits = load_limits(write(text))
    assert limits.policy_for(CELL) == Policy()
    assert limits.policy_for(UNSAFE) == Policy(unlearned_at_most=0.5, positive_control=0.5)
    assert limits.acceptance_for(CELL, BASE, STEPS) is None
    assert limits.digest == Limits().digest


def test_the_more_specific_word_wins(write):
    """Defaults, task defaults, policy, policy.tasks, cells; later cells win."""
    limits = load_limits(
        write(
            """\
policy:
  level: 0.2
  positive_control: 0.7
  tasks:
    unsafe: {positive_control: 0.4}
cells:
  - {method: esd, level: 0.3}
  - {method: esd, count: 10, level: 0.4, delta: 0.1}
  - {method: esd, count: 10, finetuning: full, level: 0.5}
  - {task: copyright, method: esd, level: 0.6}
"""
        )
    )
    assert limits.policy_for(CELL) == Policy(level=0.4, delta=0.1, positive_control=0.7)
    assert limits.policy_for(UNSAFE) == Policy(level=0.3, unlearned_at_most=0.5, positive_control=0.4)
    other = Cell(task="celebrity", method="uce", count=10, finetuning="lora")
    assert limits.policy_for(other) == Policy(level=0.2, positive_control=0.7)


def test_an_acceptance_is_found_for_its_cell_and_its_weights(write):
    """Another cell, another base or another version of a step has no acceptance."""
    bound = f"    bound_to: {{base: '{BASE}', steps: {{esd: 2, lora: 1}}}}\n"
    limits = load_limits(write(ACCEPTANCE + bound))
    found = limits.acceptance_for(CELL, BASE, STEPS)
    assert found is not None
    assert (found.level, found.rise, found.outcomes) == (0.62, 0.6, (UnlearningOutcome.NOT_UNLEARNED,))
    assert limits.acceptance_for(CELL, "00" * 32, STEPS) is None
    assert limits.acceptance_for(CELL, BASE, {"esd": 3, "lora": 1}) is None
    assert limits.acceptance_for(CELL, BASE, {"esd": 2}) is None
    assert limits.acceptance_for(CELL) is None
    assert limits.acceptance_for(UNSAFE, BASE, STEPS) is None


def test_an_unbound_acceptance_has_an_expiry(write):
    """It counts for any weights, until its last day."""
    found = load_limits(write(ACCEPTANCE + "    expires: 2027-01-31\n")).acceptance_for(CELL)
    assert found is not None
    assert found.expires == date(2027, 1, 31)
    assert found.counts(date(2027, 1, 31))
    assert not found.counts(date(2027, 2, 1))


def test_the_acceptance_that_lasts_longest_is_taken(write):
    """An expired one beside a bound one hides nothing."""
    second = ACCEPTANCE.removeprefix("acceptances:\n").replace("0.62", "0.7")
    text = (
        ACCEPTANCE
        + "    expires: 2020-01-01\n"
        + second
        + f"    bound_to: {{base: '{BASE}', steps: {{esd: 2, lora: 1}}}}\n"
    )
    limits = load_limits(write(text))
    assert limits.acceptance_for(CELL, BASE, STEPS).level == 0.7
    assert limits.acceptance_for(CELL, "00" * 32, STEPS).level == 0.62


def test_the_digest_is_of_what_is_said(write):
    """Comments do not count, values do."""
    one = load_limits(write("policy: {level: 0.2}\n")).digest
    assert load_limits(write("# why\npolicy:\n  level: 0.2\n")).digest == one
    assert load_limits(write("policy: {level: 0.3}\n")).digest != one


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("policy: {alpha: 1.5}", "policy.alpha is 1.5"),
        ("policy: {alpha: 0.7}", "policy.alpha: alpha is 0.7"),
        ("policy: {tasks: {unsafe: {alpha: 0.7}}}", "policy.tasks.unsafe.alpha: alpha is 0.7"),
        ("policy: {level: yes}", "policy.level is yes, which some YAML parsers"),
        ("policy: {level: .nan}", "policy.level is .nan, which is not a finite number"),
        ("policy: {level: '0.1'}", 'policy.level is "0.1": a number is expected'),
        ("policy: {levle: 0.1}", "policy.levle is not a known key"),
        ("policy: {positive_images: 0}", "policy.positive_images is 0"),
        ("cells: [{count: 10, level: 0.2}]", "cells.0.method is missing"),
        ("cells: [{method: esd, count: 0}]", "cells.0.count is 0"),
        ("limits: {}", "limits is not a known key"),
        ("- 1", "the file is [1]"),
        ("policy: 3", "policy is 3"),
        ("policy: {level: 0.1, level: 0.9}", "line 1: not readable as YAML: the key policy.level appears twice"),
        ("policy: {level: 0.1", "not readable as YAML"),
        (ACCEPTANCE, "acceptances.0: The acceptance of esd-10-lora (celebrity) has no end"),
        (ACCEPTANCE.replace("0.62", "1.2"), "acceptances.0.level is 1.2"),
        (ACCEPTANCE.replace("owner: release manager", "owner: ' '"), 'acceptances.0.owner is " ": text is expected'),
        (
            ACCEPTANCE.replace("not unlearned", "fine"),
            'acceptances.0.outcome is "fine": "unlearned", "not unlearned" or "collapsed" is expected',
        ),
        (ACCEPTANCE + "    expires: soon\n", 'acceptances.0.expires is "soon": a day is expected'),
        (ACCEPTANCE + "    bound_to: {base: abc}\n", "acceptances.0.bound_to.steps is missing"),
        (
            ACCEPTANCE
            + "    expires: 2027-01-31\n"
            + ACCEPTANCE.removeprefix("acceptances:\n")
            + "    expires: 2027-02-28\n",
            "acceptances.1 accepts esd-10-lora (celebrity) a second time",
        ),
    ],
)
def test_a_mistake_is_named_by_path_and_value(write, text, words):
    """The first line is the whole sentence: file, field, value."""
    path = write(text)
    with pytest.raises(UserError) as caught:
        load_limits(path)
    first = str(caught.value).splitlines()[0]
    assert first.startswith(str(path))
    assert words in first


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    """A missing file, a folder and bytes that are no text are sentences too."""
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "missing.yaml", tmp_path, tmp_path / "bytes.yaml"):
        with pytest.raises(UserError, match="cannot be read"):
            load_limits(path)


def test_reading_limits_imports_no_heavy_library():
    """The gate's files need no torch, numpy, scipy or pytest."""
    code = (
        "import sys, resurgence_harness.gate;"
        "print([name for name in ('numpy', 'scipy', 'torch', 'pytest', 'diffusers') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    told = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    assert told.strip() == "[]"
