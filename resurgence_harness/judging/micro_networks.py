"""The networks of the microworld's judges: two architectures, so that the errors of two judges are less correlated."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ResidualNet(nn.Module):
    """A small residual network: a strided stem, then one downsampling residual stage per width, mean pooling.

    Images float [n, 3, 64, 64] in −1 … 1 become logits [n, classes].
    """

    def __init__(self, classes: int, widths: tuple[int, ...] = (32, 64, 128, 192)) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 5, 2, 2, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU())
        self.stages = nn.ModuleList(_Stage(a, b) for a, b in zip((widths[0], *widths[:-1]), widths, strict=True))
        self.head = nn.Linear(widths[-1] * 4, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(_quarters(self.features(images)[-1]))
        return logits

    def features(self, images: Tensor) -> list[Tensor]:
        """The activations after every stage."""
        x, out = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            out.append(x)
        return out


def _quarters(x: Tensor) -> Tensor:
    """Mean over each quadrant of the picture: [n, c, h, w] → [n, 4c]; keeps coarse positions, needed for faces."""
    return nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


class _Stage(nn.Module):
    """Downsample by two (the first stage keeps its size), then one residual block."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        stride = 1 if a == b else 2
        self.down = nn.Sequential(nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
        self.block = nn.Sequential(
            nn.Conv2d(b, b, 3, 1, 1, bias=False),
            nn.BatchNorm2d(b),
            nn.ReLU(),
            nn.Conv2d(b, b, 3, 1, 1, bias=False),
            nn.BatchNorm2d(b),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        return torch.relu(x + self.block(x))


class PatchNet(nn.Module):
    """A convolutional mixer over 4-pixel patches: depthwise spatial mixing, pointwise channel mixing.

    Images float [n, 3, 64, 64] in −1 … 1 become logits [n, classes].
    """

    def __init__(self, classes: int, width: int = 112, depth: int = 6) -> None:
        super().__init__()
        self.patches = nn.Sequential(nn.Conv2d(3, width, 4, 4), nn.GELU(), nn.BatchNorm2d(width))
        self.spatial = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 7, 1, 3, groups=width), nn.GELU(), nn.BatchNorm2d(width))
            for _ in range(depth)
        )
        self.channel = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, 2 * width, 1), nn.GELU(), nn.Conv2d(2 * width, width, 1), nn.BatchNorm2d(width)
            )
            for _ in range(depth)
        )
        self.head = nn.Linear(width * 4, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        x = self.patches(images)
        for spatial, channel in zip(self.spatial, self.channel, strict=True):
            x = x + spatial(x)
            x = x + channel(x)
        logits: Tensor = self.head(_quarters(x))
        return logits
