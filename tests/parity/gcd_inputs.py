"""What GCD is given: pictures, a detector and a recogniser whose weights are drawn by their names."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import numpy as np
import torch

from resurgence_harness.judging.gcd_networks import Recogniser
from resurgence_harness.judging.mtcnn import FaceDetector
from tests.parity.given import pictures

NAMES, EMBEDDING = 12, 16
IMAGES = pictures(3, seed=12, side=120)[:, :96]
"""uint8 [3, 96, 120, 3]."""


def fill(what: str, module: Any) -> Any:
    """Weights and statistics by their names: kernels ~ N(0, 2/n) with n inputs, scales about 1, the rest about 0."""
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if not value.is_floating_point():
                continue
            rng = np.random.default_rng(crc32(f"{what} {name}".encode()))
            drawn = rng.standard_normal(tuple(value.shape))
            if name == "centres":
                pass
            elif value.ndim > 1:
                drawn *= (2 / value[0].numel()) ** 0.5
            elif "running_var" in name or (".bn" in f".{name}" and name.endswith("weight")):
                drawn = 1 + 0.1 * np.abs(drawn)
            elif "prelu" in name:
                drawn = 0.25 + 0.05 * drawn
            else:
                drawn *= 0.1
            value.copy_(torch.from_numpy(drawn))
    return module


def detector() -> FaceDetector:
    """It sees some faces in these pictures, that is, it takes some places for faces."""
    made: FaceDetector = fill("detector", FaceDetector())
    with torch.no_grad():
        for head in (made.pnet.conv4_2, made.rnet.dense5_2, made.onet.dense6_2):
            head.weight.mul_(0.05)
            head.bias.mul_(0.05)
    return made.eval()


def recogniser() -> Recogniser:
    """One block a stage at GCD's width, twelve names."""
    made: Recogniser = fill("recogniser", Recogniser(width=64, depths=(1, 1, 1, 1), embedding=EMBEDDING, names=NAMES))
    return made.eval()


def people(case: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities [faces, 12] and embeddings [faces, 16] of faces of one to three people, and centres [12, 16]."""
    rng = np.random.default_rng([case, 41])
    centres = 3 * rng.standard_normal((NAMES, EMBEDDING))
    shown = rng.choice(NAMES, 1 + case % 3, replace=False)
    who = np.concatenate([np.repeat(shown[:1], 3), shown[1:]])[: 2 + case % 4]
    points = centres[who] + 0.3 * rng.standard_normal((len(who), EMBEDDING))
    logits = 4 * np.eye(NAMES)[who] + rng.standard_normal((len(who), NAMES))
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return probability, points, centres
