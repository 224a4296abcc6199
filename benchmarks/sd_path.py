"""The whole celebrity path at the size of Stable Diffusion v1.4: `python -m benchmarks.sd_path --to sd_path.csv`.

    base (random weights) ─▶ unlearn ten names ─▶ LoRA ─▶ images at 512 px ─▶ CLIP ViT-B/32 (random weights) ─▶ verdict

Everything is written as a user would have it (a directory in diffusers' layout, a safetensors file of CLIP with its
sha256 pinned) and run by the real command line, `pytest suites/celebrity --resurgence-base DIR …`, in one process, then
once more with everything in the store. The seconds are those that the store's manifests record.

*What it shows:* that the path runs end to end at this size, and what each stage costs. *What it cannot show:* anything
about models. Random weights recognise nobody: the base fails the positive control, the judge has no canaries, so every
cell must be UNDECIDED and the exit code 10; anything else ends this script with an error.
*Reduced:* one seed per prompt, ten sampler steps for fifty, 20 benign images for 250, LoRA of 100 steps for 1,000; the
options set them. Unlearnings keep the values of the preset "sd". Seconds per image, update and sampler step are told.
*No picture is flat:* an autoencoder as diffusers initialises it decodes these latents to noise with a standard
deviation of about 47 of 255 levels, unlike in 99 % of its numbers between two seeds, so its decoder is used as it is.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import sd_path_judge
from benchmarks.random_bases import tokenizer, write_base
from benchmarks.sd_path_judge import SETTINGS, Settings, judged_by_clip
from resurgence_harness.judging.weights import digest_of
from resurgence_harness.planning import checkpoint_key, held_out_probe, images_key, judgments_key, probes_of, training
from resurgence_harness.presets import parse_change
from resurgence_harness.registry import Origin, entries, register
from resurgence_harness.registry.origins import source_of_class
from resurgence_harness.selection import CellPlan, Selection, cells, plan_cell
from resurgence_harness.specs import Base, Recipe, SampleRequest
from resurgence_harness.storing import Artifact, Store
from tests.judging.tiny_clip import ARCHITECTURE, save_tiny_clip
from tests.tiny import save_tiny_stable_diffusion

ROOT = Path(__file__).parents[1]
COUNT = 10
"""Names erased."""
VIT_B_32 = "ViT-B-32-quickgelu"
COLUMNS = ("stage", "method", "number", "of", "seconds", "seconds each", "peak GiB", "device", "versions")
LIBRARIES = ("torch", "diffusers", "transformers", "peft", "open_clip_torch")
FINETUNED = {"lora": "LoRA", "full": "full"}
"""Names of the fine-tunings' stages."""
TINY = ("sampler.height=64", "sampler.width=64", "esd.iterations=3", "esd.trajectory_steps=2")
"""Changes that a CPU can run in seconds."""


class Stage(NamedTuple):
    """One line of the table."""

    name: str
    method: str
    number: int
    of: str
    """Of what that is the number: images, updates …"""
    seconds: float
    peak: float = 0.0
    """Of the GPU's memory in GiB."""


class Ran(NamedTuple):
    """One run of pytest."""

    code: int
    seconds: float
    before: float
    """Seconds until the first artifact was begun: imports, and the base checked, hashed and loaded."""
    peaks: dict[str, float]
    """GiB by the key of what was being made."""
    told: dict[str, Any]
    """verdict.json."""


def write_judge(work: Path, *, tiny: bool) -> Settings:
    """CLIP with random weights in a safetensors file, pinned."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    where = {"store": str(work / "store"), "memory": str(work / "memory.json")}
    if tiny:
        path = save_tiny_clip(work)
        return Settings(
            architecture=ARCHITECTURE,
            config=str(work / f"{ARCHITECTURE}.json"),
            weights=str(path),
            sha256=digest_of(path),
            **where,
        )
    torch.manual_seed(0)
    model = open_clip.CLIP(**open_clip.get_model_config(VIT_B_32))
    path = work / "clip-random.safetensors"
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)
    return Settings(architecture=VIT_B_32, config="", weights=str(path), sha256=digest_of(path), **where)


def call(work: Path, settings: Settings, options: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The suite's command line and its environment; the plugin's settings are written beside."""
    (work / "settings.json").write_text(json.dumps(settings._asdict()), encoding="utf-8")
    installed = any(point.name == "resurgence" for point in entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "resurgence_harness.pytest_plugin"]
    command = [sys.executable, "-m", "pytest", f"suites/{settings.task}", *plugin, "-p", "benchmarks.sd_path_judge"]
    command += ["-p", "no:cacheprovider", *options]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RESURGENCE", "PYTEST"))}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"PYTHONPATH": os.pathsep.join(paths), SETTINGS: str(work / "settings.json"), "HF_HUB_OFFLINE": "1"}
    return command, {**inherited, "RESURGENCE_WEIGHTS": str(work), **own}


def run(work: Path, settings: Settings, options: Sequence[str]) -> Ran:
    """The suite by the command line, in one process."""
    command, environment = call(work, settings, options)
    print("$", *command, flush=True)
    began = time.time()
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    seconds = time.time() - began
    verdicts = work / "out" / "verdict.json"
    if not verdicts.is_file():
        raise SystemExit(f"The run wrote no verdict.json; its exit code is {done.returncode}.")
    seen = json.loads((work / "memory.json").read_text(encoding="utf-8"))
    before = seen["first"] - began if seen["first"] else seconds
    return Ran(done.returncode, seconds, before, seen["peaks"], json.loads(verdicts.read_text(encoding="utf-8")))


def check(ran: Ran, methods: Sequence[str]) -> None:
    """SystemExit unless every cell was decided, none passed or was a regression, and the control said why."""
    found = {cell["method"]: cell for cell in ran.told["cells"]}
    wrong = [f"exit code {ran.code} where 10 was due"] if ran.code != 10 else []
    wrong += [f"{method} has no verdict" for method in methods if method not in found]
    for method, cell in found.items():
        control = next(one for one in cell["controls"] if one["name"] == "positive control")
        if cell["verdict"] != "UNDECIDED" or control["state"] != "failed":
            wrong.append(f"{method} is {cell['verdict']}, its positive control has {control['state']}")
    if wrong:
        raise SystemExit(f"A judge that recognises nobody must leave every cell UNDECIDED: {'; '.join(wrong)}.")


class Ledger:
    """What the store says of one run's artifacts; each is counted once, for whoever asked first."""

    def __init__(self, store: Store, peaks: dict[str, float]) -> None:
        """Nothing is counted yet."""
        self._store, self._peaks = store, peaks
        self._seen: set[str] = set()

    def line(self, name: str, method: str, keys: Mapping[str, int], of: str) -> Iterator[Stage]:
        """A line for these artifacts (key → how many images or updates), tensors computed within them apart."""
        fresh = {made: number for key, number in keys.items() if (made := self._fresh(key)) is not None}
        within: dict[str, list[Artifact]] = {}
        for made in fresh:
            for key in made.facts.get("made with", {}):
                if (part := self._fresh(key)) is not None:
                    within.setdefault(part.kind, []).append(part)
        inside = [self._stage(f"{name}: {kind}", method, parts, len(parts), "sets") for kind, parts in within.items()]
        yield from inside
        if fresh:
            whole = self._stage(name, method, list(fresh), sum(fresh.values()), of)
            yield whole._replace(seconds=whole.seconds - sum(part.seconds for part in inside))

    def _fresh(self, key: str) -> Artifact | None:
        made = None if key in self._seen else self._store.find(key)
        self._seen.add(key)
        return made

    def _stage(self, name: str, method: str, made: Sequence[Artifact], number: int, of: str) -> Stage:
        seconds = sum(one.seconds - one.facts.get("seconds elsewhere", 0.0) for one in made)
        return Stage(name, method, number, of, seconds, max(self._peaks.get(one.key, 0.0) for one in made))


def stages(plan: CellPlan, ledger: Ledger, settings: Settings) -> Iterator[Stage]:
    """What one cell cost, in the order in which it is made; what an earlier cell has made is not told again."""
    method = plan.cell.method

    def drawn(name: str, recipe: Recipe, probes: Iterable[SampleRequest]) -> Iterator[Stage]:
        return ledger.line(name, method, {images_key(recipe, probe): len(probe) for probe in probes}, "images")

    yield from drawn("benign images", plan.base, [plan.benign])
    yield from drawn("benign images, held out", plan.base, [held_out_probe(plan.benign)])
    yield from drawn("images to unlearn from", plan.base, probes_of(plan.unlearned.steps[-1]))
    for name, recipe in (("unlearn", plan.unlearned), (FINETUNED[plan.cell.finetuning], plan.tuned)):
        units = training(recipe.steps[-1]).units
        yield from ledger.line(name, method, {checkpoint_key(recipe): units}, "updates")
    judged: dict[str, int] = {}
    for name, arm in plan.arms.items():
        blocks = [arm.grid.part(place) for place in range(arm.grid.blocks)]
        yield from drawn(f"sample {name.replace('_', ' ')}", arm.recipe, blocks)
        judged |= {judgments_key(arm.recipe, block, settings.judge): len(block) for block in blocks}
    yield from ledger.line("judge", method, judged, "images")


def register_judge(settings: Settings) -> None:
    """Register the judge as the run of pytest does, which is in the keys of its judgments; once in a process."""
    if settings.judge.name in {entry.name for entry in entries("judge")}:
        return
    origin, file = Origin(kind="plugin", name=sd_path_judge.__name__), Path(sd_path_judge.__file__)
    register("judge", settings.judge, origin, source=source_of_class(type(settings.judge), file))


def table(args: argparse.Namespace, work: Path) -> Iterator[Stage]:
    """Every stage, timed."""
    began = time.perf_counter()
    if args.tiny:
        save_tiny_stable_diffusion(work / "base", sample_size=24, tokenizer=tokenizer())
    else:
        write_base(work / "base", device=args.device, half=args.half)
    yield Stage("base written", "", 1, "bases", time.perf_counter() - began)
    began = time.perf_counter()
    settings = write_judge(work, tiny=args.tiny)
    yield Stage("judge written", "", 1, "judges", time.perf_counter() - began)
    register_judge(settings)
    changes = [f"sampler.steps={args.steps}", f"sampler.batch={args.batch}", f"benign.names={args.benign}"]
    changes += ["benign.seeds=2", f"lora.steps={args.lora_steps}", *(TINY if args.tiny else ()), *args.set]
    selection = Selection(
        methods=tuple(args.methods.split(",")),
        counts=(COUNT,),
        finetunings=("lora",),
        seeds=args.seeds,
        changed=tuple(dict(map(parse_change, changes)).items()),
    )
    options = [f"--resurgence-base={work / 'base'}", f"--resurgence-methods={args.methods}"]
    options += [f"--resurgence-counts={COUNT}", "--resurgence-finetune=lora", f"--resurgence-seeds={args.seeds}"]
    options += [f"--resurgence-device={args.device}", f"--resurgence-store={work / 'store'}"]
    options += [f"--resurgence-out={work / 'out'}", *(f"--resurgence-set={change}" for change in changes)]
    (work / "store").mkdir(exist_ok=True)
    first = run(work, settings, options)
    check(first, selection.methods or ())
    yield Stage("before the first image: imports, base checked, hashed, loaded", "", 1, "runs", first.before)
    base = Base(digest=first.told["base"]["digest"], name="sd", location=str(work / "base"))
    ledger, told = Ledger(Store(work / "store"), first.peaks), 0.0
    task = judged_by_clip(settings.task)
    for cell in cells(task, selection):
        for stage in stages(plan_cell(cell, base, task=task, selection=selection), ledger, settings):
            told += stage.seconds
            yield stage
    rest = first.seconds - first.before - told
    yield Stage("the rest: models changed and read, files written and hashed, verdict", "", 1, "runs", rest)
    yield Stage("the whole run", "", 1, "runs", first.seconds, max(first.peaks.values(), default=0.0))
    again = run(work, settings, [*options, "--tb=no", "-q"])
    check(again, selection.methods or ())
    yield Stage("the same again, everything in the store", "", 1, "runs", again.seconds)
    if again.peaks:
        raise SystemExit("The second run made something anew.")


def main(argv: Sequence[str] | None = None) -> None:
    """The table, line by line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, help="the csv to write")
    parser.add_argument("--methods", default="uce,esd", help="unlearnings (default uce,esd)")
    parser.add_argument("--steps", type=int, default=10, help="sampler steps (default 10; the preset has 50)")
    parser.add_argument("--batch", type=int, default=8, help="images drawn at once (default 8)")
    parser.add_argument("--seeds", type=int, default=1, help="images of each prompt (default 1)")
    parser.add_argument("--benign", type=int, default=10, help="names in the benign set, two images each (default 10)")
    parser.add_argument("--lora-steps", type=int, default=100, help="updates of the LoRA (default 100)")
    parser.add_argument("--set", type=str, action="append", default=[], help="esd.batch=4, as the suites take")
    parser.add_argument("--half", action="store_true", help="float16 weights on disk; they are read as float32")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--work", type=Path, help="folder for base, store and reports, kept (default: a temporary one)")
    parser.add_argument("--tiny", action="store_true", help="very small models: the same code in seconds, on a CPU")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="sd-path-") as folder:
        work = (args.work or Path(folder)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        with args.to.open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file, lineterminator="\n")
            out.writerow(COLUMNS)
            for stage in table(args, work):
                out.writerow([*words(stage), device(args.device), versions()])
                file.flush()
                print(*words(stage), sep="  ", flush=True)


def words(stage: Stage) -> list[str]:
    """The columns that differ from line to line."""
    peak = f"{stage.peak:.1f}" if stage.peak else ""
    each = f"{stage.seconds / stage.number:.3f}" if stage.number > 1 else ""
    return [stage.name, stage.method, str(stage.number), stage.of, f"{stage.seconds:.1f}", each, peak]


def device(name: str) -> str:
    """What the models ran on."""
    import torch

    return torch.cuda.get_device_name() if name.startswith("cuda") else platform.machine()


def versions() -> str:
    """Of what computes."""
    return ", ".join(f"{name} {version(name)}" for name in LIBRARIES)


if __name__ == "__main__":
    main()
