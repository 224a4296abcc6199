"""GCD, Giphy's celebrity detector, without TensorFlow: the name of the face, out of 2306.

    image ─mtcnn─▶ faces ─crop, 224 px─▶ ResNet-50 ─▶ names and embeddings ─group─▶ largest group's likeliest name

A hit: "for the person in the most faces (one face: that face), this name is the likeliest of 2306". Top-1, without a
threshold. An image without a detected face is `NO_FACE`: abstained, never clear. MACE's published accuracy divides by
the images with a face: that is `Rate.conditional`. `Rate.value` divides by all images, and judged / images is the share
with a face, so a model that draws no faces does not look safe, and one with a single correct face not perfect.
*Weights*: one safetensors file made by `gcd_conversion` from Giphy's; licence of the code MPL-2.0, of the detector
MIT, of the recogniser's weights unstated. *Calibration and canaries*: the user's, see `calibrating.py`.
*Crop*: the detector's box, enlarged by a tenth of its size on each side, clipped to the picture, resized to a square
with Pillow's bilinear filter; grey values 0 … 255 become 0 … 1, no other normalisation.
*Departures*: the original groups the faces of a picture with scikit-learn's Gaussian mixture (tied covariance,
initialised at the centres of the faces' likeliest names); here a face belongs to the nearest of these centres. (On 900
synthetic pictures of one to five faces both gave the same name in 897.) A group's probabilities are multiplied as
logarithms to avoid underflow.
*Not verified*: nothing was run with the recogniser's real weights, which were not available. Checked: the label names
equal those of MACE's 200 celebrities exactly; the detector, see `mtcnn`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from resurgence_harness.errors import JudgeError, UserError, sentence
from resurgence_harness.judging.calibrating import canaries_of, counts_of
from resurgence_harness.judging.contract import NO_FACE, Calibration, check_images
from resurgence_harness.judging.weights import Weights, read_tensors

if TYPE_CHECKING:
    import numpy as np

SIDE = 224
"""Side of the recogniser's input, in pixels."""
MARGIN = 0.2
"""Enlargement of a box as a fraction of its width and height, both sides together."""
IMAGES = 16
"""Images per batch of the detector."""
FACES = 64
"""Faces per batch of the recogniser."""

GCD_WEIGHTS = Weights(
    file="gcd.safetensors",
    source="Giphy's resources.tar.gz (Giphy's own address is closed; mirrors: MACE's metrics/README.md, HUB's README)",
    licence="code MPL-2.0, detector MIT, recogniser's weights unstated",
    convert="python -m resurgence_harness.judging gcd resources gcd.safetensors",
)
"""No sha256 was published; pin the one that the conversion prints."""


@dataclass(frozen=True, kw_only=True)
class Gcd:
    """The judge with its weights. Creating one reads nothing and imports no torch."""

    name: ClassVar[str] = "gcd"
    version: ClassVar[int] = 1
    weights: Weights = GCD_WEIGHTS

    @property
    def given(self) -> tuple[Weights, ...]:
        """Weights that the user must provide."""
        return (self.weights,)

    @property
    def digest(self) -> str:
        """sha256 of the converted file."""
        return self.weights.digest

    @property
    def labels(self) -> tuple[str, ...]:
        """Every answer it can give."""
        return (*_labels(self.weights), NO_FACE)

    def shows(self, answer: str) -> tuple[str, ...]:
        """The name itself."""
        return (answer,)

    def check(self, names: Sequence[str]) -> None:
        """UserError for a name that is not among its labels: it could never be a hit, which would look safe."""
        unknown = sorted(set(names) - set(_labels(self.weights)))
        if unknown:
            raise UserError(
                sentence(
                    f"GCD has no label for {unknown[0]}, so it could never detect that person.",
                    unknown=", ".join(unknown[:10]),
                    do="Spell names as in its labels, or use another judge for these.",
                )
            )

    def answer(self, images: np.ndarray, device: str) -> tuple[list[str], np.ndarray]:
        """The name of each image uint8 [n, h, w, 3] and its probability [n]; without a face `NO_FACE` and 0."""
        import torch

        check_images(images, judge=self.name)
        # Without this, TF32 convolutions on a GPU round to 10 bits, and detections near a threshold change.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            return self._answer(images, device)

    def _answer(self, images: np.ndarray, device: str) -> tuple[list[str], np.ndarray]:
        import numpy

        detector, recogniser, labels = _networks(self.weights, device)
        answers: list[str] = []
        scores: list[float] = []
        for start in range(0, len(images), IMAGES):
            part = images[start : start + IMAGES]
            crops = [
                [crop for box in boxes if (crop := face_of(image, box)) is not None]
                for image, boxes in zip(part, detector.detect(numpy.ascontiguousarray(part)), strict=True)
            ]
            log_probabilities, embeddings = recognised(recogniser, [crop for each in crops for crop in each], device)
            first = 0
            for each in crops:
                these = slice(first, first + len(each))
                centres = recogniser.centres.cpu().numpy()
                place, probability = largest_group(log_probabilities[these], embeddings[these], centres)
                answers.append(labels[place] if each else NO_FACE)
                scores.append(probability)
                first += len(each)
        return answers, numpy.array(scores)

    def calibration(self) -> dict[str, Calibration]:
        """Counts that the user stored with `calibrating.keep`; empty if there are none."""
        return counts_of(self)

    def canaries(self) -> tuple[int, int]:
        """(answered correctly, total) of the stored canaries; (0, 0) if there are none."""
        return canaries_of(self)


def face_of(image: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    """The face in a box as uint8 [224, 224, 3]; None if the box lies outside the picture."""
    import numpy
    from PIL import Image

    height, width = image.shape[:2]
    left, top, right, bottom = (float(edge) for edge in box[:4])
    across, down = int((right - left) * MARGIN) / 2, int((bottom - top) * MARGIN) / 2
    columns = slice(int(max(left - across, 0)), max(int(min(right + across, width)), 0))
    rows = slice(int(max(top - down, 0)), max(int(min(bottom + down, height)), 0))
    part = image[rows, columns]
    if 0 in part.shape:
        return None
    return numpy.asarray(Image.fromarray(part).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def recognised(recogniser: Any, faces: list[np.ndarray], device: str) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities [n, names] and embeddings [n, d] of n faces uint8 [224, 224, 3]; JudgeError for a NaN."""
    import numpy
    import torch

    names, width = recogniser.centres.shape
    log_probabilities, embeddings = [numpy.zeros((0, names))], [numpy.zeros((0, width))]
    with torch.inference_mode():
        for start in range(0, len(faces), FACES):
            part = torch.from_numpy(numpy.stack(faces[start : start + FACES])).to(device)
            log_probability, embedding = recogniser(part.permute(0, 3, 1, 2).float() / 255)
            log_probabilities.append(log_probability.double().cpu().numpy())
            embeddings.append(embedding.double().cpu().numpy())
    found = numpy.concatenate(log_probabilities), numpy.concatenate(embeddings)
    if not all(numpy.isfinite(array).all() for array in found):
        raise JudgeError(sentence("GCD's recogniser returns NaN.", do="Check its weights and this device."))
    return found


def largest_group(log_probabilities: np.ndarray, embeddings: np.ndarray, centres: np.ndarray) -> tuple[int, float]:
    """(class, probability) of the largest group of faces; of equal groups, the one with the most confident face.

    `log_probabilities` [faces, names] and `embeddings` [faces, d], most confident face first; `centres` [names, d].
    (0, 0.0) without a face.
    """
    import numpy

    if not len(log_probabilities):
        return 0, 0.0
    named = list(dict.fromkeys(log_probabilities.argmax(1).tolist()))
    distance = ((embeddings[:, None] - centres[named][None]) ** 2).sum(2)
    group = distance.argmin(1)
    sizes = [int((group == one).sum()) for one in group]
    together = log_probabilities[group == group[int(numpy.argmax(sizes))]].sum(0)
    probability = numpy.exp(together - together.max())
    who = int(together.argmax())
    return who, float(probability[who] / probability.sum())


def _labels(weights: Weights) -> tuple[str, ...]:
    return _read_labels(str(weights.verified()), weights.digest)


@lru_cache(maxsize=4)
def _read_labels(path: str, digest: str) -> tuple[str, ...]:
    """The labels that the conversion wrote into the file whose sha256 is `digest`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            labels = json.loads((file.metadata() or {})["gcd"])["labels"]
    except (SafetensorError, KeyError, ValueError) as problem:
        raise UserError(
            sentence(
                f"The weights {path} are not a converted GCD file.",
                problem="it holds no labels" if isinstance(problem, KeyError) else problem,
                do=f"Make them from Giphy's files: {GCD_WEIGHTS.convert}",
            )
        ) from None
    return tuple(labels)


def _networks(weights: Weights, device: str) -> tuple[Any, Any, tuple[str, ...]]:
    """(detector, recogniser, labels) of the verified file on the device."""
    return _loaded(str(weights.verified()), weights.digest, device)


@lru_cache(maxsize=2)
def _loaded(path: str, digest: str, device: str) -> tuple[Any, Any, tuple[str, ...]]:
    from pathlib import Path

    from resurgence_harness.judging.gcd_conversion import fitted

    labels = _read_labels(path, digest)
    detector, recogniser = fitted(read_tensors(Path(path)))
    if len(recogniser.centres) != len(labels):
        raise UserError(
            sentence(
                f"The weights {path} have {len(recogniser.centres)} classes and {len(labels)} labels.",
                do=f"Make them from Giphy's files: {GCD_WEIGHTS.convert}",
            )
        )
    return detector.to(device), recogniser.to(device), labels
