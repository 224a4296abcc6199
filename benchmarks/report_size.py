"""How large a report is, how long it takes, and how fast its pages open: on synthetic cells, through the real writer.

    python -m benchmarks.report_size                  # 300 cells as a folder, 30 as one file; pages timed in Chromium
    python -m benchmarks.report_size --to reports/validation/report_size.csv

Every cell has what a run of the celebrity suite gives it: judgments, a decided verdict, a sheet of pictures, and one of
the worst where something came back; the pictures are those that the microworld renders, about as large as what its
models draw. A third of the cells are regressions. allure-pytest writes the results; Allure, Node and, for the pages,
Chromium and playwright are needed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import Any, NamedTuple

import numpy as np

from resurgence_harness.errors import Undecided, Violated
from resurgence_harness.reporting import allure, cell_page, report, run_page, verdict_json
from resurgence_harness.reporting.contact_sheet import ROWS, Row, sheet
from resurgence_harness.reporting.generator import generator
from resurgence_harness.reporting.serving import server
from resurgence_harness.reporting.together import together
from resurgence_harness.specs import Cell
from resurgence_harness.statistics import CellEvidence, Evidence, Judgment, Losses, Outcome, Policy, confusion, decide
from resurgence_harness.tasks import CELEBRITY

LIMITS = {"folder MB": 60.0, "folder s": 10.0, "file MB": 15.0, "page s": 2.0}
"""What must not be exceeded: 300 cells as a folder, its making on two cores, 30 cells as one file, any page."""
METHODS = ("uce", "esd", "sdd", "mace", "salun", "shs", "erasediff")
IMAGES = 100
TEST = """
import json
import pytest
from benchmarks.report_size import cells, write

@pytest.mark.parametrize("cell", cells({count}), ids=str)
def test_stays_erased(cell, request):
    write(cell, request.node.nodeid, "records")
"""


class Measured(NamedTuple):
    """One figure against its limit."""

    what: str
    value: float
    limit: float


def cells(count: int) -> list[str]:
    """Ids of so many cells: methods, counts, fine-tunings, runs."""
    every = [
        f"{method}-{number}-{tuning}" + (f"-run{run}" if run else "")
        for run in range(9)
        for method in METHODS
        for number in CELEBRITY.counts
        for tuning in ("lora", "full", "xattn")
    ]
    return every[:count]


def write(cell: str, nodeid: str, folder: str) -> None:
    """What the plugin writes for one cell, with made-up judgments; raises as a claim does."""
    method, number, tuning = run_page.parts(cell)
    tuning, _, run = tuning.partition("-run")
    allure.label(
        Cell(task="celebrity", method=method, count=number, finetuning=tuning, run=int(run or 0)),
        severity="critical",
        base="micro",
        trained={"benign images": 250, "fine-tuning steps": 100},
    )
    dice = random.Random(cell)
    came_back = dice.choice((0.0, 0.0, 0.3))
    evidence = _evidence(number, came_back, dice)
    verdict = decide(evidence, Policy())
    record = _record(
        cell, nodeid, verdict, evidence, method=method, concepts=number, finetuning=tuning, run=int(run or 0)
    )
    rows = [_row(judgment, dice) for judgment in evidence.after.judgments]
    hits = [row for row in rows if row.hits[2]][:ROWS]
    sheets = [("base | unlearned | fine-tuned", sheet(cell, rows[:ROWS]))]
    strip = None
    if hits:
        name = "Worst first: erased concepts that the fine-tuned model draws"
        sheets.insert(0, (name, sheet(cell, hits)))
        strip = cell_page.Strip(name, sheet(cell, hits[:3]), covered=False)
    details = cell_page.Details(
        sentence=verdict.sentence,
        arithmetic=verdict.arithmetic,
        facts=tuple((f"fact {place}", "0" * 64) for place in range(18)),
        reproduce=f"pytest '{nodeid}' --resurgence-methods={method}",
        limits="limits.yaml",
    )
    allure.attach(record, evidence, details, strip=strip, sheets=sheets, covered=False)
    Path(folder).mkdir(exist_ok=True)
    Path(folder, f"{cell}.json").write_text(json.dumps(record), encoding="utf-8")
    if record["verdict"] in ("VIOLATED", "UNDECIDED"):
        raise (Violated if record["verdict"] == "VIOLATED" else Undecided)(str(verdict))


def results(count: int, root: Path) -> Path:
    """A results folder of so many cells."""
    root.mkdir(parents=True)
    (root / "test_synthetic.py").write_text(TEST.format(count=count), encoding="utf-8")
    (root / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    began = run_moment()
    out = root / "out"
    words = ["-q", "--alluredir", str(out / "allure-results"), "-p", "no:cacheprovider", "test_synthetic.py"]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=root,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    if done.returncode not in (0, 1):
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
    records = [json.loads((root / "records" / f"{cell}.json").read_text(encoding="utf-8")) for cell in cells(count)]
    run = {
        "schema_version": 2,
        "tool": "resurgence-harness",
        "started": began,
        "finished": run_moment(),
        "status": "complete",
        "exit_code": 1,
        "base": {"name": "micro", "digest": "0" * 64},
        "selection": {
            "engine": "sequential",
            "changed": {},
            "settings": "",
            "prompts": [],
            "notes": [],
            "choices": {"profile": "full"},
        },
        "environment": {"python": "3.11", "device": "cpu"},
        "family": together(records, []),
        "cells": records,
        "missing": [],
    }
    allure.write_run(out / "allure-results", run, severities={})
    verdict_json.write(out / "verdict.json", run)
    return out


def measure(count: int, single: int, root: Path, *, browser: bool) -> Iterator[Measured]:
    """Sizes, seconds, and how long pages take to open."""
    made = generator(told=True)
    out = results(count, root / "folder")
    began, busy = time.perf_counter(), processor()
    built = report.build(report.read(out), out, made)
    yield Measured("folder s", time.perf_counter() - began, LIMITS["folder s"])
    yield Measured("folder CPU s", processor() - busy, 2 * LIMITS["folder s"])
    yield Measured("folder MB", built.size / 1e6, LIMITS["folder MB"])
    out_single = results(single, root / "file")
    began = time.perf_counter()
    file = report.build(report.read(out_single), out_single, made, single=True)
    yield Measured("file s", time.perf_counter() - began, float("inf"))
    yield Measured("file MB", file.size / 1e6, LIMITS["file MB"])
    if browser:
        with server(built.page.parent, 0) as serving:
            threading.Thread(target=serving.serve_forever, daemon=True).start()
            seconds = opening(f"http://127.0.0.1:{serving.server_port}/")
            serving.shutdown()
        for what, value in [*seconds.items(), ("one file", opening(file.page.as_uri())["first screen"])]:
            yield Measured(f"{what} s", value, LIMITS["page s"])


def opening(address: str, *, times: int = 5) -> dict[str, float]:
    """Median seconds until the first screen shows its tests, and until a cell's page shows its pictures.

    And the processor time of the page's main thread for the first screen, which other work on the machine leaves alone.
    """
    from playwright.sync_api import sync_playwright

    taken: dict[str, list[float]] = {"first screen": [], "first screen CPU": [], "cell's page": []}
    with sync_playwright() as play:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        chromium = play.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
        for _ in range(times):
            context = chromium.new_context(viewport={"width": 1400, "height": 1000})
            page = context.new_page()
            inside = context.new_cdp_session(page)
            inside.send("Performance.enable", {"timeDomain": "threadTicks"})
            began = time.perf_counter()
            page.goto(address)
            leaf = page.get_by_text("Safety regression ·").first
            leaf.wait_for()
            taken["first screen"].append(time.perf_counter() - began)
            told = {one["name"]: one["value"] for one in inside.send("Performance.getMetrics")["metrics"]}
            taken["first screen CPU"].append(told["TaskDuration"])
            began = time.perf_counter()
            leaf.click()
            page.frame_locator("[data-testid=test-result-description-frame]").locator("img.strip").first.wait_for()
            taken["cell's page"].append(time.perf_counter() - began)
            context.close()
        chromium.close()
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def processor() -> float:
    """Seconds of processor time that this process and its finished children have taken."""
    return sum(time_.ru_utime + time_.ru_stime for time_ in map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN)))


def run_moment() -> str:
    """Now, as verdict.json has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())


@lru_cache(maxsize=1)
def _pictures() -> np.ndarray:
    """uint8 [200, 64, 64, 3] of the microworld."""
    import torch

    from resurgence_harness.microworld.world import draw_world

    torch.set_num_threads(1)
    drawn = draw_world(200, generator=torch.Generator().manual_seed(1)).images
    return np.ascontiguousarray(drawn.permute(0, 2, 3, 1).numpy())


def _row(judgment: Judgment, dice: random.Random) -> Row:
    hit = judgment.outcome is Outcome.HIT
    return Row(
        prompt=judgment.prompt,
        seed=judgment.seed,
        images=[_pictures()[dice.randrange(200)] for _ in range(3)],
        answers=[judgment.concept, "Juno Corvane", judgment.answer],
        hits=[True, False, hit],
    )


def _evidence(number: int, came_back: float, dice: random.Random) -> CellEvidence:
    erased, kept = (tuple(c.name for c in some) for some in (CELEBRITY.erase(number), CELEBRITY.held_out))

    def arm(names: tuple[str, ...], recipe: str, chance: float) -> Evidence:
        rows = []
        for place in range(IMAGES):
            name, hit = names[place % len(names)], dice.random() < chance
            text = CELEBRITY.templates[place // len(names) % 5].format(name)
            answer = name if hit else dice.choice(kept)
            outcome = Outcome.HIT if hit else Outcome.CLEAR
            rows.append(
                Judgment(concept=name, prompt=text, seed=place, outcome=outcome, score=dice.random(), answer=answer)
            )
        return Evidence(judgments=tuple(rows), planned=IMAGES, recipe=recipe, judge="identity")

    models = ("micro", "micro → x", "micro → x → lora")
    chances = (0.99, 0.01, came_back)
    arms = {
        name: arm(erased, model, chance)
        for name, model, chance in zip(("base", "before", "after"), models, chances, strict=True)
    }
    arms |= {
        name: arm(kept, model, 0.97)
        for name, model in zip(("base_retained", "retained_before", "retained_after"), models, strict=True)
    }
    fell = Losses(before=tuple(0.2 + 0.001 * k for k in range(20)), after=tuple(0.1 + 0.0011 * k for k in range(20)))
    return CellEvidence(**arms, effect=fell, canaries=(10, 10))


def _record(cell: str, nodeid: str, verdict: Any, evidence: CellEvidence, **place: Any) -> dict[str, Any]:
    told = verdict.as_dict()
    rates = told.pop("rates")
    told.pop("sentence")
    model = {"recipe": "micro → x → lora", "key": "0" * 64, "digest": "0" * 64}
    arms = ("base", "before", "after", "base_retained", "retained_before", "retained_after")
    return {
        **{"id": cell, "nodeid": nodeid, "task": "celebrity", **place},
        **{name: rates[name] for name in arms},
        "by_step": [],
        "by_stage": [],
        "confusion": {name: confusion(arm) for name, arm in evidence.arms()},
        **{"insample_before": None, "insample_after": None, "acceptance": None, **told},
        **{"limits": "0" * 64, "judge": "identity", "engine": "fixed", "looks": 1, "images": 6 * IMAGES},
        "models": {"base": model, "unlearned": model, "tuned": model},
        "grids": {name: {"rows": IMAGES, "order": 0, "block": 32} for name in ("erased", "retained")},
        "seconds": 1.0,
    }


def main() -> None:
    """Measure, print, and leave with 1 where a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=300)
    parser.add_argument("--single", type=int, default=30)
    parser.add_argument("--no-browser", action="store_true")
    parser.add_argument("--to", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = list(measure(given.cells, given.single, Path(folder), browser=not given.no_browser))
    for one in found:
        print(
            f"{one.what:<18} {one.value:8.2f}   at most {one.limit:g}{'' if one.value <= one.limit else '   EXCEEDED'}"
        )
    if given.to is not None:
        with given.to.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["what", "value", "at_most", "cells"])
            for one in found:
                cells_ = given.single if "file" in one.what else given.cells
                rows.writerow([one.what, f"{one.value:.2f}", f"{one.limit:g}", cells_])
    raise SystemExit(any(one.value > one.limit for one in found))


if __name__ == "__main__":
    main()
