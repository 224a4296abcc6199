"""All tasks, methods and fine-tunings at the size of Stable Diffusion: `python -m benchmarks.sd_paths --out paths.csv`.

    base (random weights) ─▶ unlearn ─▶ LoRA or full ─▶ images ─▶ CLIP ViT-B/32 (random weights) ─▶ verdict

Each cell is one run of the real command line, `pytest suites/TASK --resurgence-base DIR …`, in a process of its own,
and becomes one row of the csv. Cells that have a row are skipped, so a run that was stopped or killed goes on where it
was, here or on another machine, with nothing but the csv. Within a run, cells share the base, its images and, between
the fine-tunings of one method, the unlearned model. A cell's weights are deleted after it.

*Settings:* the published recipes (presets/recipes.py) with their batch, parameters and image size.
*Reduced:* `--updates` optimiser steps of each training, one seed per prompt, `--sampler-steps` steps of the sampler, 32
pictures of each kind, ten moments of each trajectory (SDD renews these more often, so that it does so at all).
*"recipe seconds"* is what the models of the cell would take with the published numbers: the images that are learned
from, the sets computed from them, unlearning and fine-tuning, each by its own pace. Seconds of images grow with the
sampler's steps, which counts decoding too often: a bound from above. The images that are judged are not in it.
*Seconds of a stage* are those of making it once, whichever cell did; "process seconds" are the cell's own.

*What it shows:* that every path runs at this size, and what it costs. *What it cannot show:* anything about models. The
judge has no canaries, so no cell may pass: each must be UNDECIDED, or VIOLATED where a judge of random weights happens
to answer an erased concept to every picture.

Exit codes: 0 every cell has a row with such a verdict · 1 a row says HOLDS or KNOWN, or needed more memory than
`--most-memory` · 12 a cell crashed; its row says why · 11 the time was up before every cell ran.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.random_bases import BASES, write_base
from benchmarks.sd_path import (
    FINETUNED,
    ROOT,
    Ledger,
    Stage,
    call,
    device,
    register_judge,
    stages,
    versions,
    write_judge,
)
from benchmarks.sd_path_judge import Course, Settings, judged_by_clip
from resurgence_harness.finetuning import FineTuning
from resurgence_harness.planning import checkpoint_key, describe_recipe, held_out_probe, probes_of, training
from resurgence_harness.presets import SEVEN, parse_change
from resurgence_harness.process.exit_codes import ExitCode, combined
from resurgence_harness.selection import CellPlan, Selection, cells, plan_cell
from resurgence_harness.specs import Base, Step
from resurgence_harness.storing import Store
from resurgence_harness.tasks.microworld import HAZARDS
from resurgence_harness.tasks.published.i2p import VARIABLE as I2P

COUNTS = {"celebrity": 10, "copyright": 1, "object": 3, "unsafe": 4}
"""How many concepts are erased, by task, in the order in which they run."""
PICTURES = 32
"""Images that a fine-tuning learns from, and about how many of each kind the unlearnings share."""
MOMENTS = 10
"""Sampler steps of a trajectory that ESD and SDD learn from. SDD then renews one every five updates: two sampler steps
an update, as with the published two trajectories of fifty steps every fifty updates."""
COLUMNS = (
    *("base", "task", "concepts", "method", "finetuning", "pixels"),
    *("unlearn updates", "unlearn recipe updates", "finetune updates", "finetune recipe updates"),
    *("base images", "base image seconds", "unlearn set seconds", "unlearn seconds", "seconds an unlearn update"),
    *("finetune set seconds", "finetune seconds", "seconds a finetune update"),
    *("judged images", "sample seconds", "judge seconds", "process seconds", "recipe seconds"),
    *("unlearn GiB", "finetune GiB", "sample GiB", "peak GiB", "verdict", "exit code", "why no verdict"),
    *("commit", "device", "versions"),
)
EXPECTED = {"UNDECIDED": ExitCode.UNDECIDED, "VIOLATED": ExitCode.REGRESSION}
"""Verdicts that a cell of random weights may have, and what its run then ends with."""
TINY = ("sampler.height=64", "sampler.width=64", "shs.sparsity=0.5")
"""Changes for a CPU; the size of trajectories is the base's. The layers in which SHS cuts have no entry among the most
sensitive .5 % of so few weights, which the method refuses."""
SETS = frozenset({"latents", "saliency"})
"""Kinds of sets that take as long as there are pictures."""
PROMPTS = 3
"""Harmless prompts that stand for I2P's, for each category of the unsafe task."""


class CellPath(NamedTuple):
    """One row's name: what is unlearned how, and fine-tuned how."""

    base: str
    task: str
    method: str
    finetuning: str


class Seen(NamedTuple):
    """What the watches of all runs in one folder saw."""

    peaks: dict[str, float]
    """GiB by key of what was being made."""
    courses: dict[str, Course]
    """By recipe in words."""


class Ran(NamedTuple):
    """One run of pytest."""

    code: int
    seconds: float
    peak: float
    """Of the GPU's memory in GiB."""
    last: str
    """The last line of why it has no verdict, or that it wrote."""
    told: dict[str, Any]
    """verdict.json; empty where there is none."""


def changes(task: str, *, updates: int, sampler_steps: int, tiny: bool) -> tuple[str, ...]:
    """What is reduced, as --resurgence-set takes it."""
    trained = ("esd", "sdd", "salun", "shs", "erasediff")
    return (
        f"sampler.steps={sampler_steps}",
        f"benign.names={PICTURES // 2}",
        "benign.seeds=2",
        f"pictures.forget={PICTURES}",
        f"pictures.retain={PICTURES}",
        *(f"{method}.iterations={updates}" for method in trained),
        *(f"{method}.iterations_per_concept=0" for method in trained),
        f"mace.iterations={ceil(updates / COUNTS[task])}",
        *("esd.trajectories=1", f"esd.trajectory_steps={MOMENTS}"),
        *("sdd.trajectories=1", f"sdd.trajectory_steps={MOMENTS}", f"sdd.refresh={MOMENTS // 2}"),
        *(f"{finetuning}.steps={updates}" for finetuning in FINETUNED),
        *(TINY if tiny else ()),
    )


class Workplace:
    """The folder that one base's cells share: base, judges, store, and what the watches saw."""

    def __init__(self, folder: Path, args: argparse.Namespace) -> None:
        """Nothing is written yet."""
        self.folder, self.args = folder / _base_name(args), args
        self.store = Store(self.folder / "store")
        self.seen = Seen({}, {})

    def prepare(self) -> None:
        """Write base, judge and prompts, unless an earlier run left them here."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "store").mkdir(exist_ok=True)
        shutil.rmtree(self.folder / "store" / "tmp", ignore_errors=True)  # of a run that was killed
        if not (self.folder / "base" / "model_index.json").is_file():  # written last
            args = self.args
            write_base(self.folder / "base", name=args.base, device=args.device, tiny=args.tiny, half=args.half)
        if not (self.folder / "judge.json").is_file():
            judge = write_judge(self.folder, tiny=self.args.tiny)
            (self.folder / "judge.json").write_text(json.dumps(judge._asdict()), encoding="utf-8")
        with (self.folder / "i2p.csv").open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(("prompt", "categories", "q16_percentage", "inappropriate_percentage"))
            for category, place in product(HAZARDS, range(PROMPTS)):
                rows.writerow((f"a quiet street, view {place} for {category}", category, 90, 90))
        if (self.folder / "seen.json").is_file():
            read = json.loads((self.folder / "seen.json").read_text(encoding="utf-8"))
            self.seen = Seen(read["peaks"], {words: Course(*one) for words, one in read["courses"].items()})

    def settings(self, task: str) -> Settings:
        """The plugin's, for one task."""
        return Settings(**json.loads((self.folder / "judge.json").read_text(encoding="utf-8")))._replace(task=task)

    def run(self, path: CellPath, changed: Sequence[str]) -> Ran:
        """One cell by the command line, in a process of its own."""
        out, log, memory = self.folder / "out", self.folder / "log.txt", self.folder / "memory.json"
        shutil.rmtree(out, ignore_errors=True)
        memory.unlink(missing_ok=True)
        options = [f"--resurgence-base={self.folder / 'base'}", f"--resurgence-methods={path.method}"]
        options += [f"--resurgence-counts={COUNTS[path.task]}", f"--resurgence-finetune={path.finetuning}"]
        options += ["--resurgence-seeds=1", f"--resurgence-device={self.args.device}", f"--resurgence-out={out}"]
        options += [f"--resurgence-store={self.folder / 'store'}", *(f"--resurgence-set={one}" for one in changed)]
        command, environment = call(self.folder, self.settings(path.task), options)
        environment[I2P] = str(self.folder / "i2p.csv")
        began = time.monotonic()
        with log.open("wb") as file:
            done = subprocess.run(command, cwd=ROOT, env=environment, stdout=file, stderr=file, check=False)
        seconds = time.monotonic() - began
        verdicts, peak = out / "verdict.json", 0.0
        if memory.is_file():  # a process that was killed leaves none
            read = json.loads(memory.read_text(encoding="utf-8"))
            peak = read["peak"]
            self.seen.peaks.update(read["peaks"])
            self.seen.courses.update({words: Course(*one) for words, one in read["courses"].items()})
            (self.folder / "seen.json").write_text(json.dumps(self.seen._asdict()), encoding="utf-8")
        told = json.loads(verdicts.read_text(encoding="utf-8")) if verdicts.is_file() else {}
        why = [line for one in told.get("missing", ()) for line in one["why"].splitlines() if line.strip()]
        last = why[-1].strip() if why else _last_line(log, done.returncode)
        return Ran(done.returncode, seconds, peak, last, told)

    def delete(self, *checkpoints: str) -> None:
        """The weights of these keys."""
        for key in checkpoints:
            if (made := self.store.find(key)) is not None:
                shutil.rmtree(made.path)


def row(path: CellPath, ran: Ran, place: Workplace, changed: Sequence[str]) -> tuple[dict[str, str], CellPlan | None]:
    """What is told of one cell, and its plan; None for one that did not come as far as to read its base."""
    cell = next(iter(ran.told.get("cells", ())), None)
    told: dict[str, Any] = dict.fromkeys(COLUMNS, "") | path._asdict()
    told |= {"concepts": COUNTS[path.task], "exit code": ran.code, "process seconds": _seconds(ran.seconds)}
    told |= {"verdict": cell["verdict"], "why no verdict": ""} if cell else {"why no verdict": ran.last}
    told |= {"peak GiB": _gib(ran.peak)}
    told |= {"commit": place.args.commit, "device": device(place.args.device), "versions": versions()}
    if not ran.told.get("base", {}).get("digest"):
        return told, None
    plan, whole = (_plan(path, ran.told["base"], place, one) for one in (changed, TINY if place.args.tiny else ()))
    made = list(stages(plan, Ledger(place.store, place.seen.peaks), place.settings(path.task)))
    told |= {"pixels": plan.benign.sampler.width}
    told |= _trained(plan, whole, made, place.seen.courses)
    drawn = [one for one in made if one.name.startswith(("benign images", "images to unlearn from"))]
    sampled = [one for one in made if one.name.startswith("sample ")]
    told |= {"base images": sum(one.number for one in drawn), "base image seconds": _seconds(_sum(drawn))}
    told |= {"judged images": sum(one.number for one in sampled), "sample seconds": _seconds(_sum(sampled))}
    told |= {"judge seconds": _seconds(_sum(one for one in made if one.name == "judge"))}
    told |= {"sample GiB": _gib(_most(sampled)), "peak GiB": _gib(max(ran.peak, _most(made)))}
    if cell:  # else something was not made, and nothing can be said of the whole
        told |= {"recipe seconds": f"{_recipe_seconds(plan, whole, made, drawn, place.seen.courses):.0f}"}
    return told, plan


def _plan(path: CellPath, base: Mapping[str, Any], place: Workplace, changed: Sequence[str]) -> CellPlan:
    """What the cell asks for with these settings."""
    selection = Selection(
        methods=(path.method,),
        counts=(COUNTS[path.task],),
        finetunings=(path.finetuning,),
        seeds=1,
        changed=tuple(dict(map(parse_change, changed)).items()),
    )
    task = judged_by_clip(path.task)
    (cell,) = cells(task, selection)
    where = Base(digest=base["digest"], name=base["name"], location=str(place.folder / "base"))
    os.environ[I2P] = str(place.folder / "i2p.csv")
    return plan_cell(cell, where, task=task, selection=selection)


def _trained(
    plan: CellPlan, whole: CellPlan, made: Iterable[Stage], courses: Mapping[str, Course]
) -> Iterator[tuple[str, Any]]:
    """What is told of the two trainings."""
    for word, name, part, full in (
        ("unlearn", "unlearn", plan.unlearned, whole.unlearned),
        ("finetune", FINETUNED[plan.cell.finetuning], plan.tuned, whole.tuned),
    ):
        own = [one for one in made if one.name == name]
        yield f"{word} updates", training(part.steps[-1]).units
        yield f"{word} recipe updates", training(full.steps[-1]).units
        yield f"{word} set seconds", _seconds(_sum(one for one in made if one.name.startswith(f"{name}: ")))
        yield f"{word} seconds", _seconds(_sum(own))
        course = courses.get(describe_recipe(part))
        article = "an" if word == "unlearn" else "a"
        yield f"seconds {article} {word} update", f"{course.pace:.3f}" if course and course.pace else ""
        yield f"{word} GiB", _gib(_most(one for one in made if one.name.split(":")[0] == name))


def _recipe_seconds(
    plan: CellPlan, whole: CellPlan, made: Iterable[Stage], drawn: Sequence[Stage], courses: Mapping[str, Course]
) -> float:
    """What the cell's models would take with the published numbers, from what the reduced ones took."""
    probes = [plan.benign, held_out_probe(plan.benign), *probes_of(plan.unlearned.steps[-1])]
    full_probes = [whole.benign, held_out_probe(whole.benign), *probes_of(whole.unlearned.steps[-1])]
    images = sum(len(probe) * probe.sampler.steps for probe in full_probes)
    total = _sum(drawn) * images / sum(len(probe) * probe.sampler.steps for probe in probes)
    for name, part, full in (
        ("unlearn", plan.unlearned, whole.unlearned),
        (FINETUNED[plan.cell.finetuning], plan.tuned, whole.tuned),
    ):
        step, full_step = part.steps[-1], full.steps[-1]
        updates, full_updates = training(step).units, training(full_step).units
        for stage in made:
            if stage.name == name:
                course = courses.get(describe_recipe(part))
                pace = course.pace if course and course.pace else stage.seconds / updates
                total += stage.seconds + pace * (full_updates - updates)
            elif stage.name.startswith(f"{name}: "):
                total += stage.seconds * _times_larger(stage.name.removeprefix(f"{name}: "), step, full_step)
    return total


def _times_larger(kind: str, step: Step, full: Step) -> float:
    """How much larger a published step's set of this kind is."""
    if kind == "trajectories":
        return _moments(full) / _moments(step)
    return _pictures(full) / _pictures(step) if kind in SETS else 1.0


def _pictures(step: Step) -> int:
    """Pictures that a step learns from; a fine-tuning's held-out ones are not among them."""
    return len(step.data.probe) if isinstance(step, FineTuning) else sum(map(len, probes_of(step)))


def _moments(step: Any) -> int:
    """Moments in the first trajectories of ESD or SDD."""
    texts = len(step.texts)
    moments: int = texts * ceil(step.trajectories / texts) * step.trajectory_steps
    return moments


class Table:
    """The csv: rows that are there, and rows that are added, each at once and whole."""

    def __init__(self, to: Path) -> None:
        """Read what is there; SystemExit for a file that is no such table."""
        self.to, self.rows = to, list[dict[str, str]]()
        if to.is_file() and to.stat().st_size:
            with to.open(newline="", encoding="utf-8") as file:
                read = csv.DictReader(file)
                if tuple(read.fieldnames or ()) != COLUMNS:
                    raise SystemExit(f"{to} has other columns than this script writes; name another file with --out.")
                self.rows = list(read)

    def get(self, path: CellPath) -> dict[str, str] | None:
        """The row of a cell; None where it has none."""
        return next((one for one in self.rows if CellPath(*(one[name] for name in CellPath._fields)) == path), None)

    def put(self, path: CellPath, told: Mapping[str, Any]) -> None:
        """Add a row, or replace the cell's old one; the file is never half written."""
        old, new = self.get(path), {name: str(told[name]) for name in COLUMNS}
        self.rows = [*(one for one in self.rows if one is not old), new]
        self.to.parent.mkdir(parents=True, exist_ok=True)
        draft = self.to.with_name(f".{self.to.name}.draft")
        with draft.open("w", newline="", encoding="utf-8") as file:
            out = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            out.writeheader()
            out.writerows(self.rows)
        os.replace(draft, self.to)


def measure(wanted: Sequence[CellPath], table: Table, args: argparse.Namespace, folder: Path) -> None:
    """Run cells that have no row until all have one or the time is up."""
    until = time.monotonic() + 60 * args.minutes
    place = Workplace(folder, args)
    owed = [path for path in wanted if (old := table.get(path)) is None or (args.retry and not old["verdict"])]
    print(f"{len(wanted) - len(owed)} of {len(wanted)} cells have a row.", flush=True)
    if owed:
        place.prepare()
        register_judge(place.settings(owed[0].task))
    for number, path in enumerate(owed):
        if time.monotonic() >= until:
            print(f"The time is up: {len(owed) - number} cells are left.", flush=True)
            return
        reduced = changes(path.task, updates=args.updates, sampler_steps=args.sampler_steps, tiny=args.tiny)
        changed = (*reduced, *args.set)
        ran = place.run(path, changed)
        if ran.code == ExitCode.USER_ERROR:
            raise SystemExit(f"{'/'.join(path)} was refused, and has no row: {ran.last}")
        told, plan = row(path, ran, place, changed)
        table.put(path, told)
        shown = ("verdict", "exit code", "process seconds", "recipe seconds", "peak GiB", "why no verdict")
        print("/".join(path), *(f"{name} {told[name]}" for name in shown if told[name] != ""), sep="  ", flush=True)
        if plan is not None:
            following = owed[number + 1] if number + 1 < len(owed) else None
            shared = following is not None and following[:3] == path[:3]
            place.delete(checkpoint_key(plan.tuned), *(() if shared else (checkpoint_key(plan.unlearned),)))


def outcome(wanted: Iterable[CellPath], table: Table, *, most_memory: float) -> ExitCode:
    """What the rows of these cells mean for the command, and a sentence for each that is wrong."""
    codes = {ExitCode.DONE}
    for path in wanted:
        found = table.get(path)
        if found is None:
            codes.add(ExitCode.INCOMPLETE)
        elif not found["verdict"]:
            codes.add(ExitCode.HARNESS_ERROR)
            print(f"{'/'.join(path)} has no verdict: {found['why no verdict']}")
        elif found["verdict"] not in EXPECTED:
            codes.add(ExitCode.REGRESSION)
            print(f"{'/'.join(path)} is {found['verdict']}: random weights and an unchecked judge must not pass.")
        elif int(found["exit code"]) != EXPECTED[found["verdict"]]:
            codes.add(ExitCode.HARNESS_ERROR)
            print(f"{'/'.join(path)} is {found['verdict']}, but its run ended with {found['exit code']}.")
        elif float(found["peak GiB"] or 0) * 2**30 > most_memory * 1e9:
            codes.add(ExitCode.REGRESSION)
            print(f"{'/'.join(path)} took {found['peak GiB']} GiB of the GPU's memory; allowed are {most_memory:g} GB.")
    return combined(codes)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what has no row yet; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="the csv; rows are added, cells that have one are skipped")
    add("--base", choices=BASES, default="sd14", help="whose configuration (default sd14)")
    add("--task", type=_words(COUNTS), default=tuple(COUNTS), help=f"default {','.join(COUNTS)}")
    add("--method", type=_words(SEVEN), default=SEVEN, help=f"default {','.join(SEVEN)}")
    add("--finetuning", type=_words(FINETUNED), default=tuple(FINETUNED), help=f"default {','.join(FINETUNED)}")
    add("--minutes", type=float, default=float("inf"), help="start no cell after so many minutes")
    add("--updates", type=int, default=20, help="optimiser steps of each training (default 20)")
    add("--sampler-steps", type=int, default=5, help="of every image (default 5; the preset has 50)")
    add("--set", action="append", default=[], metavar="GROUP.NAME=VALUE", help="as the suites take it")
    add("--retry", action="store_true", help="also run cells whose row has no verdict")
    add("--most-memory", type=float, default=40.0, metavar="GB", help="of a GPU, in 10⁹ bytes (default 40)")
    add("--device", default="cuda")
    add("--half", action="store_true", help="float16 weights on disk; they are read as float32")
    add("--commit", default="", help="of this code (default: as git says)")
    add("--work", type=Path, help="folder for bases and stores, kept (default: a temporary one)")
    add("--tiny", action="store_true", help="very small models: the same code on a CPU")
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(ExitCode.TERMINATED))  # which ends the run of the present cell
    args.commit = args.commit or _commit()
    wanted = [CellPath(_base_name(args), *one) for one in product(args.task, args.method, args.finetuning)]
    table = Table(args.out)
    with tempfile.TemporaryDirectory(prefix="sd-paths-") as folder:
        measure(wanted, table, args, (args.work or Path(folder)).absolute())
    return outcome(wanted, table, most_memory=args.most_memory)


def _base_name(args: argparse.Namespace) -> str:
    """As rows and folders have it: a row of a tiny base never stands for one of the published size."""
    return f"{args.base}-tiny" if args.tiny else str(args.base)


def _words(known: Iterable[str]) -> Any:
    """Reads "a,b"."""

    def read(text: str) -> tuple[str, ...]:
        words = tuple(dict.fromkeys(text.split(",")))
        if unknown := set(words) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose among {', '.join(known)}")
        return words

    return read


def _commit() -> str:
    """The commit that is checked out, and whether files differ from it."""
    asked = (["git", "rev-parse", "--short=12", "HEAD"], ["git", "status", "--porcelain", "--untracked-files=no"])
    try:
        commit, changed = (
            subprocess.run(one, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() for one in asked
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit} and changes" if changed else commit


def _last_line(log: Path, code: int) -> str:
    """The last line of a log that is not empty."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else f"nothing was written; exit code {code}"


def _sum(made: Iterable[Stage]) -> float:
    return sum(one.seconds for one in made)


def _most(made: Iterable[Stage]) -> float:
    return max((one.peak for one in made), default=0.0)


def _seconds(value: float) -> str:
    return f"{value:.1f}"


def _gib(value: float) -> str:
    return f"{value:.1f}" if value else ""


if __name__ == "__main__":
    sys.exit(main())
