"""A user's own trainer: a command that is given a model as a directory and writes another one.

    {model}    the model before, a directory in diffusers' layout, float32 safetensors          a copy of its own
    {out}      an empty folder for the result: any format that the release gate accepts, no pickles
    {python}   the Python that runs the harness          {seed}   the repetition of the cell, from 0

The command runs without a shell in a folder of its own that holds its declared files, with a time limit and an
environment without secrets (process.commands). Whatever it leaves is checked before anything is stored: it must have
ended with 0, left its inputs as they were, and written a model that is derived from {model} and differs from it in
weights of the U-Net or the text encoder alone. Everything else is a BuildError. Needs POSIX.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from resurgence_harness.diffusion.commands import MODEL, OUT, PLACE, PYTHON, SEED, Command
from resurgence_harness.diffusion.differences import settings_difference
from resurgence_harness.diffusion.formats import Source, materialise
from resurgence_harness.diffusion.lineage import lineage
from resurgence_harness.diffusion.model_files import ModelFiles
from resurgence_harness.diffusion.tensor_files import PICKLES, sha256_of
from resurgence_harness.errors import BuildError, UserError, sentence, shown, visible
from resurgence_harness.process.commands import Ended, environment, run_command

if TYPE_CHECKING:
    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run

LOG = "trainer.log"
"""The file beside an artifact with what the command printed."""
KEPT = 10_000_000
"""Bytes of that output that are kept, the last ones."""
LAST_LINES, LONGEST_LINE = 20, 300
"""How many of its last lines an error shows, and characters of each."""
UNCONTROLLED = "The command's own randomness is not controlled: another run of it may give other weights."


def trained(
    command: Command,
    title: str,
    model: StableDiffusion,
    run: Run,
    *,
    seed: int,
    prepare: Callable[[Path], Mapping[str, Path]],
) -> StableDiffusion:
    """The model that the command makes of `model`.

    `title` names it in errors: 'fine-tuning "mine"'. `prepare` writes its other inputs into a folder and returns their
    paths by the words that stand for them.
    """
    if not hasattr(os, "killpg"):
        raise UserError(sentence(f"The {title} is a command, which needs Linux or macOS.", do="Run it there."))
    with _folder(run) as top:
        for name in ("inputs", OUT, "run"):
            (top / name).mkdir()
        write_model(model, top / MODEL)
        inputs = {MODEL: top / MODEL, **prepare(top / "inputs")}
        before = {name: _contents(path) for name, path in inputs.items()}
        _copy_files(command, title, top / "run")
        values = {**inputs, OUT: top / OUT, PYTHON: sys.executable, SEED: seed}
        words = [PLACE.sub(lambda found: str(values[found[1]]), word) for word in command.words]
        run.progress(0, 1, None)
        ended = run_command(
            words,
            folder=top / "run",
            variables=environment(command.variables),
            log=top / LOG,
            limit=command.timeout,
        )
        try:
            _check_end(ended)
            for name, path in inputs.items():
                _check_unchanged(name, before[name], _contents(path))
            changed = _result(model, run, top)
        except _Failed as problem:
            raise BuildError(
                "\n".join(
                    [
                        sentence(f"The command of the {title} {problem.what}.", do="", **problem.facts),
                        *_last_lines(top / LOG),
                        f"  {problem.do}",
                    ]
                )
            ) from None
        run.progress(1, 1, None)
        run.record(
            "command",
            {"words": list(command.words), "files": dict(command.files), "seconds": round(ended.seconds, 1)},
        )
        run.record("note", UNCONTROLLED)
        _shorten(top / LOG)
        run.keep(LOG, top / LOG)
        return changed


class _Failed(Exception):
    """What the command did wrong, as the rest of a sentence, facts, and what to do."""

    def __init__(self, what: str, do: str, **facts: object) -> None:
        super().__init__(what)
        self.what, self.do, self.facts = what, do, facts


def write_model(model: StableDiffusion, folder: Path) -> None:
    """Write a model in diffusers' layout, as safetensors; its libraries' own classes can load it."""
    folder.mkdir()
    family = model.family
    with redirect_stderr(StringIO()):  # transformers prints a progress bar
        for part in family.parts:
            getattr(model, part).save_pretrained(str(folder / part))
    index: dict[str, object] = {
        part: [library, type(getattr(model, part)).__name__] for part, (library, _) in family.classes.items()
    }
    index = {"_class_name": family.pipeline, **index, **family.optional, **model.index}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


@contextmanager
def _folder(run: Run) -> Iterator[Path]:
    """A folder that is removed afterwards; in a store's own folder, where a killed run's are removed by the next."""
    with tempfile.TemporaryDirectory(dir=run.folder, prefix="trainer-", ignore_cleanup_errors=True) as name:
        yield Path(name).absolute()


def _copy_files(command: Command, title: str, folder: Path) -> None:
    """Copy the declared files; BuildError for one whose bytes are not those in the key."""
    for name, digest in command.files:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(Path(command.folder) / name, target)
            target.chmod((Path(command.folder) / name).stat().st_mode & 0o755 | 0o600)
        except OSError as problem:
            raise BuildError(
                sentence(f"A file of the {title} cannot be read.", file=shown(name), reason=problem.strerror)
            ) from None
        if sha256_of(target) != digest:
            raise BuildError(
                sentence(
                    f"A file of the {title} was changed after the settings had been read.",
                    file=shown(name),
                    do="Run again: the changed file gives another key.",
                )
            )


def _check_end(ended: Ended) -> None:
    if ended.code == 0:
        return
    if ended.code is None:
        longer = "time limit" in ended.why
        raise _Failed(
            ended.why,
            "Raise its timeout in the settings file, or let it do less." if longer else "Nothing was stored.",
        )
    how = f"ended with exit code {ended.code}" if ended.code > 0 else f"was killed by signal {-ended.code}"
    raise _Failed(how, "Nothing was stored. Repair the command, and run again.", seconds=f"{ended.seconds:.1f}")


def _contents(path: Path) -> dict[str, str]:
    """What a folder or file holds: path → sha256, for folders and links their kind."""
    found = {}
    for each in [path, *sorted(path.rglob("*"))]:
        name = each.relative_to(path).as_posix()
        if each.is_symlink():
            found[name] = f"link to {os.readlink(each)}"
        elif each.is_dir():
            found[name] = "folder"
        else:
            found[name] = sha256_of(each) if each.is_file() else "missing"
    return found


def _check_unchanged(name: str, before: dict[str, str], after: dict[str, str]) -> None:
    other = sorted(place for place in before.keys() | after.keys() if before.get(place) != after.get(place))
    if other:
        raise _Failed(
            f"changed what it was given as {{{name}}}",
            "Write to {out} alone; nothing was stored.",
            changed=f"{len(other)}, first {shown(other[0])}",
        )


def _result(model: StableDiffusion, run: Run, top: Path) -> StableDiffusion:
    """The model in {out}, checked and loaded."""
    from resurgence_harness.diffusion.model import StableDiffusion, difference, of_texts

    out = top / OUT
    if out.is_symlink() or not out.is_dir():
        raise _Failed("replaced the folder {out}", "Write the model into {out}; nothing was stored.")
    if not any(path.is_file() for path in out.rglob("*")):
        raise _Failed("wrote nothing to {out}", "Let it write the model into the folder {out}.")
    own = [path for place in (out, *(out / part for part in model.family.weights)) for path in sorted(place.glob("*"))]
    for path in own:
        if path.suffix.lower() in PICKLES:
            raise _Failed(
                "wrote a pickle, which is never opened here",
                "Save with safe_serialization=True, as safetensors; nothing was stored.",
                file=shown(path.relative_to(out).as_posix()),
            )
    try:
        made = materialise([Source(path=out)], top / MODEL, top / "made").base
        ours, theirs = ModelFiles(made.location), ModelFiles(top / MODEL)
        known = lineage(ours, unlearned=theirs)
        found = settings_difference(ours, theirs)
        other = sorted(name for name in ours if ours[name].entry.shape != theirs[name].entry.shape)
        if other and not found:
            found = (f"{other[0]}: its shape is {ours[other[0]].entry.shape}, not {theirs[other[0]].entry.shape}",)
        loaded = StableDiffusion.load(made.location, run.device, digest=made.digest)
    except UserError as problem:
        why = str(problem).splitlines()[0].replace(str(out), "{out}").replace(str(top), "…")
        raise _Failed(
            "wrote no model that can be judged",
            "Write what the release gate accepts (docs/gate.md): a directory in diffusers' layout, or a LoRA.",
            problem=why,
        ) from None
    compared = known.comparisons["candidate", "unlearned"]
    if compared.same:
        raise _Failed(
            "wrote the model that it was given, so nothing was trained",
            "Check its learning rate and its number of steps; nothing was stored.",
        )
    if not compared.derived:
        raise _Failed(
            "wrote a model that is not derived from {model}",
            "Start the training from {model}; nothing was stored.",
            distance=f"{compared.median:.2f} (median over layers; unrelated weights: 1.41)",
        )
    if found:
        raise _Failed(
            "wrote a model that differs from {model} in more than the weights of U-Net and text encoder",
            "Train these alone, and save the other parts unchanged; nothing was stored.",
            differs="; ".join(found),
        )
    changed = replace(model, unet=loaded.unet).with_texts_of(loaded)
    return changed if of_texts(difference(changed, model)) else changed.with_texts_of(model)


def _last_lines(log: Path) -> list[str]:
    """The end of its output, for an error."""
    lines = _tail(log, 100_000).decode(errors="replace").replace("\r", "\n").splitlines()
    lines = [line.rstrip() for line in lines if line.strip()][-LAST_LINES:]
    if not lines:
        return ["  It printed nothing."]
    return ["  last lines of its output:", *(f"  | {visible(line[:LONGEST_LINE])}" for line in lines)]


def _tail(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - count, 0))
        return file.read()


def _shorten(log: Path) -> None:
    if log.stat().st_size > KEPT:
        log.write_bytes(b"(the last part)\n" + _tail(log, KEPT))
