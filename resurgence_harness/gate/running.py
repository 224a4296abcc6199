"""Runs a whole gate: every group of the policy is sampled and judged, and every report is written.

    out/verdict.json          every number; its schema is published        out/junit.xml          for any CI
    out/contact-sheet-….jpg   images with answers                          out/summary.md         for a job summary
    out/attestation.json      in-toto test result, unsigned                out/model-card.md      a section and metadata
    out/eval-results.yaml     for the hub's .eval_results/
    out/audit.svg             how much of the erasure is undone, where there is a base

File names come from this module and from the policy's group names, which are letters, digits and "-"; never from a
model, a concept or a prompt.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from types import MappingProxyType
from typing import Any

from resurgence_harness.errors import ResurgenceError, UserError, sentence, shown
from resurgence_harness.gate.asking import ENGINE, Gate, given_notes, image_notes
from resurgence_harness.gate.audit import figure
from resurgence_harness.gate.models import Models
from resurgence_harness.gate.release_policy import ConceptGroup, ReleasePolicy
from resurgence_harness.process.unforeseen import recorded
from resurgence_harness.statistics import VerdictKind, exit_code

REPORTS = VERDICT, JUNIT, SUMMARY, ATTESTATION, CARD, EVALUATION, AUDIT = (
    "verdict.json",
    "junit.xml",
    "summary.md",
    "attestation.json",
    "model-card.md",
    "eval-results.yaml",
    "audit.svg",
)
SHEETS = "contact-sheet-*.jpg"


def sheet_name(group: ConceptGroup) -> str:
    """The file of a group's contact sheet."""
    return f"contact-sheet-{group.word}.jpg"


def remove_stale_outputs(out: Path, *, option: str = "--out") -> None:
    """Remove the results of an earlier run, of the command or of pytest, so that nobody takes them for this one's."""
    from resurgence_harness.reporting import old_allure

    try:
        for name in REPORTS:
            (out / name).unlink(missing_ok=True)
        for sheet in out.glob(SHEETS):
            sheet.unlink(missing_ok=True)
        old_allure.clean(out / old_allure.FOLDER)
    except (OSError, ValueError) as error:
        raise _unwritable(out, error, option) from None


def check_summary(out: Path, environ: Mapping[str, str] = os.environ) -> None:
    """UserError if the job summary would be appended to a report of this run; symbolic links are resolved."""
    from resurgence_harness.gate.out_lock import LOCK
    from resurgence_harness.reporting.old_allure import FOLDER

    place = environ.get("GITHUB_STEP_SUMMARY")
    if not place:
        return
    folder, file = Path(os.path.realpath(out)), Path(os.path.realpath(place))
    if not file.is_relative_to(folder):
        return
    first, *below = file.relative_to(folder).parts or ("",)
    own = (*REPORTS, SHEETS, LOCK) if not below else (FOLDER,)
    if any(fnmatch(first.casefold(), name) for name in own):  # some file systems ignore case
        raise UserError(
            sentence(
                "The job summary would be appended to a report of this run.",
                GITHUB_STEP_SUMMARY=shown(place),
                reports=shown(str(out)),
                do="Set GITHUB_STEP_SUMMARY to another file, or leave it unset.",
            )
        )


def folders(out: Path, *, demo: bool) -> list[Path]:
    """The folders into which `resurgence gate` writes: one, or one per candidate of the demonstration."""
    from resurgence_harness.gate.demo import CANDIDATES

    return [out / one.name for one in CANDIDATES] if demo else [out]


def make(out: Path, *, option: str = "--out") -> None:
    """Create the folder and test that it is writable; `option`: the option that chooses it, for the message."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.touch()
        probe.unlink()
    except (OSError, ValueError) as error:
        raise _unwritable(out, error, option) from None


def _unwritable(out: Path, error: Exception, option: str) -> UserError:
    reason = error.strerror if isinstance(error, OSError) else error
    first = f"Nothing can be written into {shown(str(out))}."
    return UserError(sentence(first, reason=reason, do=f"Give another folder with {option}."))


def run(
    gate: Gate, progress: Callable[[ConceptGroup, dict[str, Any]], None]
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Sample, judge and decide every group; `progress` receives each record. A group that failed is missing.

    Returns the content of verdict.json, and the contact sheets by file name. UserError only before the first verdict.
    """
    started = datetime.now(UTC)
    records: list[dict[str, Any]] = []
    missing: list[dict[str, Any]] = []
    sheets: dict[str, bytes] = {}
    try:
        for group in gate.policy.groups:
            cell = gate.policy.cell(group)
            nodeid = f"gate[{cell.id}]"
            try:
                answer = gate.ask(group, nodeid=nodeid)
            except Exception as error:  # one group's failure must not lose another group's verdict
                if isinstance(error, UserError) and not records:
                    raise
                why = str(error) if isinstance(error, ResurgenceError) else recorded(error)
                entry = {"id": cell.id, "nodeid": nodeid, "task": cell.task, "kind": "harness error", "why": why}
                missing.append(entry)
                continue
            sheets[sheet_name(group)] = answer.sheet
            records.append(answer.record)
            progress(group, answer.record)
    finally:
        gate.release()
    kinds = [VerdictKind(record["verdict"]) for record in records]
    code = exit_code(kinds, harness_errors=len(missing))
    from resurgence_harness.reporting.run_document import Chosen, MadeOn, document

    policy, models = gate.policy, gate.models
    found = document(
        records,
        missing,
        code=code,
        started=started,
        base=models.base.base if models.base is not None else None,
        chosen=Chosen(engine=ENGINE, choices=policy.choices),
        made_on=MadeOn(device=gate.device, folder=Path.cwd(), ignored=gate.store.ignored, fresh=gate.store.run),
        declared=[f"{cell.task}/{cell.id}" for cell in map(policy.cell, policy.groups)],
        gate=about(policy, models, gate.device),
    )
    return found, sheets


def about(policy: ReleasePolicy, models: Models, device: str) -> dict[str, Any]:
    """The object `gate` of verdict.json."""
    found = models.audit
    return {
        "policy": policy.as_dict(),
        "groups": [f"{cell.task}/{cell.id}" for cell in map(policy.cell, policy.groups)],
        "candidate": models.label,
        "files": models.files,
        "notes": [*models.notes, *image_notes(policy, models, device), *policy.stale, *given_notes(policy)],
        "differences": list(models.differences),
        "audit": found and {"undone": found.undone, "cosine": found.total.cosine, "words": found.description},
    }


def write(
    run: dict[str, Any], out: Path, models: Models, sheets: Mapping[str, bytes] = MappingProxyType({})
) -> list[Path]:
    """Write all reports or none; verdict.json is put in place last, so it means that the set is complete.

    `sheets` are contact sheets by file name. HarnessError if a file cannot be written.
    """
    from resurgence_harness.reporting import attestation, eval_results, job_summary, junit, model_card, verdict_json
    from resurgence_harness.reporting.file_set import write_set

    files: dict[str, str | bytes] = {
        JUNIT: junit.junit(run),
        SUMMARY: job_summary.summary(run),
        ATTESTATION: json.dumps(attestation.statement(run), indent=2, ensure_ascii=False) + "\n",
        CARD: model_card.section(run),
        EVALUATION: eval_results.text(run),
    }
    if models.audit is not None:
        files[AUDIT] = figure(models.audit)
    return write_set(out, {**files, **sheets, VERDICT: verdict_json.text(run)})
