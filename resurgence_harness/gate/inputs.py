"""Inputs of a gate: a policy file, and the models that it or the command line names."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from resurgence_harness.diffusion.formats import Cover
from resurgence_harness.diffusion.hub import ALIASES, is_name
from resurgence_harness.errors import UserError, sentence
from resurgence_harness.gate.models import Models, prepare
from resurgence_harness.gate.release_policy import PolicyFile, ReleasePolicy, load_policy, resolve
from resurgence_harness.given_models import read_word
from resurgence_harness.selection import tasks_on
from resurgence_harness.specs import EMBEDDED
from resurgence_harness.storing import Store, check_usable


class GateInputs(NamedTuple):
    """A policy file, and the models that it or the command line names."""

    file: PolicyFile
    folder: Path
    """Folder that the policy's paths are relative to."""
    path: str
    candidate: list[str]
    unlearned: str | None
    base: str | None
    cover: Cover


def read_inputs(
    policy: Path | None,
    *,
    candidate: list[str] | None = None,
    unlearned: str | None = None,
    base: str | None = None,
    partial: bool = False,
) -> GateInputs:
    """Read the policy file; models of the command line take precedence."""
    file, folder = load_policy(policy) if policy is not None else (PolicyFile(), Path.cwd())
    named = file.models
    listed = [named.candidate] if isinstance(named.candidate, str) else list(named.candidate or ())
    candidates = candidate or [_from(folder, part) for part in listed]
    if not candidates:
        raise UserError(
            sentence(
                "No candidate was given.",
                do="Give --candidate DIR or FILE, or `models: {candidate: …}` in the policy. --demo shows an example.",
            )
        )
    return GateInputs(
        file,
        folder,
        str(policy) if policy is not None else "",
        candidates,
        unlearned or (named.unlearned and _from(folder, named.unlearned)),
        base or (named.base and _from(folder, named.base)),
        Cover.SOME if partial or named.partial else Cover.WHOLE,
    )


def read_policy(
    inputs: GateInputs,
    *,
    task: str | None = None,
    concepts: Path | None = None,
    retained: Path | None = None,
) -> ReleasePolicy:
    """The policy with its lists read. Task names are resolved for these models."""
    for model in (inputs.base, inputs.unlearned, inputs.candidate[0]):
        if model is not None and model not in ALIASES:
            read_word(model, Path.cwd())  # a missing model is reported before an unknown task
    tasks = tasks_on(inputs.base or inputs.unlearned or inputs.candidate[0])
    return resolve(
        inputs.file,
        inputs.folder,
        tasks=tasks,
        path=inputs.path,
        erased=concepts,
        retained=retained,
        task=task,
    )


def read_models(inputs: GateInputs, *, store: str, run: str = "") -> Models:
    """The models as loadable directories; a fresh run, identified by `run`, makes all of them anew."""
    check_usable(store)
    root = Path(Store(store).root)
    return prepare(
        inputs.candidate,
        unlearned=inputs.unlearned,
        base=inputs.base,
        folder=Path.cwd(),
        store=root,
        cover=inputs.cover,
        run=run,
    )


def _from(folder: Path, model: str) -> str:
    """A policy's model, with its path relative to the policy; names of published models are unchanged."""
    if model in EMBEDDED or is_name(model, folder):
        return model
    return str(folder / Path(model).expanduser())
