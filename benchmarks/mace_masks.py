"""MACE on ten names with masks from three sources: `python -m benchmarks.mace_masks --to reports/microworld/masks.csv`.

The forget images are renders, for of a render the true mask is known: the pixels that painting the face changed.
Names, seeds and judging are those of the search (tune_unlearning.py). A segmenter (Grounding DINO and SAM) is the
fourth source; its weights are the user's and do not know these drawings, so it is not in the table.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.tune_unlearning import ERASED, PRESERVED, TEMPLATES, TRAINING_SEED, WATCHED, Kept, drawn
from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.microworld import weights, world
from resurgence_harness.presets import PRESETS
from resurgence_harness.specs import Probe, Prompt, Sampler
from resurgence_harness.tasks import CELEBRITY
from resurgence_harness.unlearning import MACE, AttentionMasks, GivenMasks, WholeImage
from resurgence_harness.unlearning.masks import concept_masks, resized
from tests.tiny import tiny_run

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

NAMES, EACH = 10, 5
COLUMNS = ("masks", "overlap with the truth", "masked part", "erased", "of", "retained", "of")


def renders(names: tuple[str, ...], each: int) -> tuple[Tensor, list[str], Tensor]:
    """Images uint8 [n, 3, h, w], their texts, and where the face is, bool [n, h, w]."""
    import torch

    painted: list[Tensor] = []
    renderer: Any = world  # drawing faces has no result of its own that could be kept
    draw_faces = renderer.draw_faces

    def watched_faces(canvas: Any, *rest: Any) -> None:
        before = canvas.rgb.clone()
        draw_faces(canvas, *rest)
        painted.append((canvas.rgb != before).any(1))

    subjects = torch.tensor([world.CELEBRITIES.index(name) for name in names]).repeat_interleave(each)
    try:
        renderer.draw_faces = watched_faces
        pictures = world.draw("celebrity", subjects, generator=torch.Generator().manual_seed(TRAINING_SEED))
    finally:
        renderer.draw_faces = draw_faces
    texts = list(pictures.captions)
    first = [texts.index(text) == place for place, text in enumerate(texts)]  # a probe asks nothing twice
    kept = torch.tensor(first)
    return (
        pictures.images[kept],
        [text for text, one in zip(texts, first, strict=True) if one],
        torch.cat(painted)[kept],
    )


def main() -> None:
    """One line per source."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True)
    args = parser.parse_args()
    concepts = ERASED[:NAMES]
    images, texts, faces = renders(tuple(concept.name for concept in concepts), EACH)
    prompts = tuple(
        Prompt(text=text, concept=next(c.name for c in concepts if c.name.casefold() in text.casefold()))
        for text in texts
    )
    forget = Probe(prompts=prompts, seeds=(0,), sampler=Sampler(height=64, width=64))
    base = StableDiffusion.load(weights.directory())
    pixels: np.ndarray = images.permute(0, 2, 3, 1).contiguous().numpy()
    run = tiny_run(base, cached=Kept(base).cached, images=lambda _: (pixels, texts))
    settings = {**PRESETS["micro"]["mace"], "templates": TEMPLATES}
    with TemporaryDirectory() as folder, args.to.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        truth = GivenMasks.written(Path(folder) / "faces.npy", faces.numpy())
        for source in (truth, AttentionMasks(), WholeImage()):
            step = MACE(
                concepts=concepts,
                forget=forget,
                anchor=CELEBRITY.anchor,
                preserve=PRESERVED,
                masks=source,
                seed=TRAINING_SEED,
                **settings,
            )
            found = concept_masks(run, forget, source)
            true = resized(faces, *found.shape[1:])
            overlap = ((found & true).sum((1, 2)) / (found | true).sum((1, 2))).mean()
            model = step.apply(base, run)
            row = (*drawn(model, concepts, 200), *drawn(model, WATCHED, 250))
            table.writerow([source.name, f"{float(overlap):.2f}", f"{float(found.float().mean()):.2f}", *row])
            file.flush()
            print(source.name, *row)


if __name__ == "__main__":
    main()
