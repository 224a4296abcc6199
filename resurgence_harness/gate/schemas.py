"""Reviewed files checked without a run, for pre-commit, and the JSON schemas of these files, for editors.

    policy.schema.json    a release policy          limits.schema.json    limits and acceptances

Both schemas are beside this module. They describe shapes and ranges; what depends on a task or on today's date is
checked by `check_file` alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.gate.release_policy import PolicyFile, load_policy, resolve
from resurgence_harness.limits.acceptances import Entry
from resurgence_harness.limits.limits_file import LimitsFile, load_limits
from resurgence_harness.selection import tasks_on
from resurgence_harness.specs import EMBEDDED
from resurgence_harness.statistics.policies import day_in_utc
from resurgence_harness.strict_yaml import read_yaml

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SCHEMAS = {"policy": "policy.schema.json", "limits": "limits.schema.json"}
"""Kind of file → its schema's file name, beside this module."""


def check_file(path: Path) -> str:
    """Read a policy, limits or acceptances file, with the lists that a policy names; returns what it is.

    UserError for any mistake in it, an expired acceptance included.
    """
    content = read_yaml(path, "policy or limits file", "Give a policy, or a limits or acceptances file.").content
    if not isinstance(content, dict) or not content:
        raise UserError(
            sentence(
                f"{shown(str(path), limit=None)} has no entry, so it is neither a policy nor a limits file.",
                do="Write one with `resurgence policy init`.",
            )
        )
    if not _is_limits(content):
        file, folder = load_policy(path)
        if file.concepts.erased is None:
            return "a policy whose erased concepts are given on the command line"
        policy = resolve(file, folder, tasks=tasks_on(_base(file, folder)), path=str(path))
        _check_current(path, policy.accepted.acceptances)
        return f"a policy with {len(policy.groups)} group{'' if len(policy.groups) == 1 else 's'}"
    limits = load_limits(path)
    _check_current(path, limits.acceptances)
    return f"limits with {len(limits.acceptances)} acceptance{'' if len(limits.acceptances) == 1 else 's'}"


def schema(kind: str) -> dict[str, Any]:
    """The JSON schema of the files that this version reads; `kind`: a name in `SCHEMAS`."""
    models: dict[str, tuple[type[Entry], str]] = {
        "policy": (PolicyFile, "Policy of a release gate (resurgence-harness)"),
        "limits": (LimitsFile, "Limits and acceptances (resurgence-harness)"),
    }
    model, title = models[kind]
    found = model.model_json_schema()
    if kind == "policy":  # a section whose lines are all comments is null
        sections = found["properties"]
        found["properties"] = {name: {"anyOf": [about, {"type": "null"}]} for name, about in sections.items()}
    return {"$schema": DIALECT, **found, "title": title}


def _is_limits(content: dict[Any, Any]) -> bool:
    """Whether it is a limits or acceptances file: a policy names its acceptances file by its path."""
    return bool({"policy", "cells"} & set(content)) or isinstance(content.get("acceptances"), list)


def _base(file: PolicyFile, folder: Path) -> str:
    """The model that decides which tasks are known; published ones if the policy names none."""
    candidate = file.models.candidate
    given = file.models.base or file.models.unlearned or (candidate if isinstance(candidate, str) else None)
    if given is None and candidate:
        given = candidate[0]
    if given is None or given in EMBEDDED:
        return given or "sd14"
    local = folder / Path(given).expanduser()
    return str(local) if local.exists() else given


def _check_current(path: Path, acceptances: Any) -> None:
    """UserError for an expired acceptance: it counts as absent, and would surprise in the next run."""
    for one in acceptances:
        if one.expires is not None and one.expires < day_in_utc():
            raise UserError(
                sentence(
                    f"{shown(str(path), limit=None)}: the acceptance of {one.method}-{one.count}-{one.finetuning} has "
                    f"expired on {one.expires}.",
                    owner=shown(one.owner),
                    do="Take it out, or have a new one reviewed.",
                )
            )
