"""MTCNN, the face detector of GCD: three small networks propose, refine and output boxes (Zhang et al. 2016).

    picture ─pyramid─▶ ProposalNet (12 px) ─▶ RefineNet (24 px) ─▶ OutputNet (48 px) ─▶ boxes, most confident first

Why not a maintained library: GCD's recogniser was published for this detector's crops, and its accuracy divides by the
images in which this detector finds a face; another detector would change the denominator. The libraries that contain it
need TensorFlow (mtcnn) or torch < 2.3 and numpy < 2 (facenet-pytorch 2.6.0); the three networks have half a million
parameters and need only torch.
*Conventions of the TensorFlow graph*: convolutions pad nothing; pooling pads as 'SAME', which at the sizes that occur
(3×3/2 over an even side, 2×2/2) adds at most one row and column at the far end: `ceil_mode` without padding. There is
no batch normalisation. Its networks see the picture transposed; the conversion transposes the kernels instead.
*Settings*: smallest face 20 px, thresholds .6 .7 .7, pyramid factor .709, as in GCD. Boxes count pixels from 1, ends
included, as in the original MATLAB code. Pictures are resized by area; pyramid levels are rounded to whole grey values,
crops are not.
*Bug kept*: if exactly one cell passes the first threshold at a level, its correction is read from the horizontally
mirrored column. This bug of the original moves a box by some pixels, and the published figures include it.
*Departure*: among boxes of exactly equal probability (1 is common) the last found comes first, on every machine; the
original uses an unstable sort. This may swap two faces, or move a box by about a pixel.
*Checked*: the steps between the networks match the public code. With davidsandberg/facenet's weights, on a photograph
in several sizes, a collage and noise: the same faces, and the same boxes within 1e-4 px if both sort equally.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from resurgence_harness.errors import JudgeError, sentence

SMALLEST_FACE = 20
"""Side of the smallest detected face, in pixels."""
THRESHOLDS = (0.6, 0.7, 0.7)
"""Minimum face probability of each network."""
FACTOR = 0.709
"""Scale factor between successive pyramid levels."""
CROPS = 1024
"""Crops per batch of a network."""


class ProposalNet(nn.Module):
    """Every 12-pixel window at a stride of two: float [n, 3, h, w] → boxes' corrections [n, 4, …], face [n, …]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Corrections in box widths and heights, and probabilities."""
        x = _pooled(self.prelu1(self.conv1(x)), 2)
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return self.conv4_2(x), self.conv4_1(x).softmax(1)[:, 1]


class RefineNet(nn.Module):
    """A crop of 24 pixels: float [n, 3, 24, 24] → correction [n, 4], face [n]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Correction and probability."""
        x = _pooled(self.prelu1(self.conv1(x)), 3)
        x = _pooled(self.prelu2(self.conv2(x)), 3)
        x = self.prelu4(self.dense4(_flat(self.prelu3(self.conv3(x)))))
        return self.dense5_2(x), self.dense5_1(x).softmax(1)[:, 1]


class OutputNet(nn.Module):
    """A crop of 48 pixels: float [n, 3, 48, 48] → correction [n, 4], face [n]. Its five landmarks are not computed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2 = nn.Linear(256, 2), nn.Linear(256, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Correction and probability."""
        x = _pooled(self.prelu1(self.conv1(x)), 3)
        x = _pooled(self.prelu2(self.conv2(x)), 3)
        x = _pooled(self.prelu3(self.conv3(x)), 2)
        x = self.prelu5(self.dense5(_flat(self.prelu4(self.conv4(x)))))
        return self.dense6_2(x), self.dense6_1(x).softmax(1)[:, 1]


class FaceDetector(nn.Module):
    """The three networks and the steps between them."""

    def __init__(self) -> None:
        super().__init__()
        self.pnet, self.rnet, self.onet = ProposalNet(), RefineNet(), OutputNet()

    @torch.inference_mode()
    def detect(self, images: np.ndarray) -> list[np.ndarray]:
        """Boxes [k, 5] of each image uint8 [n, h, w, 3]: left, top, right, bottom (px), probability; best first."""
        boxes = [_square(found) for found in self._proposed(images)]
        for network, side, threshold in ((self.rnet, 24, THRESHOLDS[1]), (self.onet, 48, THRESHOLDS[2])):
            boxes = [_whole(found) for found in boxes]
            crops = [_crop(image, box, side) for image, found in zip(images, boxes, strict=True) for box in found]
            moves, faces = self._seen(network, crops)
            ends = np.cumsum([len(found) for found in boxes])[:-1]
            boxes = [
                self._settled(found, move, face, threshold, last=side == 48)
                for found, move, face in zip(boxes, np.split(moves, ends), np.split(faces, ends), strict=True)
            ]
        return boxes

    def _proposed(self, images: np.ndarray) -> list[np.ndarray]:
        """The first network's proposals over all levels of the pyramid, boxes [k, 5] of each image."""
        device = self.pnet.conv1.weight.device
        (height, width), threshold = images.shape[1:3], THRESHOLDS[0]
        pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float()
        found: list[list[np.ndarray]] = [[] for _ in images]
        for scale in _scales(min(height, width)):
            rows = torch.from_numpy(shares(height, int(np.ceil(height * scale)))).to(device)
            columns = torch.from_numpy(shares(width, int(np.ceil(width * scale)))).to(device)
            level = (rows @ pixels @ columns.T).round()
            moves, faces = (_finite(x).cpu().numpy() for x in self.pnet(_centred(level)))
            for index, (move, face) in enumerate(zip(moves, faces, strict=True)):
                x, y = np.nonzero((face >= threshold).T)
                near = np.trunc((2 * np.stack([x, y], 1) + 1) / scale)
                far = np.trunc((2 * np.stack([x, y], 1) + 12) / scale)
                column = face.shape[1] - 1 - x if len(x) == 1 else x
                cells = np.concatenate([near, far, face[y, x, None], move[:, y, column].T], 1).astype(np.float64)
                found[index].append(cells[kept(cells, 0.5)])
        return [_proposal(np.concatenate([np.zeros((0, 9)), *cells])) for cells in found]

    def _seen(self, network: nn.Module, crops: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Corrections [n, 4] and probabilities [n] of crops float [side, side, 3]."""
        device = self.pnet.conv1.weight.device
        moves, faces = [np.zeros((0, 4))], [np.zeros(0)]
        for start in range(0, len(crops), CROPS):
            part = torch.from_numpy(np.stack(crops[start : start + CROPS])).to(device).permute(0, 3, 1, 2).float()
            move, face = network(_centred(part))
            moves.append(_finite(move).double().cpu().numpy())
            faces.append(_finite(face).double().cpu().numpy())
        return np.concatenate(moves), np.concatenate(faces)

    @staticmethod
    def _settled(
        boxes: np.ndarray, moves: np.ndarray, faces: np.ndarray, threshold: float, *, last: bool
    ) -> np.ndarray:
        """The boxes above the threshold, corrected, without duplicates; made square again except in the last stage."""
        passed = faces > threshold
        boxes, moves = np.column_stack([boxes[passed, :4], faces[passed]]), moves[passed]
        if last:
            boxes = _moved(boxes, moves, 1)
            once: np.ndarray = boxes[kept(boxes, 0.7, of_smaller=True)]
            return once
        picked = kept(boxes, 0.7)
        return _square(_moved(boxes[picked], moves[picked], 1))


def kept(boxes: np.ndarray, overlap: float, *, of_smaller: bool = False) -> np.ndarray:
    """Non-maximum suppression of boxes [k, ≥ 5]: the indices kept at this maximum `overlap`, most confident first.

    The overlap is intersection over union, or over the area of the smaller box (`of_smaller`).
    """
    left, top, right, bottom, sure = boxes[:, :5].T
    area = (right - left + 1) * (bottom - top + 1)
    # Probabilities of exactly 1 are common; among equal ones the last comes first.
    waiting, chosen = np.argsort(sure, kind="stable")[::-1], []
    while len(waiting):
        best, rest = waiting[0], waiting[1:]
        chosen.append(best)
        across = np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest]) + 1
        down = np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest]) + 1
        common = np.maximum(across, 0) * np.maximum(down, 0)
        whole = np.minimum(area[best], area[rest]) if of_smaller else area[best] + area[rest] - common
        waiting = rest[common / whole <= overlap]
    return np.array(chosen, np.int64)


@lru_cache(maxsize=4096)
def shares(old: int, new: int) -> np.ndarray:
    """Area resampling as a matrix, float32 [new, old]: the share of each new pixel covered by each old one."""
    edges = np.arange(new + 1) * (old / new)
    start, end = edges[:-1, None], edges[1:, None]
    pixels = np.arange(old)[None]
    covered = np.clip(np.minimum(end, pixels + 1) - np.maximum(start, pixels), 0, None)
    matrix: np.ndarray = (covered / covered.sum(1, keepdims=True)).astype(np.float32)
    return matrix


def _scales(side: int) -> list[float]:
    """Scales of the pyramid levels: a face of 20 px is 12 px in the first, and the last level is at least 12 px."""
    scales: list[float] = []
    while side * (scale := 12 / SMALLEST_FACE * FACTOR ** len(scales)) >= 12:
        scales.append(scale)
    return scales


def _proposal(cells: np.ndarray) -> np.ndarray:
    """Cells [k, 9] of all levels as boxes [k, 5]."""
    cells = cells[kept(cells, 0.7)]
    return _moved(cells[:, :5], cells[:, 5:], 0)


def _moved(boxes: np.ndarray, moves: np.ndarray, extra: int) -> np.ndarray:
    """Boxes [k, 5], each edge moved by a share of the width or height, to which `extra` pixels are added."""
    size = boxes[:, 2:4] - boxes[:, :2] + extra
    return np.column_stack([boxes[:, :4] + moves * np.tile(size, 2), boxes[:, 4]])


def _square(boxes: np.ndarray) -> np.ndarray:
    """Boxes around the same centres, as wide and high as their longer side."""
    size = boxes[:, 2:4] - boxes[:, :2]
    longest = size.max(1, keepdims=True, initial=0)
    corner = boxes[:, :2] + size / 2 - longest / 2
    return np.column_stack([corner, corner + longest, boxes[:, 4]])


def _whole(boxes: np.ndarray) -> np.ndarray:
    """Boxes at whole pixels, truncated towards zero."""
    return np.column_stack([np.trunc(boxes[:, :4]), boxes[:, 4]])


def _crop(image: np.ndarray, box: np.ndarray, side: int) -> np.ndarray:
    """Crop, float32 [side, side, 3]: the pixels left … right, counted from 1, black outside the picture."""
    left, top, right, bottom = box[:4].astype(int)
    height, width = image.shape[:2]
    window = np.zeros((max(bottom - top + 1, 1), max(right - left + 1, 1), 3), np.float32)
    rows = slice(max(top, 1) - 1, max(min(bottom, height), 0))
    columns = slice(max(left, 1) - 1, max(min(right, width), 0))
    part = image[rows, columns]
    row, column = max(top, 1) - top, max(left, 1) - left
    window[row : row + part.shape[0], column : column + part.shape[1]] = part
    down, across = shares(window.shape[0], side), shares(window.shape[1], side)
    cut: np.ndarray = np.einsum("ih,hwc,jw->ijc", down, window, across, optimize=True).astype(np.float32)
    return cut


def _finite(x: Tensor) -> Tensor:
    """JudgeError for a NaN, which would look like a picture without a face."""
    if not x.isfinite().all():
        raise JudgeError(sentence("The face detector returns NaN.", do="Check its weights and this device."))
    return x


def _centred(pixels: Tensor) -> Tensor:
    """0 … 255 to about −1 … 1."""
    return (pixels - 127.5) / 128


def _pooled(x: Tensor, size: int) -> Tensor:
    """Max-pooling over `size`×`size` windows with stride two; a window may extend beyond the far edge."""
    return nn.functional.max_pool2d(x, size, 2, ceil_mode=True)


def _flat(x: Tensor) -> Tensor:
    """[n, c, h, w] in the order in which the original flattens its transposed picture: w, h, c."""
    return x.permute(0, 3, 2, 1).flatten(1)
