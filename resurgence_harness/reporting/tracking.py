"""Logs a gate's verdict to an experiment tracker: MLflow or Weights & Biases, each an optional extra.

    parameters   policy, files and versions                                 texts    verdicts, reasons, control states
    metrics      every number of every cell, "erased-10-candidate/after.rate"        files    every report and sheet

A tracker's run is opened before any image is drawn, so that a missing or unreachable tracker is reported early. Its
address and account come from the tracker's own environment variables; none of them is written to a report.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from resurgence_harness.errors import HarnessError, UserError, sentence, shown
from resurgence_harness.process import ExitCode
from resurgence_harness.reporting import escaping
from resurgence_harness.reporting.junit import numbers

TRACKERS = {"mlflow": "resurgence_harness.reporting.to_mlflow", "wandb": "resurgence_harness.reporting.to_wandb"}
"""Name of a tracker (also of its library and its extra) → its module here."""

BROKEN = ExitCode.HARNESS_ERROR
"""Exit code for closing a run without a verdict."""


class Tracker(ABC):
    """One open run of a tracker."""

    @abstractmethod
    def log(self, run: Mapping[str, Any], files: Sequence[Path]) -> str:
        """Log the content of verdict.json and its files; returns a description of where."""

    @abstractmethod
    def close(self, code: int) -> None:
        """End the run with the gate's exit code."""


def check(names: Sequence[str]) -> None:
    """UserError for a tracker that is unknown or not installed."""
    for name in names:
        if name not in TRACKERS:
            raise UserError(
                sentence(f'There is no tracker "{shown(name)}".', do=f"Give --log {' or --log '.join(TRACKERS)}.")
            )
        found = find_spec(name)
        if found is None or found.origin is None:  # no origin: a folder of that name, not a library
            raise UserError(
                sentence(
                    f"--log {name} needs the library {name}, which is not installed.",
                    do=f'pip install "resurgence-harness[{name}]"',
                )
            )


def open_tracker(name: str, *, title: str, folder: Path) -> Tracker:
    """Open a new run of a tracker; UserError if that fails. Local files of the tracker go into `folder`."""
    try:
        tracker: Tracker = import_module(TRACKERS[name]).start(title=title, folder=folder)
    except (Exception, SystemExit) as error:
        raise UserError(
            sentence(
                f"{name} did not open a run, so nothing was drawn.",
                problem=escaping.problem(error),
                do=f"Check the tracker's own environment variables, or leave --log {name} out.",
            )
        ) from None
    return tracker


def log(name: str, tracker: Tracker, run: Mapping[str, Any], files: Sequence[Path]) -> str:
    """Log a gate, end the run, and return where it is; HarnessError if the tracker failed, which changes no verdict."""
    try:
        where = escaping.discreet(tracker.log(run, files))
        tracker.close(int(run["exit_code"]))
        return where
    except (Exception, SystemExit) as error:
        with suppress(Exception, SystemExit):
            tracker.close(BROKEN)
        raise HarnessError(
            sentence(
                f"The verdict could not be logged to {name}.",
                problem=escaping.problem(error),
                do="The reports are written; log them by hand.",
            )
        ) from None


def parameters(run: Mapping[str, Any]) -> dict[str, str]:
    """Parameters of a run: candidate, policy, files and versions."""
    gate = run["gate"]
    found = {"tool": run["tool"], "candidate": gate["candidate"], "policy": gate["policy"]["digest"]}
    found |= {f"file/{name}": digest for name, digest in gate["files"].items()}
    found |= {f"differs/{place}": one for place, one in enumerate(gate.get("differences") or (), start=1)}
    found |= {f"base/{name}": value for name, value in run["base"].items()}
    found |= {f"environment/{name}": value for name, value in run["environment"].items()}
    found |= {f"selection/{name}": json.dumps(value) for name, value in run["selection"].items()}
    return found


def metrics(run: Mapping[str, Any]) -> dict[str, float]:
    """Every number of a verdict by name."""
    together = {name: value for name, value in run["family"].items() if isinstance(value, int | float)}
    found = {"exit_code": run["exit_code"], "missing": len(run["missing"])}
    found |= {f"family/{name}": value for name, value in together.items()}
    if run["gate"]["audit"]:
        found["audit/undone"] = run["gate"]["audit"]["undone"]
    found |= {name: number for name, text in _of_cells(run) if (number := _number(text)) is not None}
    return {name: float(value) for name, value in found.items()}


def texts(run: Mapping[str, Any]) -> dict[str, str]:
    """Results of every cell that are not numbers: verdict, outcome, the states of the controls, the reason."""
    found = {name: value for name, value in _of_cells(run) if _number(value) is None and value != "None"}
    found |= {f"{cell['id']}/reason": cell["reason"].splitlines()[0] for cell in run["cells"]}
    return found | {f"{one['id']}/missing": one["why"].splitlines()[0] for one in run["missing"]}


def _of_cells(run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for cell in run["cells"]:
        for name, value in numbers(cell):
            yield f"{cell['id']}/{name}", value


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
