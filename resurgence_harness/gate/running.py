"""A whole gate: every group of the policy is asked, and every report is written.

    out/verdict.json          every number; its schema is published        out/junit.xml          for any CI
    out/contact-sheet-….jpg   which images show it                         out/summary.md         for a job summary
    out/attestation.json      in-toto test result, unsigned                out/model-card.md      a section and metadata
    out/audit.svg             how much of the erasure is undone, where there is a base

File names come from here and from the policy's group words, which are letters, digits and "-"; never from a model,
a concept or a prompt.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import resurgence_harness
from resurgence_harness.errors import HarnessError, UserError, sentence, shown
from resurgence_harness.gate.asking import ENGINE, Gate, size_notes
from resurgence_harness.gate.audit import figure
from resurgence_harness.gate.models import Models
from resurgence_harness.gate.release_policy import Group, ReleasePolicy
from resurgence_harness.statistics import VerdictKind, exit_code

VERDICT, JUNIT, SUMMARY, ATTESTATION, CARD, AUDIT = (
    "verdict.json",
    "junit.xml",
    "summary.md",
    "attestation.json",
    "model-card.md",
    "audit.svg",
)


def sheet_name(group: Group) -> str:
    """The file of a group's contact sheet."""
    return f"contact-sheet-{group.word}.jpg"


def forget(out: Path) -> None:
    """Remove what an earlier run left of the files written here, so that nobody takes it for this one's."""
    try:
        for name in (VERDICT, JUNIT, SUMMARY, ATTESTATION, CARD, AUDIT):
            (out / name).unlink(missing_ok=True)
        for sheet in out.glob("contact-sheet-*.jpg"):
            sheet.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise _unwritable(out, error) from None


def make(out: Path) -> None:
    """Make the folder, and try to write into it before hours are spent."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.touch()
        probe.unlink()
    except (OSError, ValueError) as error:
        raise _unwritable(out, error) from None


def _unwritable(out: Path, error: Exception) -> UserError:
    reason = error.strerror if isinstance(error, OSError) else error
    return UserError(
        sentence(f"Nothing can be written into {shown(str(out))}.", reason=reason, do="Give another folder with --out.")
    )


def run(gate: Gate, out: Path, told: Callable[[Group, dict[str, Any]], None]) -> dict[str, Any]:
    """Ask every group; `told` hears each record. Gives the content of verdict.json; a group that broke is missing."""
    started = datetime.now(UTC)
    records, missing = [], []
    try:
        for group in gate.policy.groups:
            cell = gate.policy.cell(group)
            nodeid = f"gate[{cell.id}]"
            try:
                answer = gate.ask(group, nodeid=nodeid)
            except HarnessError as error:
                why = str(error)
                words = {"id": cell.id, "nodeid": nodeid, "task": cell.task, "kind": "harness error", "why": why}
                missing.append(words)
                continue
            (out / sheet_name(group)).write_bytes(answer.sheet)
            records.append(answer.record)
            told(group, answer.record)
    finally:
        gate.release()
    kinds = [VerdictKind(record["verdict"]) for record in records]
    code = exit_code(kinds, harness_errors=len(missing))
    return results(gate.policy, gate.models, records, missing, code=code, started=started, device=gate.device)


def results(
    policy: ReleasePolicy,
    models: Models,
    records: list[dict[str, Any]],
    missing: list[dict[str, Any]],
    *,
    code: int,
    started: datetime,
    device: str,
) -> dict[str, Any]:
    """The content of verdict.json."""
    from resurgence_harness.reporting.records import libraries
    from resurgence_harness.reporting.together import together

    base = models.base.base if models.base is not None else None
    declared = [f"{cell.task}/{cell.id}" for cell in map(policy.cell, policy.groups)]
    return {
        "schema_version": 1,
        "tool": f"resurgence-harness {resurgence_harness.__version__}",
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "status": "incomplete" if missing else "complete",
        "exit_code": code,
        "base": {"name": base.name if base else "no base", "digest": base.digest if base else ""},
        "selection": {"engine": ENGINE, **policy.file.model_dump(mode="json", exclude={"models"})},
        "environment": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "device": device,
            **libraries(),
        },
        "family": together(records, declared),
        "gate": about(policy, models),
        "cells": records,
        "missing": missing,
    }


def about(policy: ReleasePolicy, models: Models) -> dict[str, Any]:
    """The object `gate` of verdict.json."""
    found = models.audit
    return {
        "policy": policy.told(),
        "candidate": models.words,
        "files": models.files,
        "notes": [*models.notes, *size_notes(policy, models)],
        "audit": found and {"undone": found.undone, "cosine": found.total.cosine, "words": found.words},
    }


def write(run: dict[str, Any], out: Path, models: Models) -> list[Path]:
    """Write every report but the contact sheets; verdict.json last, so that it stands for a whole set."""
    from resurgence_harness.reporting import attestation, job_summary, junit, model_card, verdict_json

    texts = {
        JUNIT: junit.junit(run),
        SUMMARY: job_summary.summary(run),
        ATTESTATION: json.dumps(attestation.statement(run), indent=2, ensure_ascii=False) + "\n",
        CARD: model_card.section(run),
    }
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")
    written = [out / name for name in texts]
    if models.audit is not None:
        (out / AUDIT).write_bytes(figure(models.audit))
        written.append(out / AUDIT)
    verdict_json.write(out / VERDICT, run)
    return [*written, out / VERDICT]
