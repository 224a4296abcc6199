"""What was not judged is missing: a gate's groups come from its policy, a suite's cells from what collection found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from resurgence_harness.pytest_plugin.ledger import Ledger
from resurgence_harness.reporting import attestation, terminal
from tests.days import TO_COME
from tests.plugin.conftest import Folder, Ran

pytestmark = pytest.mark.slow

POLICY = """\
version: 1
task: celebrity
models: {candidate: micro}
concepts: {erased: [Alba Drummond, Ivo Yarrow]}
groups: {one: {concepts: [Alba Drummond]}, two: {concepts: [Ivo Yarrow]}}
"""
GATE = ("--pyargs", "resurgence_harness.gate", "--resurgence-policy=policy.yaml", "-p", "vanish")
HOOKS = {
    "modifyitems": "def pytest_collection_modifyitems(items): items.clear()",
    "a late wrapper": (
        "import pytest\n"
        "@pytest.hookimpl(wrapper=True, tryfirst=True)\n"
        "def pytest_collection_modifyitems(items):\n    yield\n    items.clear()"
    ),
    "never collected": "def pytest_pycollect_makeitem(): return []",
    "ignored": "def pytest_ignore_collect(): return True",
    "skipped": "import pytest\ndef pytest_runtest_setup(): pytest.skip('not today')",
    "not run": "def pytest_runtest_protocol(): return True",
    "a passing report": "def pytest_runtest_call(item): item.obj = lambda **given: None",
    "exit with 0": "import pytest\ndef pytest_runtest_setup(): pytest.exit('enough', returncode=0)",
    "exit with 1": "import pytest\ndef pytest_runtest_setup(): pytest.exit('enough', returncode=1)",
    "a timeout": "import pytest\ndef pytest_runtest_setup(): pytest.fail('Timeout (>1.0s) from pytest-timeout.')",
}
"""What a plugin can do to the gate's tests; all of them stand in for plugins that people have installed."""
LEAVING = {
    "pytest.exit": "import pytest\ndef pytest_sessionfinish(): pytest.exit('enough', returncode=0)",
    "another code": (
        "import pytest\n@pytest.hookimpl(trylast=True)\ndef pytest_sessionfinish(session): session.exitstatus = 0"
    ),
}
"""Ways to leave with 0 after everything was judged."""
OPTIONS = {
    "-k": ("-k", "nothing"),
    "-m": ("-m", "nothing"),
    "--setup-plan": ("--setup-plan",),
    "--setup-only": ("--setup-only",),
}


@pytest.fixture
def gate(folder: Folder) -> Folder:
    """A folder with a policy of two groups, about the embedded model."""
    folder.write("policy.yaml", POLICY)
    folder.write("vanish.py", "")
    folder.environment["PYTHONPATH"] = f"{folder.path}:{folder.env()['PYTHONPATH']}"
    return folder


def incomplete(folder: Folder, ran: Ran) -> None:
    """Nothing was judged: 11, both groups missing, no statement that it passed."""
    said = ran.output + ran.errors
    assert ran.code == 11, said
    assert "INTERNALERROR" not in said and "Traceback" not in said
    run = ran.verdicts
    assert (run["status"], run["exit_code"], run["cells"]) == ("incomplete", 11, [])
    assert [one["id"] for one in run["missing"]] == ["one-1-candidate", "two-1-candidate"]
    out = folder.path / "reports/out"
    statement = json.loads((out / "attestation.json").read_text(encoding="utf-8"))["predicate"]
    assert statement["result"] == "FAILED"
    assert statement["failedTests"] == ["celebrity/one-1-candidate", "celebrity/two-1-candidate"]
    (told,) = (one for one in statement["configuration"] if one["name"] == "run")
    assert told["uri"] == f"urn:uuid:{run['run_id']}"
    assert run["run_id"] in (out / "junit.xml").read_text(encoding="utf-8")
    summary = (out / "summary.md").read_text(encoding="utf-8")
    assert "0 of 2 groups judged" in summary.splitlines()[0] and run["run_id"] in summary


@pytest.mark.parametrize("how", HOOKS)
def test_a_group_that_a_plugin_makes_vanish_is_missing(gate: Folder, how: str) -> None:
    """Whatever a hook does to items, reports, the session or the exit code."""
    gate.write("vanish.py", HOOKS[how])
    incomplete(gate, gate.run(*GATE, "-n", "0"))


@pytest.mark.parametrize("how", LEAVING)
def test_a_regression_stands_whatever_a_plugin_says_at_the_end(gate: Folder, how: str) -> None:
    """The embedded model was never unlearned: 1 and FAILED, though a plugin leaves with 0."""
    gate.write("vanish.py", LEAVING[how])
    ran = gate.run(*GATE, "-n", "0")
    assert ran.code == 1, ran.output + ran.errors
    assert {one["verdict"] for one in ran.verdicts["cells"]} == {"VIOLATED"}
    assert "2 cells: 2 violated. Exit code 1" in ran.output + ran.errors
    statement = json.loads((gate.path / "reports/out/attestation.json").read_text(encoding="utf-8"))
    assert statement["predicate"]["result"] == "FAILED"


@pytest.mark.parametrize("how", OPTIONS)
def test_a_group_that_an_option_leaves_out_is_missing(gate: Folder, how: str) -> None:
    """Selection is for suites; the first line says how many of how many were judged."""
    ran = gate.run(*GATE, "-n", "0", *OPTIONS[how])
    incomplete(gate, ran)
    lines = ran.output.splitlines()
    assert lines[next(place for place, line in enumerate(lines) if " resurgence " in line) + 1].startswith("0 of 2")


@pytest.mark.parametrize("workers", ["0", "2"])
def test_options_of_the_environment_leave_nothing_out(gate: Folder, workers: str) -> None:
    """PYTEST_ADDOPTS and a dead worker's share are no way around the policy either."""
    gate.environment["PYTEST_ADDOPTS"] = "-k nothing"
    incomplete(gate, gate.run(*GATE, "-n", workers))


SHOWING = ("--help", "-h", "-VV", "--markers", "--fixtures", "--fixtures-per-test", "--collect-only")
"""What makes pytest show something and end with 0."""


@pytest.mark.parametrize("showing", SHOWING)
def test_a_gate_that_is_made_to_show_something_does_not_pass(gate: Folder, showing: str) -> None:
    """Options of the environment, too, which stand before those of the command: 11, one line that says why."""
    gate.environment["PYTEST_ADDOPTS"] = showing
    ran = gate.run(*GATE, "-n", "0")
    assert ran.code == 11, ran.output + ran.errors
    assert "No group of the policy was judged" in ran.output + ran.errors
    assert not (gate.path / "reports/out").exists()


@pytest.mark.parametrize("arguments", [("--help", *GATE), (*GATE, "--help"), ("--help", GATE[0], GATE[1])])
def test_help_on_a_gate_s_own_command_line_does_not_pass(gate: Folder, arguments: tuple[str, ...]) -> None:
    """Wherever --help stands, with the policy from the environment as well."""
    gate.environment["RESURGENCE_POLICY"] = "policy.yaml"
    assert gate.run(*arguments).code == 11


def test_a_version_in_the_environment_hides_nothing(gate: Folder) -> None:
    """pytest passes over a single --version there: the run goes on, and what it did not judge is missing."""
    gate.environment["PYTEST_ADDOPTS"] = "--version -k nothing"
    incomplete(gate, gate.run(*GATE, "-n", "0"))


ACCEPTANCES = """\
acceptances:
- {task: celebrity, method: three, count: 1, finetuning: candidate, concepts: [Alba Drummond],
   level: 0.9, reason: known, owner: release, expires: %s}
"""


def test_an_acceptance_of_nothing_is_said_at_the_end(gate: Folder) -> None:
    """In the closing lines, in verdict.json and in the job summary."""
    gate.write("policy.yaml", POLICY + "acceptances: acceptances.yaml\n")
    gate.write("acceptances.yaml", ACCEPTANCES % TO_COME)
    ran = gate.run(*GATE, "-n", "0", "-k", "nothing")
    said = "Acceptances: there is no cell three-1-candidate (celebrity); remove it, or correct its cell."
    incomplete(gate, ran)
    assert said in ran.output and ran.verdicts["gate"]["notes"].count(said) == 1
    assert "there is no cell three-1-candidate" in (gate.path / "reports/out/summary.md").read_text(encoding="utf-8")


def test_a_summary_over_a_report_is_refused_before_the_run(gate: Folder) -> None:
    """As by `resurgence gate`: 4, and nothing is written."""
    gate.environment["GITHUB_STEP_SUMMARY"] = "reports/out/verdict.json"
    ran = gate.run(*GATE, "-n", "0")
    assert ran.code == 4 and "The job summary would be appended to a report of this run." in ran.output + ran.errors
    assert not (gate.path / "reports/out/verdict.json").exists()


def test_a_policy_without_its_gate_is_incomplete(gate: Folder) -> None:
    """A gate was asked for, and only something else ran: neither a passing test nor none at all is a pass."""
    gate.write("test_plain.py", "def test_plain(): pass")
    incomplete(gate, gate.run("--resurgence-policy=policy.yaml", "test_plain.py", "-n", "0"))


def test_collecting_alone_is_no_pass_and_removes_nothing(gate: Folder) -> None:
    """--collect-only judges nothing: 11; and it is no run, so what lies there stays."""
    old = gate.write("reports/out/verdict.json", "{}")
    ran = gate.run(*GATE, "-n", "0", "--collect-only", "-q")
    assert ran.code == 11 and "No group of the policy was judged" in ran.output, ran.output + ran.errors
    assert old.read_text(encoding="utf-8") == "{}"


@pytest.mark.parametrize("ending", [("--no-such-option",), ("--resurgence-engine=none",)])
def test_old_results_go_whatever_the_run_ends_with(gate: Folder, ending: tuple[str, ...]) -> None:
    """An unknown option and one that means nothing: 4, and nothing is left that says otherwise."""
    names = ("verdict.json", "attestation.json", "junit.xml", "summary.md", "contact-sheet-one.jpg")
    old = [gate.write(f"reports/out/{name}", "{}") for name in (*names, "allure-results/1-result.json")]
    ran = gate.run(*GATE, "-n", "0", *ending)
    left = [path.name for path in old if path.exists()]
    assert (ran.code, left) == (4, []), ran.output + ran.errors


@pytest.mark.parametrize("showing", ["--help", "--version", "--markers", "--fixtures", "--collect-only"])
def test_showing_something_removes_nothing(suite: Folder, showing: str) -> None:
    """What only shows something is no run."""
    old = suite.write("reports/out/verdict.json", "{}")
    assert suite.run(showing, "-q").code == 0
    assert old.exists()


def test_a_suite_chooses_its_cells_and_says_so(suite: Folder) -> None:
    """-k leaves out one of two; a plugin that takes a cell away without pytest's hook leaves it missing."""
    idle = "import pytest\npytestmark = pytest.mark.resurgence(task='tiny')\ndef test_idle(claim): pass\n"
    suite.write("test_tiny.py", idle)
    ran = suite.run("-n", "0", "-k", "uce")
    assert ran.code == 11 and "0 of 1 cells judged, 1 of 2 cells selected." in ran.output, ran.output
    assert ran.verdicts["selected"] == {"cells": 1, "of": 2}
    suite.write("pytest.ini", "[pytest]\nresurgence_methods = uce,esd\naddopts = -p taking\npythonpath = .\n")
    suite.write("taking.py", "def pytest_collection_modifyitems(items): items.clear()")
    ran = suite.run("-n", "0")
    assert ran.code == 11 and len(ran.verdicts["missing"]) == 2, ran.output + ran.errors
    assert {one["why"] for one in ran.verdicts["missing"]} == {
        "it was collected, but a plugin or a conftest.py removed it"
    }


# The ledger alone, with pytest's own reports


def report(nodeid: str, *properties: tuple[str, Any], when: Any = "call", outcome: Any = "passed") -> pytest.TestReport:
    """What pytest, xdist or pytest-forked sends."""
    place = (nodeid.partition("::")[0], 1, nodeid)
    return pytest.TestReport(nodeid, place, {}, outcome, "why", when, user_properties=list(properties))


def entry(nodeid: str, cell: str, *, gone: str = "") -> dict[str, Any]:
    """A collected test of a cell."""
    named = {"key": f"test_x {cell}", "id": cell, "task": "tiny", "nodeid": nodeid, "folder": "here"}
    return named | ({"gone": gone} if gone else {})


def judged(cell: str, verdict: str) -> tuple[str, str]:
    """The property that carries a cell's record."""
    return "resurgence_cell", json.dumps({"id": cell, "task": "tiny", "verdict": verdict})


def test_a_cell_that_is_repeated_is_one_cell_and_its_worst_verdict_stands() -> None:
    """pytest-repeat's --count and --dist each: two tests, one cell; one of them without a verdict is a missing cell."""
    ledger = Ledger()
    ledger.plan([entry("t.py::test[a-1-2]", "a"), entry("t.py::test[a-2-2]", "a")], found=1)
    assert len(ledger.planned) == 1
    ledger.reported(report("t.py::test[a-1-2]", judged("a", "HOLDS")))
    assert [one["nodeid"] for one in ledger.missing("unrun")] == ["t.py::test[a-2-2]"] and not ledger.records()
    ledger.reported(report("t.py::test[a-2-2]", judged("a", "UNDECIDED"), outcome="failed"))
    assert not ledger.missing("unrun") and [one["verdict"] for one in ledger.records()] == ["UNDECIDED"]


def test_what_breaks_afterwards_takes_no_regression_back_and_lets_nothing_pass() -> None:
    """A harness error after the verdict: VIOLATED stays, HOLDS is missing."""
    ledger = Ledger()
    ledger.plan([entry("t.py::test[a]", "a"), entry("t.py::test[b]", "b")])
    for cell, verdict in (("a", "VIOLATED"), ("b", "HOLDS")):
        ledger.reported(report(f"t.py::test[{cell}]", judged(cell, verdict)))
        broken = ("resurgence_harness_error", "OSError: full")
        ledger.reported(report(f"t.py::test[{cell}]", broken, when="teardown", outcome="failed"))
    assert [one["id"] for one in ledger.records()] == ["a"] and ledger.violated
    assert [(one["id"], one["kind"]) for one in ledger.missing("unrun")] == [("b", "harness error")]


def test_a_dead_process_is_known_whatever_it_ran() -> None:
    """xdist and pytest-forked report a crash of a test that is no cell as well."""
    ledger = Ledger()
    ledger.plan([entry("t.py::test[a]", "a")])
    ledger.reported(report("t.py::test[a]", judged("a", "HOLDS")))
    ledger.reported(report("other.py::test", when="???", outcome="failed"))
    assert ledger.lost_worker and not ledger.missing("unrun")


def test_a_statement_passes_only_for_every_group(tmp_path: Path) -> None:
    """The attestation looks at the policy's groups itself; a cell of a suite beside them says nothing of the model."""
    cells = [{"task": "t", "id": name, "verdict": "HOLDS", "models": {}} for name in ("one", "two", "of-a-suite")]
    run: dict[str, Any] = {
        "exit_code": 0,
        "status": "complete",
        "cells": cells,
        "missing": [],
        "run_id": "1",
        "started": "s",
        "finished": "f",
        "gate": {
            "groups": ["t/one", "t/two"],
            "files": {"unet": "00"},
            "policy": {"path": "p", "digest": "0", "acceptances": None},
        },
    }
    told = attestation.statement(run)["predicate"]
    assert (told["result"], told["passedTests"]) == ("PASSED", ["t/one", "t/two"])
    for change in ({"cells": cells[1:]}, {"status": "incomplete"}, {"exit_code": 12}, {"cells": []}):
        assert attestation.statement(run | change)["predicate"]["result"] == "FAILED", change
    assert terminal.completeness(run | {"missing": [{}], "cells": cells[:1]}) == "1 of 2 groups judged"
