"""Grounded segmentation: the region of an image that a phrase describes, by Grounding DINO's boxes and SAM's masks.

Liu et al. Grounding DINO. ECCV 2024. https://arxiv.org/abs/2303.05499
Kirillov et al. Segment Anything. ICCV 2023. https://arxiv.org/abs/2304.02643

Both are transformers models in local directories that the user gives (grounding-dino-base and sam-vit-huge, or others
of the two families), read offline from safetensors in float32. Their processors' particulars are handled here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurgence_harness.errors import BuildError, UserError, sentence

if TYPE_CHECKING:
    import numpy as np

FILES = ("*.safetensors", "*.json", "vocab.txt")
"""Files of a model's directory that change what it computes."""


def digest_of(directory: str | Path) -> str:
    """A segmenting model's digest: sha256 over the sorted list of (file, sha256) of its weights and settings."""
    files = sorted({path for pattern in FILES for path in Path(directory).glob(pattern)})
    if not any(path.suffix == ".safetensors" for path in files):
        raise UserError(
            sentence(
                f"There is no segmenting model at {directory}.",
                expected="a transformers directory with config.json and safetensors weights",
                do="Give local directories of a Grounding DINO and of a SAM.",
            )
        )
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            total.update(f"{path.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


class Segmenter:
    """A detector and a segmenter in memory."""

    def __init__(self, detector: str, segmenter: str, *, device: str) -> None:
        """Read both from their directories."""
        from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor, SamModel, SamProcessor

        self.device = device
        self._find, self._read_text = _loaded(GroundingDinoForObjectDetection, GroundingDinoProcessor, detector, device)
        self._outline, self._read_boxes = _loaded(SamModel, SamProcessor, segmenter, device)

    def boxes(self, image: np.ndarray, phrase: str, *, threshold: float) -> Any:
        """Boxes [k, 4] (x0, y0, x1, y1 in pixels) of the detections whose score is above the threshold."""
        import torch

        text = f"{phrase.casefold().strip().rstrip('.')}."  # it was trained on lower case and full stops
        inputs = self._read_text(images=image, text=text, return_tensors="pt").to(self.device)
        with torch.no_grad():
            found = self._find(**inputs)
        size = [image.shape[:2]]
        scored = self._read_text.post_process_grounded_object_detection(found, threshold=threshold, target_sizes=size)
        boxes = scored[0]["boxes"].cpu()
        if not bool(torch.isfinite(found.pred_boxes).all()):
            raise BuildError(sentence("The detector returns NaN or infinity.", phrase=phrase))
        return boxes

    def outline(self, image: np.ndarray, boxes: Any) -> Any:
        """The union of the masks in some boxes, bool [H, W]; for each box SAM's proposal with the best IoU score."""
        import torch

        inputs = self._read_boxes(images=image, input_boxes=[boxes.tolist()], return_tensors="pt").to(self.device)
        with torch.no_grad():
            found = self._outline(**{name: _single(value) for name, value in inputs.items()}, multimask_output=True)
        proposals = self._read_boxes.post_process_masks(
            found.pred_masks.cpu(), inputs["original_sizes"].cpu(), inputs["reshaped_input_sizes"].cpu()
        )[0]
        best = found.iou_scores[0].argmax(dim=-1).cpu()
        return proposals[torch.arange(len(best)), best].any(dim=0)


def segment(images: np.ndarray, phrases: Sequence[str], segmenter: Segmenter, *, threshold: float) -> Any:
    """The region that each phrase describes in its image, bool [n, H, W]; all False if nothing was detected."""
    import torch

    masks = torch.zeros(images.shape[:3], dtype=torch.bool)
    for index, (image, phrase) in enumerate(zip(images, phrases, strict=True)):
        boxes = segmenter.boxes(image, phrase, threshold=threshold)
        if len(boxes):
            masks[index] = segmenter.outline(image, boxes)
    return masks


def _loaded(kind: Any, processor: Any, directory: str, device: str) -> tuple[Any, Any]:
    """A frozen model and its processor; UserError for missing tensors, which would be initialised at random."""
    import torch
    from transformers.utils import logging

    bars: Any = logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()  # the run shows its own progress
    try:
        with torch.random.fork_rng(devices=[]):
            model, report = kind.from_pretrained(
                directory, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=torch.float32
            )
        reader = processor.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as problem:
        raise UserError(
            sentence(
                f"The segmenting model at {directory} cannot be loaded as a {kind.__name__}.",
                problem=next(iter(str(problem).strip().splitlines()), type(problem).__name__),
                do="Give the directory of a Grounding DINO as detector and that of a SAM as segmenter.",
            )
        ) from problem
    finally:
        if shown:
            bars.enable_progress_bar()
    missing = sorted(report["missing_keys"])
    if missing:
        raise UserError(
            sentence(
                f"The segmenting model at {directory} lacks weights.", missing=f"{len(missing)}, first {missing[0]}"
            )
        )
    return model.requires_grad_(False).eval().to(device), reader


def _single(value: Any) -> Any:
    """Floats as float32: SAM's processor returns boxes in float64."""
    return value.float() if value.is_floating_point() else value
