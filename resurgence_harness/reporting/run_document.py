"""The content of verdict.json, built once for suites and for gates."""

from __future__ import annotations

import platform
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import resurgence_harness
from resurgence_harness.reporting.about_store import about_store
from resurgence_harness.reporting.records import libraries
from resurgence_harness.reporting.surroundings import surroundings
from resurgence_harness.reporting.together import together
from resurgence_harness.reporting.verdict_json import SCHEMA_VERSION
from resurgence_harness.specs import Base
from resurgence_harness.storing import Seal


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The choices of a run: the object `selection` of verdict.json, with the same fields for suites and gates."""

    engine: str
    """How the number of images is decided: a name in `selection.ENGINES`."""
    choices: Mapping[str, Any]
    """A suite's options, or a gate's policy, by name."""
    changed: Mapping[str, Any] = field(default_factory=dict)
    """Preset values that were changed."""
    settings: str = ""
    """sha256 of the settings file; empty without one."""
    prompts: Sequence[str] = ()
    """Sources of prompts that are written out in full, and how many of them the tokenizer truncates."""
    notes: Sequence[str] = ()
    """Warnings known before sampling: unusual image sizes, grids too small for any decision."""


@dataclass(frozen=True, kw_only=True)
class MadeOn:
    """Device, folder and store of a run: part of the object `environment`."""

    device: str
    folder: Path
    """Working directory of the run."""
    ignored: Mapping[str, Seal]
    """Store entries that were treated as absent, by key."""
    fresh: str
    """Identifier of a fresh run; empty for any other."""
    workers: int = 0


def document(
    records: Sequence[dict[str, Any]],
    missing: Sequence[Mapping[str, Any]],
    *,
    code: int,
    started: datetime,
    base: Base | None,
    chosen: Chosen,
    made_on: MadeOn,
    declared: Sequence[str],
    stopped: bool = False,
    gate: Mapping[str, Any] | None = None,
    selected: Mapping[str, int] | None = None,
    failed_tests: Sequence[str] = (),
    lost_worker: bool = False,
) -> dict[str, Any]:
    """The content of verdict.json.

    `declared`: "task/cell" of every cell in the family of joint claims. `stopped`: ended by Ctrl-C or a signal.
    """
    whole = not missing and not failed_tests and not lost_worker
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": f"resurgence-harness {resurgence_harness.__version__}",
        "run_id": str(uuid.uuid4()),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "status": "interrupted" if stopped else "complete" if whole else "incomplete",
        "exit_code": code,
        "base": {"name": base.name if base else "no base", "digest": base.digest if base else ""},
        "selection": {
            "engine": chosen.engine,
            "changed": dict(chosen.changed),
            "settings": chosen.settings,
            "prompts": list(chosen.prompts),
            "notes": list(chosen.notes),
            "choices": dict(chosen.choices),
        },
        "environment": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "device": made_on.device,
            "workers": str(made_on.workers),
            **about_store(made_on.ignored, made_on.fresh),
            **libraries(),
            **surroundings(made_on.folder),
        },
        "family": together(records, list(dict.fromkeys(declared))),
        **({"gate": dict(gate)} if gate else {}),
        "cells": list(records),
        "missing": list(missing),
        "selected": dict(selected) if selected else None,
        "failed_tests": list(failed_tests),
        "lost_worker": lost_worker,
    }
