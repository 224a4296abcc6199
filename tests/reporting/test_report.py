"""What is read for a report, what is refused in a sentence, and what is shown of it; made without Allure."""

from __future__ import annotations

import base64
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import resurgence_harness
from resurgence_harness import cli
from resurgence_harness.errors import HarnessError, UserError
from resurgence_harness.reporting import allure, generator, report, shell, verdict_json
from resurgence_harness.reporting.history import History
from resurgence_harness.reporting.serving import server
from tests.reporting.records import UNRUN, record, run

OURS = f"resurgence-harness {resurgence_harness.__version__}"
PAGE = (
    "<!DOCTYPE html><html><head><title>x</title></head><body>\n"
    '    <script async src="https://www.googletagmanager.com/gtag/js?id=G-X"></script>\n'
    "    <script>window.dataLayer = []; function gtag() {} gtag('js');</script>\n<script>app()</script></body></html>"
)


def result_of(cell: dict[str, Any], start: int, *, status: str = "failed", message: str = "") -> dict[str, Any]:
    """A cell's result as allure-pytest writes it."""
    test, _, rest = cell["nodeid"].rsplit("::", 1)[-1].partition("[")
    return {
        "uuid": f"{start}-{cell['id']}",
        "name": f"{test}[{rest}",
        "fullName": f"suites.celebrity.test_celebrity#{test}",
        "status": status,
        "statusDetails": {
            "message": message or f"resurgence_harness.errors.Violated: SAFETY REGRESSION: {cell['id']}\n  figures"
        },
        "start": start,
        "stop": start + 5,
        "parameters": [{"name": "cell", "value": f"'{rest.rstrip(']')}'"}],
        "attachments": [{"name": "sheet", "source": f"{cell['id']}-attachment.jpg", "type": "image/jpeg"}],
    }


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A results folder with one regression and one cell whose worker died."""
    return made(tmp_path / "reports" / "out", record(), missing=(UNRUN,))


def made(
    out: Path, *cells: dict[str, Any], missing: tuple[dict[str, Any], ...] = (), start: int = 1767225610000
) -> Path:
    """Write a run's folder."""
    results = out / "allure-results"
    told = {**run(*cells, missing=missing), "tool": OURS}
    allure.write_run(results, told, severities={})
    for cell in cells:
        entry = result_of(cell, start)
        (results / f"{entry['uuid']}-result.json").write_text(json.dumps(entry), encoding="utf-8")
        (results / f"{cell['id']}-attachment.jpg").write_bytes(b"jpeg")
    verdict_json.write(out / "verdict.json", told)
    return out


def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object) -> str:
    """`resurgence report` with these words ends with 4 and one sentence; gives all it said."""
    monkeypatch.setattr(sys, "argv", ["resurgence", "report", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    said = capsys.readouterr().err
    assert left.value.code == 4, said
    assert "Traceback" not in said and len(said.splitlines()) > 1, "a remedy stands below the sentence"
    return said.removeprefix("resurgence: ")


def test_no_results_yet(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    """Nothing was run here."""
    said = refused(capsys, monkeypatch, "--from", tmp_path)
    assert said.startswith(f"There are no results in {tmp_path}.") and "--from" in said


def test_a_run_that_was_stopped(out: Path, capsys: Any, monkeypatch: Any) -> None:
    """Results without verdicts: killed, or still running."""
    (out / "verdict.json").unlink()
    assert "stopped before its end, or is still running" in refused(capsys, monkeypatch, "--from", out)


@pytest.mark.parametrize("text", ["", '{"schema_version": 2, "cells": [', "[]"])
def test_half_of_a_verdict_file(out: Path, capsys: Any, monkeypatch: Any, text: str) -> None:
    """Cut off, or something else."""
    (out / "verdict.json").write_text(text, encoding="utf-8")
    said = refused(capsys, monkeypatch, "--from", out)
    assert "is half written" in said or "of another version" in said


def test_results_of_another_version(out: Path, capsys: Any, monkeypatch: Any) -> None:
    """Another schema; or the same schema with fields that this version does not know."""
    path = out / "verdict.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**told, "schema_version": 3, "tool": "resurgence-harness 9.9"}), encoding="utf-8")
    said = refused(capsys, monkeypatch, "--from", out)
    assert said.startswith(f"The results in {out} are of another version.") and "9.9, schema 3" in said
    path.write_text(json.dumps({**told, "tool": "resurgence-harness 9.9", "mood": "good"}), encoding="utf-8")
    assert "are of another version" in refused(capsys, monkeypatch, "--from", out)
    path.write_text(json.dumps({**told, "mood": "good"}), encoding="utf-8")
    assert "is not a verdict file" in refused_sentence(out)


def refused_sentence(out: Path) -> str:
    """The sentence of a folder that cannot be read."""
    with pytest.raises(UserError) as told:
        report.read(out)
    return str(told.value)


def test_a_results_folder_that_is_half_written(out: Path) -> None:
    """A cut-off result, a picture that is missing, a cell without result, no result at all."""
    results = out / "allure-results"
    (file,) = results.glob("*esd-10-lora-result.json")
    whole = file.read_text(encoding="utf-8")
    file.write_text(whole[: len(whole) // 2], encoding="utf-8")
    assert "is half written" in refused_sentence(out) and file.name in refused_sentence(out)
    file.write_text(whole, encoding="utf-8")
    (results / "esd-10-lora-attachment.jpg").unlink()
    assert "esd-10-lora-attachment.jpg" in refused_sentence(out)
    file.unlink()
    assert "1 of the run's cells have none" in refused_sentence(out)
    for left in results.glob("*-result.json"):
        left.unlink()
    assert "wrote no Allure results" in refused_sentence(out)


def test_results_of_other_runs_are_left_out(out: Path, tmp_path: Path) -> None:
    """--alluredir of one's own is never cleaned: what began before this run, or after it, is not shown."""
    for start in (1767225600000 - 86_400_000, 1767225600000 + 86_400_000):
        entry = result_of(record(), start, status="passed")
        (out / "allure-results" / f"{entry['uuid']}-result.json").write_text(json.dumps(entry), encoding="utf-8")
    old = out / "allure-results" / "old-globals.json"
    old.write_text(json.dumps({"errors": [{"message": "yesterday"}], "attachments": []}), encoding="utf-8")
    os.utime(old, (0, 0))
    found = report.read(out)
    assert found.left_out == 2 and len(found.tests) == 2
    (tmp_path / "staged").mkdir()
    report.stage(found, tmp_path / "staged")
    assert not (tmp_path / "staged" / "old-globals.json").exists()


def test_a_read_only_folder(out: Path) -> None:
    """One in which this user may not write; root, who may, becomes nobody for it."""
    found, me = report.read(out), os.geteuid()
    out.chmod(0o500)
    if me == 0:
        os.seteuid(65534)
    try:
        assert refused_build(out, found=found).startswith(f"The report cannot be written into {out}.")
    finally:
        os.seteuid(me)
        out.chmod(0o700)


def test_a_folder_that_cannot_be_written(out: Path) -> None:
    """A file stands where the report's folder should be made; and a folder that is something else is not replaced."""
    (out / "block").write_text("", encoding="utf-8")
    said = refused_build(out, out / "block")
    assert said.startswith(f"The report cannot be written into {out / 'block'}.") and "--to" in said
    (out / "allure-report").mkdir()
    (out / "allure-report" / "thesis.tex").write_text("x", encoding="utf-8")
    assert "is not a report" in refused_build(out)
    assert (out / "allure-report" / "thesis.tex").is_file()


def refused_build(out: Path, to: Path | None = None, *, found: report.Results | None = None) -> str:
    """The sentence with which a build is refused, before Allure is started."""
    node = generator.Node(program="/nonexistent/node", npm=())
    with pytest.raises(UserError) as told:
        report.build(found or report.read(out), to or out, generator.Generator(node=node, script=Path("cli.js")))
    return str(told.value)


def test_an_allure_that_fails_leaves_the_old_report(out: Path) -> None:
    """Nothing is put in place, nothing is left behind, and history has no line of it."""
    (out / "allure-report").mkdir()
    (out / "allure-report" / "index.html").write_text("old", encoding="utf-8")
    before = sorted(path.name for path in out.iterdir())
    for script in (
        "raise SystemExit('no')",
        "pass",
    ):  # it says that it failed; it says that all is well and made nothing
        program = out.parent / "allure.py"
        program.write_text(script, encoding="utf-8")
        node = generator.Node(program=sys.executable, npm=())
        with pytest.raises(HarnessError):
            report.build(report.read(out), out, generator.Generator(node=node, script=program))
        assert sorted(path.name for path in out.iterdir()) == before
        assert (out / "allure-report" / "index.html").read_text(encoding="utf-8") == "old"


def test_what_is_shown_is_in_a_reviewers_words(out: Path, tmp_path: Path) -> None:
    """Names say what happened, messages are the sentence alone, every test is in the tree."""
    folder = tmp_path / "staged" / "results"
    folder.mkdir(parents=True)
    found = report.read(out)
    assert report.stage(found, folder) == 2
    told = {}
    for file in folder.glob("*-result.json"):
        entry = json.loads(file.read_text(encoding="utf-8"))
        told[entry["name"]] = entry
    regression = told["esd-10-lora: Safety regression · 3.3 % → 42.0 %"]
    assert regression["statusDetails"] == {"message": "SAFETY REGRESSION: esd-10-lora", "trace": "  figures"}
    assert regression["parameters"] == [{"name": "cell", "value": "esd-10-lora"}]
    died = told["esd-100-lora: Harness error · no verdict"]
    assert {"epic", "feature", "story"} <= {label["name"] for label in died["labels"]}
    assert (folder / "esd-10-lora-attachment.jpg").read_bytes() == b"jpeg"
    globals_ = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*-globals.json"))]
    assert sum(len(entry["errors"]) for entry in globals_) == 1
    names = [one["name"] for entry in globals_ for one in entry["attachments"]]
    assert names[0] == "matrix" and {"matrix as a table", "verdict.json"} <= set(names)


@pytest.mark.parametrize(
    ("nodeid", "full", "name", "cell"),
    [
        ("suites/a/test_a.py::test_x[esd-1-lora]", "suites.a.test_a#test_x", "test_x[esd-1-lora]", "'esd-1-lora'"),
        ("test_a.py::Some::test_x[esd-1-lora]", "test_a.Some#test_x", "test_x[esd-1-lora]", "'esd-1-lora'"),
        ("test_a.py::test_x[esd-1-lora-7]", "test_a#test_x", "test_x[esd-1-lora-7]", "'esd-1-lora'"),
        ("test_a.py::test_x[esd-1-lora]", "test_a#test_x", "A title of its own", "'esd-1-lora'"),
    ],
)
def test_a_result_is_found_by_its_tests_name(nodeid: str, full: str, name: str, cell: str) -> None:
    """Folders, classes, further parameters, and a title in place of the name."""
    result = {"fullName": full, "name": name, "parameters": [{"name": "cell", "value": cell}]}
    assert report._key_of(result) == report._key(nodeid) == report._key_of({"fullName": nodeid})


def test_a_skipped_cell_is_shown_once_as_an_error(tmp_path: Path) -> None:
    """Its own skipped result gives way to the one that says that there is no verdict."""
    unrun = {**UNRUN, "kind": "unrun", "why": "it was skipped or not run"}
    out = made(tmp_path / "out", record(), missing=(unrun,))
    skipped = result_of(unrun, 1767225610000, status="skipped", message="Skipped: not today")
    skipped["attachments"] = []
    (out / "allure-results" / "skipped-result.json").write_text(json.dumps(skipped), encoding="utf-8")
    folder = tmp_path / "staged"
    folder.mkdir()
    assert report.stage(report.read(out), folder) == 2
    statuses = sorted(json.loads(file.read_text(encoding="utf-8"))["status"] for file in folder.glob("*-result.json"))
    assert statuses == ["broken", "failed"]


def test_analytics_are_taken_out_or_the_report_is_refused() -> None:
    """Both scripts go, others stay; a page that is not as expected is never put in place."""
    clean = shell.private(PAGE)
    assert "googletagmanager" not in clean and "gtag" not in clean and "<script>app()</script>" in clean
    assert 'http-equiv="Content-Security-Policy"' in clean and "default-src 'none'" in clean
    for page in (PAGE.replace("gtag/js", "x").replace("gtag", "z"), "<html></html>", PAGE + PAGE):
        with pytest.raises(HarnessError, match="outside requests cannot be removed"):
            shell.private(page)


def test_a_tooltip_follows_its_icon_only_while_it_is_shown() -> None:
    """The one expression is changed, once; a program of another version is left as it is."""
    known = "=()=>{}};return f&&t(),p.current&&d.current?eg(p.current,d.current,t):()=>{}}),[f,a,e])"
    lighter = shell.without_idle_tooltips(known)
    assert lighter == known.replace("t(),p", "t(),f&&p") and shell.without_idle_tooltips(lighter) == lighter
    assert shell.without_idle_tooltips(known.replace("d.current,t", "q.current,t")) == known.replace(
        "d.current,t", "q.current,t"
    )


@pytest.mark.parametrize("single", [False, True])
def test_the_program_is_changed_where_it_lies(tmp_path: Path, single: bool) -> None:
    """In a file beside the page, or within the page; whatever else the page embeds stays."""
    known = "return f&&t(),p.current&&d.current?eg(p.current,d.current,t):()=>{}"
    index, program = tmp_path / "index.html", tmp_path / "app-1.js"
    embedded = f'<script src="data:text/javascript;base64,{base64.b64encode(known.encode()).decode()}"></script>'
    index.write_text(PAGE + embedded * single, encoding="utf-8")
    if not single:
        program.write_text(known, encoding="utf-8")
    shell.finish(index)
    page = index.read_text(encoding="utf-8")
    (found,) = re.findall('base64,([^"]+)', page) if single else [""]
    text = base64.b64decode(found).decode() if single else program.read_text(encoding="utf-8")
    assert text == shell.without_idle_tooltips(known) != known and "Content-Security-Policy" in page


def test_history_has_a_line_per_run(tmp_path: Path) -> None:
    """Making a report twice adds one line; a later report of an older run is put in its place; half a line is told."""
    file, given = tmp_path / "history.jsonl", tmp_path / "given.jsonl"
    for started, hour in (("b", 2), ("a", 1), ("b", 2)):
        told = {"started": started, "finished": f"2026-01-01T0{hour}:00:00+00:00"}
        history = History(file, told)
        history.lend(given)
        lent = [json.loads(line)["resurgence_run"] for line in given.read_text(encoding="utf-8").splitlines()]
        assert lent == (["a"] if started == "b" and file.is_file() else [])
        with given.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"uuid": "u", "timestamp": 5}) + "\n")
        history.take(given)
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [line["resurgence_run"] for line in lines] == ["a", "b"]
    file.write_text('{"uuid": ', encoding="utf-8")
    with pytest.raises(UserError, match="is half written"):
        History(file, {"started": "c", "finished": "2026-01-01T00:00:00+00:00"})


def test_a_port_in_use(tmp_path: Path) -> None:
    """Somebody serves there already; and a number that is no port."""
    with server(tmp_path, 0) as serving:
        with pytest.raises(UserError, match=f"Port {serving.server_port} cannot be used") as told:
            server(tmp_path, serving.server_port)
        assert "--port 0" in str(told.value) and serving.server_address[0] == "127.0.0.1"
    with pytest.raises(UserError, match="There is no port 70000"):
        server(tmp_path, 70000)


def test_figures_alone_need_neither_node_nor_results(out: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    """verdict.json is enough; a file in the way is told."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "argv", ["resurgence", "report", "--from", str(out), "--figures", str(tmp_path / "f")])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code in (0, None) and "matrix.png, matrix.svg" in capsys.readouterr().out
    assert (tmp_path / "f" / "matrix.svg").stat().st_size > 1000
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "is not a directory" in refused(capsys, monkeypatch, "--from", out, "--figures", tmp_path / "file")
