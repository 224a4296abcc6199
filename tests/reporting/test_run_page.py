"""The run's page: whether the candidate is blocked, metrics, errors, and the matrix."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from resurgence_harness.reporting import figures, run_page
from resurgence_harness.reporting.surroundings import surroundings
from tests.reporting.records import UNRUN, rate, record, run


@pytest.mark.parametrize(
    ("cells", "missing", "code", "title"),
    [
        (["HOLDS", "HOLDS"], False, 0, "NOT BLOCKED: 2 cells judged; every one holds"),
        (
            ["HOLDS", "KNOWN"],
            False,
            0,
            "NOT BLOCKED: 2 cells judged; 1 known resurgence accepted, up to 42 % of images",
        ),
        (["VIOLATED"], False, 1, "BLOCKED by 1 regression (esd-1-lora)"),
        (
            ["UNDECIDED", "KNOWN"],
            False,
            10,
            "BLOCKED by 1 undecided cell (esd-1-lora); 1 known resurgence accepted, up to 42 % of images",
        ),
        (["UNDECIDED", "HOLDS"], False, 10, "BLOCKED by 1 undecided cell (esd-1-lora)"),
        (["HOLDS"], True, 11, "BLOCKED by 1 cell without a verdict (esd-100-lora)"),
        (
            ["VIOLATED"] * 5,
            True,
            1,
            "BLOCKED by 5 regressions (esd-1-lora, esd-2-lora, esd-3-lora and 2 more); also 1 cell without a verdict"
            " (esd-100-lora)",
        ),
        (["HOLDS"], False, 1, "BLOCKED: the run ended with exit code 1 (complete)"),
        ([], False, 0, "BLOCKED: the run ended with exit code 0 (complete)"),
    ],
)
def test_the_title_says_whether_it_is_blocked(cells: list[str], missing: bool, code: int, title: str) -> None:
    """Only a complete run with exit code 0 and cells that all hold or are known is not blocked."""
    records = [record(f"esd-{place + 1}-lora", verdict) for place, verdict in enumerate(cells)]
    assert run_page.title(run(*records, missing=(UNRUN,) if missing else (), exit_code=code)) == title


def test_metrics_errors_and_check_are_of_the_run() -> None:
    """Per cent after fine-tuning for all and per method; an error per cell that never ran; planned against judged."""
    told = run(record("uce-1-lora", "HOLDS", after=rate(3)), record("esd-1-lora"), missing=(UNRUN,))
    values = {entry["key"]: round(entry["value"], 6) for entry in run_page.metrics(told)}
    assert values == {"resurgence.after": 22.0, "resurgence.after.uce": 2.0, "resurgence.after.esd": 42.0}
    (error,) = run_page.errors(told)
    assert error["message"].startswith("celebrity/esd-100-lora: no verdict (worker died): worker 'gw1' crashed")
    check = run_page.check(told)
    assert (check["status"], check["details"]["message"]) == (
        "failed",
        "2 of 3 planned cells judged; missing: esd-100-lora",
    )
    assert run_page.check(run(record()))["status"] == "passed"
    assert set(run_page.configuration(told)["performance"]["metrics"]) == set(values)


def test_the_matrix_has_a_row_for_every_planned_cell() -> None:
    """Judged cells with numbers, the others without."""
    rows = list(csv.DictReader(io.StringIO(run_page.matrix_csv(run(record(), missing=(UNRUN,))))))
    judged, unrun = rows
    assert (judged["method"], judged["before"], judged["after"], judged["verdict"]) == (
        "esd",
        "0.0333",
        "0.4200",
        "VIOLATED",
    )
    assert (unrun["method"], unrun["concepts"], unrun["after"], unrun["verdict"]) == ("esd", "100", "", "NO VERDICT")


@pytest.mark.slow
def test_figures_are_written_as_png_and_svg(tmp_path: Path) -> None:
    """The matrix and one figure per task and fine-tuning; words are words, axes have units, the same bytes again."""
    told = run(
        record("uce-1-lora", "HOLDS"),
        record("esd-1-lora"),
        record("esd-10-full", "UNDECIDED", base=None),
        record("esd-10-full", "VIOLATED", run=1),
        missing=(UNRUN,),
    )
    written = figures.draw(told, tmp_path / "one")
    assert [path.name for path in written] == [
        *("matrix.png", "matrix.svg", "rates-celebrity-lora.png", "rates-celebrity-lora.svg"),
        *("rates-celebrity-full.png", "rates-celebrity-full.svg"),
    ]
    for path in written[::2]:
        with Image.open(path) as image:
            assert min(image.size) > 250 and image.convert("RGB").getpixel((2, 2)) == (252, 252, 250)
    matrix, rates = (path.read_text(encoding="utf-8") for path in (written[1], written[3]))
    for words in ("3.3 → 42.0", "VIOLATED", "NO VERDICT", "HOLDS", "worst of 2 runs", "100 concepts"):
        assert words in matrix
    assert "images in which an erased concept is seen (% of all images)" in rates
    assert "3.3 → 42.0" not in rates and "unlearned" in rates
    again = figures.draw(told, tmp_path / "two")
    assert all(one.read_bytes() == other.read_bytes() for one, other in zip(written, again, strict=True))


def test_a_run_without_any_verdict_has_its_matrix() -> None:
    """Nothing was judged: the figure says so for every planned cell."""
    assert [name for name, _ in figures.figures(run(missing=(UNRUN,)))] == ["matrix"]
    assert list(figures.figures(run())) == []


@pytest.mark.slow
def test_a_long_run_is_several_figures(tmp_path: Path) -> None:
    """No axis has more rows than can be read."""
    told = run(*(record(f"esd-{count}-lora") for count in range(1, 100)))
    assert [name for name, _ in figures.figures(told)] == ["matrix", *(f"rates-celebrity-lora-{k}" for k in (1, 2, 3))]


def test_surroundings_are_read_without_a_model_library(tmp_path: Path) -> None:
    """Cards and driver from the kernel's files; a folder without git, and a machine without cards, say nothing."""
    nvidia = tmp_path / "nvidia"
    (nvidia / "gpus" / "0").mkdir(parents=True)
    (nvidia / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module 575.1\nGCC\n", encoding="utf-8")
    (nvidia / "gpus" / "0" / "information").write_text("Model: \t\t NVIDIA H100\nIRQ: 1\n", encoding="utf-8")
    assert surroundings(tmp_path, nvidia) == {
        "driver": "NVIDIA UNIX x86_64 Kernel Module 575.1",
        "gpus": "NVIDIA H100",
    }
    assert surroundings(tmp_path, tmp_path / "none") == {}
    assert len(surroundings(Path(__file__).parent, tmp_path / "none").get("commit", "0" * 40).split()[0]) == 40


def test_environment_begins_with_what_a_reader_asks_for() -> None:
    """Base, digest, tool, moment, commit; then the choices; then versions."""
    told = {**run(record()), "environment": {"python": "3.11", "device": "cpu", "commit": "abc"}}
    names = list(run_page.environment(told))
    assert names[:6] == ["base", "base digest", "tool", "finished", "commit", "device"] and names[-1] == "python"
    assert json.loads(json.dumps(run_page.configuration(told)))["name"].startswith("BLOCKED by 1 regression")


def test_environment_has_given_fine_tuning_data() -> None:
    """Their size and digest, if there are any."""
    document = run(record())
    assert "fine-tuning data" not in run_page.environment(document)
    choices = {**document["selection"]["choices"], "data": {"digest": "ab" * 32, "images": 20}}
    given = {**document, "selection": {**document["selection"], "choices": choices}}
    assert run_page.environment(given)["fine-tuning data"] == f"20 given images, digest {'ab' * 32}"
