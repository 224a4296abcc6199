"""How the microworld's values of dora, lora-te and dreambooth are found: `python -m benchmarks.tune_finetuning`.

Blind to resurgence: no unlearned model and no erased name is used. The unmodified base is fine-tuned on images that it
draws of retained names, with each learning rate of `RATES`, and the rate with the lowest denoising loss on held-out
images of the same names is chosen (other seeds, never trained on). Steps and batch are those of `lora` and `full`;
DreamBooth trains on five images of one name, as a cell does, with half the batch, since each step takes as many class
images again. reports/microworld/tuning_finetuning.csv holds the trials.
"""

from __future__ import annotations

import argparse
import csv
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean

from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.finetuning import BenignSet, FineTuning, benign_losses, held_out
from resurgence_harness.microworld import weights
from resurgence_harness.planning import held_out_probe
from resurgence_harness.selection import Selection, plan_cell, resolve_base
from resurgence_harness.specs import Cell
from resurgence_harness.tasks import CELEBRITY
from tests.tiny import tiny_run

RATES = {
    "dreambooth": (1e-6, 3e-6, 1e-5, 3e-5),
    "dora": (1e-4, 3e-4, 1e-3, 3e-3),
    "lora-te": (1e-4, 3e-4, 1e-3),
}
SIZES = {
    "dora": {"steps": 100, "batch": 8},
    "lora-te": {"steps": 100, "batch": 8},
    "dreambooth": {"steps": 100, "batch": 4, "class_images": 50},
}
COLUMNS = ("finetuning", "learning_rate", "loss_before", "loss_after", "lower_of", "images", "seconds")


def step_of(name: str, rate: float) -> FineTuning:
    """The fine-tuning of a cell with this rate."""
    changed = tuple((f"{name}.{field}", value) for field, value in {**SIZES[name], "learning_rate": rate}.items())
    cell = Cell(task="celebrity", method="uce", count=1, finetuning=name)
    plan = plan_cell(cell, resolve_base("micro"), task=CELEBRITY, selection=Selection(changed=changed))
    return replace(plan.finetuning, save_at=())


def main() -> None:
    """Make the trials that are not in the file yet."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--to", type=Path, default=Path("reports/microworld/tuning_finetuning.csv"))
    to = parser.parse_args().to
    known = set()
    if to.exists():
        with to.open(newline="", encoding="utf-8") as file:
            known = {(row["finetuning"], float(row["learning_rate"])) for row in csv.DictReader(file)}
    else:
        to.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    model = StableDiffusion.load(weights.directory())
    for name, rates in RATES.items():
        for rate in rates:
            if (name, rate) in known:
                continue
            start, step = time.monotonic(), step_of(name, rate)
            assert isinstance(step.data, BenignSet)
            probe = held_out_probe(step.data.probe)
            latents, states = held_out(model, *tiny_run(model).images(probe))
            texts = [prompt.text for prompt, _ in probe.rows()]
            before = benign_losses(model, latents, states, seed=0)
            tuned = step.apply(model, tiny_run(model))
            own = held_out(tuned, tiny_run(model).images(probe)[0], texts)[1]
            after = benign_losses(tuned, latents, own, seed=0)
            lower = sum(a < b for a, b in zip(after, before, strict=True))
            row = (name, rate, f"{mean(before):.5f}", f"{mean(after):.5f}", lower, len(after))
            with to.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerow((*row, round(time.monotonic() - start, 1)))


if __name__ == "__main__":
    main()
