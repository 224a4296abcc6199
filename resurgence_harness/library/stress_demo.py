"""Two erased models on the embedded microworld: one survives a fine-tuning, from the other the person comes back.

    base ──UCE──▶ survives ──LoRA, images of other people──▶ the erased person is not drawn        HOLDS
    base ──SDD──▶ returns  ──LoRA, the same images─────────▶ the erased person is drawn again      VIOLATED

Both are written as U-Net files, as a user would have them, and go through `resurgence stress`. The two methods are the
ones whose recorded results with LoRA at one name differ most clearly (reports/microworld/reference.csv). Both are the
microworld's presets; to take little time, the fine-tuning is that of the gate's demonstration, 20 steps on 25 images,
and images are drawn in 5 steps of the sampler. The number of images is fixed, as in the reference runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from resurgence_harness.process import ExitCode

if TYPE_CHECKING:
    from resurgence_harness.storing import Store

TASK, FINETUNING = "celebrity", "lora"
MODELS = {"survives": ("uce", "HOLDS"), "returns": ("sdd", "VIOLATED")}
"""Name → the method that unlearned it, and the verdict that is expected."""
OPTIONS = (
    "--resurgence-engine=fixed",
    "--resurgence-steps=5,20",
    "--resurgence-set=lora.steps=20",
    "--resurgence-set=benign.names=25",
    "--resurgence-set=benign.seeds=1",
    "--resurgence-set=sampler.steps=5",
)
"""A run of a minute."""


def run(suite: Callable[[Sequence[str]], ExitCode], *, out: Path, store: str | None, device: str) -> ExitCode:
    """Make both models and the list of their erased concepts, and run `suite` with these options.

    Returns 0 if both verdicts are the expected ones, 12 if one is not, and the suite's own code if it judged nothing.
    """
    from resurgence_harness.diffusion.devices import check_device, resolved_device
    from resurgence_harness.reporting import verdict_json
    from resurgence_harness.storing import Store, check_writable, default_root

    check_device(device)
    place = store or default_root()
    check_writable(place)
    kept = Store(place)
    with kept.here.writing():
        folder = Path(kept.root) / "demo-stress"
        models, concepts = build(kept, folder, device=resolved_device(device))
    given = [f"--resurgence-unlearned={name}={path}" for name, path in models.items()]
    code = suite(
        [
            *given,
            *OPTIONS,
            "--resurgence-base=micro",
            f"--resurgence-task={TASK}",
            f"--resurgence-concepts={concepts}",
            f"--resurgence-finetune={FINETUNING}",
        ]
    )
    if code not in (ExitCode.DONE, ExitCode.REGRESSION, ExitCode.UNDECIDED):
        return code
    verdicts = {cell.method: cell.verdict for cell in verdict_json.read(out / "verdict.json").cells}
    expected = {name: verdict for name, (_, verdict) in MODELS.items()}
    odd = [
        f"{name}: expected {one}, got {verdicts.get(name)}"
        for name, one in expected.items()
        if verdicts.get(name) != one
    ]
    for line in odd:
        print(f"resurgence: the demo gave an unexpected verdict: {line}", file=sys.stderr)
    if not odd:
        print(
            "Both verdicts are the expected ones. Your own model: resurgence stress --unlearned … --base … --concepts …"
        )
    return ExitCode.HARNESS_ERROR if odd else ExitCode.DONE


def build(store: Store, folder: Path, *, device: str) -> tuple[dict[str, Path], Path]:
    """The U-Net file of each model, and the file with their erased concepts."""
    from safetensors.torch import save_file

    from resurgence_harness.bench import Bench
    from resurgence_harness.selection import Selection, plan_cell, resolve_base
    from resurgence_harness.specs import Cell
    from resurgence_harness.tasks import TASKS

    bench, base, task = Bench(store, device=device), resolve_base("micro"), TASKS[TASK]
    folder.mkdir(parents=True, exist_ok=True)
    models: dict[str, Path] = {}
    for name, (method, _) in MODELS.items():
        print(f"unlearning one person with {method}: {name}", flush=True)
        cell = Cell(task=TASK, method=method, count=1, finetuning=FINETUNING)
        unet = bench.model(plan_cell(cell, base, task=task, selection=Selection()).unlearned).unet
        models[name] = folder / f"{name}.safetensors"
        save_file({key: value.detach().cpu().contiguous() for key, value in unet.state_dict().items()}, models[name])
    bench.release()
    concepts = folder / "erased.txt"
    concepts.write_text("\n".join(concept.name for concept in task.erase(1)) + "\n", encoding="utf-8")
    return models, concepts
