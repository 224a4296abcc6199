"""Makes the report of a run: reads and checks its results, labels copies of them for a reviewer, and runs Allure.

    verdict.json ─┐
                  ├─▶ labelled results of this run alone ──Allure──▶ pages ──outside requests removed──▶ report
    allure-results┘

The result files themselves are never changed. A report replaces an older one as a whole, once it is complete.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

import resurgence_harness
from resurgence_harness.errors import HarnessError, UserError, sentence, shown
from resurgence_harness.reporting import figures, run_page, shell, verdict_json
from resurgence_harness.reporting.categories import category_of
from resurgence_harness.reporting.generator import Generator
from resurgence_harness.reporting.history import History
from resurgence_harness.reporting.palette import save

VERDICTS, RESULTS = "verdict.json", "allure-results"
FOLDER, SINGLE = "allure-report", "resurgence-report.html"
"""The report: a folder for a web server, or a single file."""
HISTORY = "history.jsonl"
"""One line per run, for trends; kept beside the report."""
_AGAIN = "Run the suite again, for example: pytest suites/celebrity"


@dataclass(frozen=True, kw_only=True)
class Results:
    """One run, read and checked."""

    run: dict[str, Any]
    """verdict.json."""
    folder: Path
    """Its Allure results."""
    tests: dict[str, dict[str, Any]]
    """The results of this run, by file name."""
    left_out: int
    """Results of earlier runs in the same folder."""


@dataclass(frozen=True, kw_only=True)
class Built:
    """A finished report."""

    page: Path
    """The file to open."""
    size: int
    """Total size in bytes."""
    title: str
    left_out: int


def read_run(source: Path) -> dict[str, Any]:
    """verdict.json of a results folder; UserError if it is missing, damaged or of another version."""
    path = source / VERDICTS
    if not path.is_file():
        begun = (source / RESULTS).is_dir() and any((source / RESULTS).iterdir())
        if begun:
            raise UserError(
                sentence(
                    f"The run in {source} has no verdicts: it was stopped before its end, or is still running.",
                    missing=path,
                    do="Wait for it to end, or run the suite again: what was built is in the store.",
                )
            )
        raise UserError(
            sentence(
                f"There are no results in {source}.",
                do="Run a suite first, for example: pytest suites/celebrity; or name its folder with --from.",
            )
        )
    try:
        found = verdict_json.parsed(path)
    except UserError as error:
        reason = str(error).splitlines()[-1].strip().removeprefix("reason").strip()
        raise UserError(sentence(f"{path} is half written.", reason=reason, do=_AGAIN)) from error
    tool, schema = str(_get(found, "tool")), _get(found, "schema_version")
    ours = f"resurgence-harness {resurgence_harness.__version__}"
    if schema != verdict_json.SCHEMA_VERSION:
        raise UserError(
            sentence(
                f"The results in {source} are of another version.",
                written_by=f"{tool}, schema {schema}",
                read_by=f"{ours}, schema {verdict_json.SCHEMA_VERSION}",
                do="Run the suite again with this version, or make the report with that one.",
            )
        )
    try:
        return verdict_json.read(path).model_dump()
    except UserError as error:
        if tool == ours:
            raise
        raise UserError(
            sentence(
                f"The results in {source} are of another version.",
                written_by=tool,
                read_by=ours,
                reason=str(error).splitlines()[-1].strip(),
                do="Run the suite again with this version, or make the report with that one.",
            )
        ) from error


def read(source: Path, folder: Path | None = None) -> Results:
    """A run and its Allure results, without those of other runs; UserError if results are missing or damaged."""
    run = read_run(source)
    folder = folder or source / RESULTS
    files = sorted(folder.glob("*-result.json")) if folder.is_dir() else []
    if not files and run["gate"] and not any("::" in one["nodeid"] for one in (*run["cells"], *run["missing"])):
        raise UserError(
            sentence(
                f"The gate in {source} was run with `resurgence gate`, which writes no Allure results.",
                do="Run the same gate as pytest --pyargs resurgence_harness.gate --resurgence-policy policy.yaml, which"
                " writes them; or draw only the figures of this one with --figures DIR.",
            )
        )
    if not files:
        raise UserError(
            sentence(
                f"The run in {source} wrote no Allure results.",
                looked_in=folder,
                do="If it was started with --alluredir, name that folder with --results; else install allure-pytest and"
                " run again.",
            )
        )
    began, ended = run_page.moment_of(run["started"]), run_page.moment_of(run["finished"]) + 1000
    tests, left_out = {}, 0
    for file in files:
        result = _result(file)
        if began <= result.get("start", 0) <= ended:
            tests[file.name] = result
        else:
            left_out += 1
    _check_whole(run, folder, tests)
    return Results(run=run, folder=folder, tests=tests, left_out=left_out)


def build(results: Results, into: Path, generator: Generator, *, single: bool = False) -> Built:
    """Make the report in the folder `into`, replacing an older one."""
    place = into / (SINGLE if single else FOLDER)
    with _writable(into), tempfile.TemporaryDirectory(prefix=".report-", dir=into) as work:
        if place.is_dir() and any(place.iterdir()) and not (place / "index.html").is_file():
            raise UserError(sentence(f"{place} is not a report.", do="Move it away, or choose a folder with --to."))
        folder = Path(work)
        (folder / "results").mkdir()
        shown = stage(results, folder / "results")
        history = History(into / HISTORY, results.run)
        history.lend(folder / HISTORY)
        settings = run_page.configuration(results.run)
        settings["output"], settings["historyPath"] = "./report", f"./{HISTORY}"
        settings["plugins"]["awesome"]["options"]["singleFile"] = single
        (folder / "allurerc.json").write_text(json.dumps(settings), encoding="utf-8")
        generator.run("generate", "--config", "allurerc.json", "results", folder=folder)
        index = folder / "report" / "index.html"
        _check_made(index, shown, single=single)
        shell.finish(index)
        history.take(folder / HISTORY)
        if single:
            index.replace(place)
        else:
            _swap(folder / "report", place)
    page = place if single else place / "index.html"
    size = page.stat().st_size if single else sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    return Built(page=page, size=size, title=run_page.title(results.run), left_out=results.left_out)


def stage(results: Results, folder: Path) -> int:
    """Write the results that Allure reads into `folder`, pictures as hard links if possible; returns how many tests."""
    run = results.run
    cells = {_key(cell["nodeid"]): cell for cell in run["cells"]}
    missing = {_key(entry["nodeid"]): entry for entry in run["missing"]}
    shown = 0
    for name, result in results.tests.items():
        key = _key_of(result)
        entry = missing.get(key)
        if entry is not None and entry["kind"] != "harness error" and result.get("fullName") != entry["nodeid"]:
            continue  # a skipped or aborted test: the controller's own result for it is shown instead
        labelled = _labelled(result, cells.get(key), entry)
        (folder / name).write_text(json.dumps(labelled), encoding="utf-8")
        shown += 1
        for source in _sources(result):
            _link(results.folder / source, folder / source)
    began = run_page.moment_of(run["started"])
    for file in results.folder.iterdir():
        of_runs = file.name.endswith(("-globals.json", "-check.json", "-perf.json"))
        if file.name in _RUN_FILES or (of_runs and file.stat().st_mtime * 1000 >= began):
            _link(file, folder / file.name)
            for source in _sources(_result(file)) if file.name.endswith("-globals.json") else ():
                _link(results.folder / source, folder / source)
    _attach_run(run, folder)
    return shown


def draw_figures(source: Path, folder: Path) -> list[Path]:
    """Draw a run's figures into a folder, which is created if it is missing."""
    run = read_run(source)
    if folder.exists() and not folder.is_dir():
        raise UserError(sentence(f"{folder} is not a directory.", do="Give a directory with --figures."))
    try:
        return figures.draw(run, folder)
    except OSError as error:
        raise UserError(
            sentence(
                f"Figures cannot be written into {folder}.",
                reason=error.strerror or error,
                do="Give a directory that can be written.",
            )
        ) from error


_RUN_FILES = ("environment.properties", "executor.json", "categories.json")


def _labelled(
    result: dict[str, Any], cell: Mapping[str, Any] | None, entry: Mapping[str, Any] | None
) -> dict[str, Any]:
    """A result labelled for a reviewer: category and rates as its name, the verdict's sentence as its message."""
    labelled = {**result, "parameters": [_bare(parameter) for parameter in result.get("parameters", [])]}
    details = dict(result.get("statusDetails") or {})
    message = str(details.get("message") or "")
    category = category_of(str(result.get("status")), message)
    if cell is not None:
        before = f"{100 * cell['before']['rate']:.1f} % → " if cell["before"] is not None else ""
        rates = f"{before}{100 * cell['after']['rate']:.1f} %"
        labelled["name"] = f"{cell['id']}: {category.name if category else 'holds'} · {rates}"
    elif entry is not None:
        labelled["name"] = f"{entry['id']}: {category.name if category else result.get('status')} · no verdict"
        method, count, _ = run_page.parts(entry["id"])
        story = "1 concept" if count == 1 else f"{count} concepts"
        known = {label["name"] for label in result.get("labels", [])}
        labels = {"epic": entry["task"], "feature": method, "story": story}
        labelled["labels"] = [
            *result.get("labels", []),
            *({"name": name, "value": value} for name, value in labels.items() if name not in known),
        ]
    first, _, rest = message.partition("\n")
    if cell is not None and category is not None:
        details["message"] = re.sub(r"^[\w.]+\.(?=\w+: )\w+: ", "", first)
        details["trace"] = rest
    labelled["statusDetails"] = details or None
    return labelled


def _bare(parameter: dict[str, Any]) -> dict[str, Any]:
    """A parameter without the quotation marks that allure-pytest puts around text."""
    value = str(parameter.get("value", ""))
    quoted = len(value) > 1 and value[0] == value[-1] == "'"
    return {**parameter, "value": value[1:-1] if quoted else value}


def _attach_run(run: Mapping[str, Any], folder: Path) -> None:
    """The matrix as a picture and as CSV, every figure, and verdict.json, for the whole run."""
    attached: list[dict[str, Any]] = []

    def attach(name: str, kind: str, suffix: str, content: bytes) -> None:
        source = f"run{len(attached):02d}-attachment.{suffix}"
        (folder / source).write_bytes(content)
        attached.append(
            {"name": name, "type": kind, "source": source, "timestamp": run_page.moment_of(run["finished"])}
        )

    picture = folder.parent / "figure.png"
    for name, figure in figures.figures(run):
        save(figure, picture)
        attach(name.replace("-", " "), "image/png", "png", picture.read_bytes())
    attach("matrix as a table", "text/csv", "csv", run_page.matrix_csv(run).encode())
    attach(VERDICTS, "application/json", "json", verdict_json.readable(run, levels=2).encode())
    (folder / "figures-globals.json").write_text(json.dumps({"errors": [], "attachments": attached}), encoding="utf-8")


def _check_whole(run: Mapping[str, Any], folder: Path, tests: Mapping[str, Mapping[str, Any]]) -> None:
    """UserError if a cell has no Allure result, or a result names a file that does not exist."""
    there = Counter(_key_of(result) for result in tests.values())
    lost = [record["id"] for record in [*run["cells"], *run["missing"]] if not there[_key(record["nodeid"])]]
    if lost:
        raise UserError(
            sentence(
                f"The results in {folder} are incomplete: {len(lost)} of the run's cells have none.",
                first=lost[0],
                do=_AGAIN,
            )
        )
    for name, result in tests.items():
        for source in _sources(result):
            if not (folder / source).is_file():
                raise UserError(
                    sentence(f"The results in {folder} are half written.", result=name, missing=source, do=_AGAIN)
                )


def _check_made(index: Path, shown: int, *, single: bool) -> None:
    """HarnessError unless Allure made a page for every test: it exits with 0 even if one of its plugins fails."""
    made = -1
    if index.is_file():
        folder = index.parent / "data" / "test-results"
        page = index.read_text(encoding="utf-8") if single else ""
        made = len(set(re.findall(r"data/test-results/(\w+)\.json", page))) if single else len(list(folder.glob("*")))
    if made != shown:
        raise HarnessError(
            sentence(
                "Allure has made an incomplete report.",
                tests=shown,
                pages="no first page" if made < 0 else made,
                do="Report this with the results folder; the verdicts in verdict.json stand.",
            )
        )


class _Attachment(BaseModel):
    source: str = Field(pattern=r"^[^/\\\x00]+$")
    """Name of a file in the folder of results; not a path."""


class _Named(BaseModel):
    name: str


class _Step(BaseModel):
    attachments: list[_Attachment] | None = None
    steps: list[_Step] | None = None


class _AllureResult(_Step):
    """The fields that are read of a result that allure-pytest wrote."""

    start: int = 0
    fullName: str = ""
    name: str = ""
    status: str | None = None
    statusDetails: dict[str, Any] | None = None
    parameters: list[_Named] = []
    labels: list[_Named] = []


def _result(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        _AllureResult.model_validate(found)
    except (OSError, ValueError, RecursionError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise UserError(sentence(f"{file} is half written.", reason=reason, do=_AGAIN)) from error
    return found


def _sources(result: Mapping[str, Any]) -> Iterator[str]:
    """Names of the attached files of a result and its steps."""
    for attachment in result.get("attachments") or ():
        yield str(attachment["source"])
    for step in result.get("steps") or ():
        yield from _sources(step)


def _key(nodeid: str) -> tuple[str, str]:
    """Allure's name of a cell's test, and the cell's id."""
    path, _, rest = nodeid.partition("::")
    test, _, cell = rest.partition("[")
    *classes, name = test.split("::")
    package = path.removesuffix(".py").replace("/", ".")
    return "#".join([".".join([package, *classes]), name]), cell.removesuffix("]")


def _key_of(result: Mapping[str, Any]) -> tuple[str, str]:
    full = str(result.get("fullName", ""))
    if "::" in full:  # written by the controller for a test that never ran
        return _key(full)
    _, opened, remainder = str(result.get("name", "")).partition(f"{full.rpartition('#')[2]}[")
    if opened:
        return full, remainder.removesuffix("]")
    cell = next((_bare(one)["value"] for one in result.get("parameters", []) if one["name"] == "cell"), "")
    return full, str(cell)  # a test with its own title


def _get(found: Any, name: str) -> Any:
    return found.get(name) if isinstance(found, dict) else None


def _link(source: Path, place: Path) -> None:
    try:
        os.link(source, place)
    except OSError:
        shutil.copyfile(source, place)


def _swap(made: Path, place: Path) -> None:
    """Replace an older folder by a new one."""
    old = made.parent / "old"
    if place.exists():
        place.replace(old)
    made.replace(place)


@contextmanager
def _writable(into: Path) -> Iterator[None]:
    """Context for writing into this folder; UserError if it is not writable, HarnessError if writing fails midway."""
    try:
        into.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=into):
            pass
    except (OSError, ValueError) as error:
        raise UserError(
            sentence(
                f"The report cannot be written into {shown(str(into))}.",
                reason=getattr(error, "strerror", None) or error,
                do="Choose a folder that can be written with --to.",
            )
        ) from error
    try:
        yield
    except OSError as error:
        raise HarnessError(
            sentence(
                f"The report could not be written into {shown(str(into))}; what was written of it was removed.",
                reason=error.strerror or error,
                do="Free space there, or choose another folder with --to.",
            )
        ) from error
