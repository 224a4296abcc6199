"""Cells of any task without a suite's folder: `examine` and `stress` run the suite in `resurgence_harness.suite`.

It is run by pytest in this process, so cells, store, limits, acceptances and reports are those of any suite. Settings
files and conftest.py of the working directory are not read; methods, judges and tasks of one's own come from entry
points (docs/extending.md).
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

from resurgence_harness.errors import HarnessError, UserError, sentence, shown
from resurgence_harness.library.given import Names, as_files, as_limits, joined, models_listed, options
from resurgence_harness.library.results import Results, load
from resurgence_harness.process import ExitCode
from resurgence_harness.statistics import Policy

Several = str | int | Sequence[str] | Sequence[int] | None
"""One value or several: "lora", ("lora", "full"), (20, 100)."""
Models = str | Path | Sequence[str | Path] | Mapping[str, str | Path]
"""One unlearned model, several, or several with their names."""
ALONE = (
    *("-p", "no:cacheprovider", "-p", "no:randomly", "--no-header", "--tb=no", "-rN", "--disable-warnings"),
    "--import-mode=importlib",
)
"""Options of pytest: nothing but the suite of this package, and its closing lines."""


def examine(
    task: str = "celebrity",
    *,
    methods: Several = None,
    counts: Several = None,
    finetune: Several = None,
    base: str | Path = "micro",
    concepts: Names = None,
    steps: Several = None,
    recipe: str | Sequence[str] | None = None,
    data: str | Path | None = None,
    limits: str | Path | Policy | None = None,
    settings: Mapping[str, Any] | None = None,
    seeds: int | None = None,
    engine: str | None = None,
    profile: str | None = None,
    runs: int | None = None,
    out: str | Path = "reports/examine",
    store: str | None = None,
    device: str = "auto",
    workers: int = 0,
    fresh: bool = False,
    **more: Any,
) -> Results:
    """Judge the cells method × number of concepts × fine-tuning of a task; the same as a suite.

    `methods`, `counts`, `finetune`: what a cell is made of; without them those of the task's profile. `steps`: rising
    steps at which the fine-tuned model is examined, for a curve. `limits`: a limits file or a `Policy`. `settings`:
    changed preset values, {"esd.learning_rate": 1e-5}. `workers`: processes of pytest-xdist; 0 is this process.
    Further keyword arguments are the other options of `pytest --help`, without "resurgence-".

    UserError for a mistake in these, HarnessError if nothing could be judged for another reason.
    """
    with as_files(concepts=concepts) as files, as_limits(limits) as limits_given:
        given = options(
            task=task,
            methods=methods,
            counts=counts,
            finetune=finetune,
            base=base,
            concepts=files["concepts"],
            steps=steps,
            data=data,
            limits=limits_given,
            set={name: _value(value) for name, value in (settings or {}).items()},
            seeds=seeds,
            engine=engine,
            profile=profile,
            runs=runs,
            store=store,
            device=device,
            fresh=fresh,
            **more,
        )
        given += [f"--resurgence-recipe={one}" for one in ([recipe] if isinstance(recipe, str) else recipe or ())]
        return _quietly(given, out=Path(out), workers=workers)


def stress(
    unlearned: Models,
    *,
    base: str | Path,
    concepts: Names,
    task: str = "celebrity",
    finetune: Several = "lora",
    steps: Several = None,
    partial: bool = False,
    **more: Any,
) -> Results:
    """Test whether a model that was unlearned elsewhere stays so when it is fine-tuned; as `resurgence stress`.

    `unlearned`: one model or several in any format that the gate accepts; a mapping gives them names. `concepts`: what
    was erased from it. `steps`: rising steps; the last is the length of the fine-tuning. Further arguments are those
    of `examine`.
    """
    given = stressed(unlearned, finetune=joined(finetune) or "", steps=joined(steps))
    settings = {**given.lengths, **(more.pop("settings", None) or {})}
    out = more.pop("out", "reports/stress")
    return examine(
        task,
        base=base,
        concepts=concepts,
        finetune=finetune,
        steps=steps,
        partial=partial,
        unlearned=given.models,
        settings=settings,
        out=out,
        **more,
    )


class Stressed(NamedTuple):
    """Models and lengths of a stress test, as the plugin's options take them."""

    models: dict[str, str]
    """Name → model."""
    lengths: dict[str, int]
    """The setting of each fine-tuning's length → the last of the steps; empty without steps."""


def stressed(unlearned: Models, *, finetune: str, steps: str | None) -> Stressed:
    """Name the models, one that has no name after its file or folder, and set every fine-tuning's length.

    UserError unless the steps ("20,100") are rising whole numbers, and for two models of one name.
    """
    if isinstance(unlearned, Mapping):
        pairs = [(name, str(model)) for name, model in unlearned.items()]
    else:
        pairs = [named(one) for one in models_listed(unlearned)]
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        first = f"Two unlearned models are called {shown(twice[0])}."
        raise UserError(sentence(first, do="Give each its own name: NAME=MODEL."))
    return Stressed(dict(pairs), _lengths(steps, finetune))


def named(text: str) -> tuple[str, str]:
    """(name, model) of "NAME=MODEL" or "MODEL"; a number after the last "=" is the weight of a LoRA."""
    name, equals, rest = text.partition("=")
    if equals and re.fullmatch(r"[A-Za-z0-9_-]+", name, re.ASCII) and not _is_number(rest):
        return name, rest
    model, equals, weight = text.rpartition("=")
    model = model if equals and _is_number(weight) else text
    stem = Path(model.partition("@")[0].rstrip("/")).name.removesuffix(".safetensors") or Path(model).resolve().name
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem, flags=re.ASCII).strip("-_")[:40] or "given", text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _lengths(steps: str | None, finetune: str) -> dict[str, int]:
    if steps is None:
        return {}
    parts = [part.strip() for part in steps.split(",")]
    numbers = [int(part) if part.isascii() and part.isdecimal() else 0 for part in parts]
    if min(numbers) < 1 or numbers != sorted(set(numbers)):
        first = f"The steps {shown(steps)} are not rising."
        raise UserError(sentence(first, do="Give rising whole numbers of 1 or more: --steps 20,100."))
    return {f"{one.strip()}.steps": numbers[-1] for one in finetune.split(",") if one.strip()}


def _value(value: Any) -> str:
    from resurgence_harness.presets import written

    return str(written(value))


def _quietly(given: Sequence[str], *, out: Path, workers: int) -> Results:
    """Run the suite without output on the terminal."""
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        code = run_suite([*given, "-n", str(workers)], out=out)
    return results_of(code, out, printed=printed.getvalue())


def results_of(code: ExitCode, out: Path, *, printed: str = "") -> Results:
    """The results that a run left. UserError or HarnessError if it left none, with what it printed."""
    if code is ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    last = [line.removeprefix("ERROR: ") for line in printed.splitlines() if line.strip()]
    if code is ExitCode.USER_ERROR:
        raise UserError("\n".join(last[-8:]) or "The run was refused.")
    found = load(out) if (out / "verdict.json").is_file() else None
    if found is None or found.exit_code is not code:  # it judged nothing, or failed after its verdict
        first = f"The run ended with {int(code)}, and verdict.json is missing or says otherwise."
        raise HarnessError(sentence(first, printed=" / ".join(last[-5:])))
    return found


def run_suite(given: Sequence[str], *, out: Path) -> ExitCode:
    """Run the suite of this package with these options of pytest, and return the exit code.

    11 instead of 0 if the run has written no verdict.json of its own: with --help or --collect-only in PYTEST_ADDOPTS
    pytest ends with 0, and results of an earlier run may be in the folder.
    """
    import pytest

    from resurgence_harness import suite

    folder = Path(suite.__file__).parent
    where = ["-c", str(folder / "suite.ini"), f"--rootdir={folder}", f"--confcutdir={folder}"]
    before = _content(out / "verdict.json")
    code = pytest.main([str(folder / "test_cells.py"), *where, *ALONE, f"--resurgence-out={out}", *given])
    known = {int(one): one for one in ExitCode}
    found = known.get(int(code), ExitCode.HARNESS_ERROR)  # pytest's own 3 and 5: it failed, or collected nothing
    after = _content(out / "verdict.json")
    return ExitCode.INCOMPLETE if found is ExitCode.DONE and after in (None, before) else found


def _content(file: Path) -> bytes | None:
    """A file's bytes, None without it; two runs never write the same verdict.json, which has a random id."""
    try:
        return file.read_bytes()
    except OSError:
        return None
