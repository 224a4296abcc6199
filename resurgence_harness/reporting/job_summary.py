"""A CI job's summary in Markdown, and the annotations of a GitHub workflow.

The summary stays under `LARGEST` bytes, above which GitHub drops it; a note says if rows were left out. Annotations
are for cells that do not pass, regressions first, at most ten: GitHub shows no more of one kind.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from resurgence_harness.errors import HarnessError, sentence, shown
from resurgence_harness.process import MEANINGS
from resurgence_harness.reporting.escaping import command, markdown, parameter
from resurgence_harness.reporting.file_set import encoded
from resurgence_harness.reporting.terminal import completeness

LARGEST = 1_000_000
"""Bytes; GitHub's limit is 1 MiB per step."""
ANNOTATIONS = 10
ARMS = ("base", "before", "after", "as_parent")
"""The rates of erased concepts that have a column; the last only if a cell has it."""
SIGNS = {"HOLDS": "✅", "KNOWN": "🟡", "VIOLATED": "❌", "UNDECIDED": "❔"}
_CUT = "\n*More cells are in verdict.json; they do not fit here.*\n"


def summary(run: Mapping[str, Any]) -> str:
    """The Markdown."""
    code, gate = run["exit_code"], run.get("gate")
    part = completeness(run)
    lines = [f"## Resurgence: {part + ', ' if part else ''}exit code {code}, {MEANINGS.get(code, 'see the log')}", ""]
    if gate:
        lines += [f"Candidate {markdown(gate['candidate'])}, policy `{gate['policy']['digest'][:16]}`.", ""]
        lines += [f"* {markdown(note)}" for note in gate["notes"]]
        lines += [f"* Differs from its parent: {markdown(one)}" for one in gate.get("differences") or ()]
        lines += [f"* Weight audit (advisory): {markdown(gate['audit']['words'])}"] if gate["audit"] else []
        lines.append("")
    shown = ARMS if any(cell.get("as_parent") for cell in run["cells"]) else ARMS[:-1]
    named = [arm.replace("_", " ") for arm in shown]
    lines += [f"| | cell | {' | '.join(named)} | retained | why |", f"|---|---|{'---|' * len(named)}---|---|"]
    head, tail = "\n".join(lines) + "\n", [f"\n{run['tool']}, {markdown(run['finished'])}{_identity(run)}\n"]
    rows = [_row(cell, shown) for cell in run["cells"]]
    none = "| " * len(shown)
    rows += [f"| ⛔ | {markdown(one['id'])} {none}| | {markdown(one['why'])} |\n" for one in run["missing"]]
    room = LARGEST - len((head + _CUT + tail[0]).encode())
    kept = []
    for row in rows:
        room -= len(row.encode())
        if room < 0:
            tail.insert(0, _CUT)
            break
        kept.append(row)
    return head + "".join(kept) + "".join(tail)


def errors(run: Mapping[str, Any]) -> list[str]:
    """Workflow commands, one per line."""
    blocking = sorted(
        (cell for cell in run["cells"] if cell["verdict"] in ("VIOLATED", "UNDECIDED")),
        key=lambda cell: cell["verdict"] != "VIOLATED",
    )
    lines = [(f"{one['id']} {one['verdict']}", one["reason"].splitlines()[0]) for one in blocking]
    lines += [(f"{one['id']} has no verdict", one["why"]) for one in run["missing"]]
    return [f"::error title={parameter(title)}::{command(why)}" for title, why in lines[:ANNOTATIONS]]


def append(run: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> None:
    """Append the summary to $GITHUB_STEP_SUMMARY; HarnessError if that fails, and then no part of it is left."""
    place = environ.get("GITHUB_STEP_SUMMARY")
    if not place:
        return
    try:
        with Path(place).open("ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END) if file.seekable() else None
            content = encoded(summary(run))
            try:
                while content:
                    content = content[file.write(content) :]
            except OSError:
                with suppress(OSError):
                    if before is not None:
                        file.truncate(before)
                raise
    except (OSError, ValueError) as error:
        raise HarnessError(
            sentence(
                "The job summary cannot be written; the verdict is not changed by that.",
                GITHUB_STEP_SUMMARY=shown(place),
                reason=getattr(error, "strerror", None) or error,
                do="The same text is in summary.md.",
            )
        ) from error


def workflow_commands(run: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> list[str]:
    """The workflow commands to print in a GitHub workflow, none elsewhere."""
    return errors(run) if environ.get("GITHUB_ACTIONS") == "true" else []


def write_job_summary(run: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> list[str]:
    """Append the summary; returns the annotations to print."""
    append(run, environ)
    return workflow_commands(run, environ)


def _identity(run: Mapping[str, Any]) -> str:
    return f", run `{markdown(run['run_id'])}`" if run.get("run_id") else ""


def _row(cell: Mapping[str, Any], arms: tuple[str, ...]) -> str:
    retained = " → ".join(_rate(cell[arm]) for arm in ("retained_before", "retained_after"))
    columns = [
        f"{SIGNS[cell['verdict']]} {cell['verdict']}",
        markdown(f"{cell['task']}/{cell['id']}"),
        *(_rate(cell.get(arm)) for arm in arms),
        retained,
        markdown(cell["reason"].splitlines()[0]),
    ]
    return f"| {' | '.join(columns)} |\n"


def _rate(rate: Mapping[str, Any] | None) -> str:
    return "—" if rate is None else f"{100 * rate['rate']:.1f} % ({rate['hits']} hits)"
