"""GCD's recogniser in torch: torchvision's ResNet-50, an embedding of 256 dimensions, 2306 classes.

    face [3, 224, 224] in 0 … 1 ─stem─▶ 64 ─4 stages─▶ 2048 ─mean─▶ embed 256 ─▶ classify 2306

*Conventions*. Published as a torch model, so they are torchvision's and not TensorFlow's: convolutions pad both sides
equally (7×7/2 by 3, 3×3 by 1; 'SAME' would pad a strided one at the far end only), max-pooling 3×3/2 pads 1, the stride
of a stage is on its 3×3 convolution, batch normalisation has epsilon 1e-5, and there is no nonlinearity between `embed`
and `classify`. The input is not normalised by mean and standard deviation.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

EPSILON = 1e-5
"""Epsilon of every batch normalisation."""


class Bottleneck(nn.Module):
    """Residual block, 1×1 down, 3×3, 1×1 up by four: float [n, a, h, w] → [n, 4·width, h/stride, w/stride]."""

    def __init__(self, a: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(a, width, 1, bias=False), nn.BatchNorm2d(width, eps=EPSILON)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width, eps=EPSILON)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width, eps=EPSILON)
        self.downsample = nn.Sequential()
        if stride != 1 or a != 4 * width:
            norm = nn.BatchNorm2d(4 * width, eps=EPSILON)
            self.downsample = nn.Sequential(nn.Conv2d(a, 4 * width, 1, stride, bias=False), norm)

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        inner = torch.relu(self.bn1(self.conv1(x)))
        inner = torch.relu(self.bn2(self.conv2(inner)))
        return torch.relu(self.bn3(self.conv3(inner)) + self.downsample(x))


class Recogniser(nn.Module):
    """The network, sized as its weights; GCD's has width 64, depths 3 4 6 3, embedding 256, 2306 names.

    `centres` [names, embedding] are the class centres of the centre loss.
    """

    def __init__(self, *, width: int, depths: tuple[int, ...], embedding: int, names: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width, eps=EPSILON)
        a = width
        for stage, depth in enumerate(depths):
            inner, blocks = width * 2**stage, []
            for block in range(depth):
                blocks.append(Bottleneck(a, inner, 2 if stage and not block else 1))
                a = 4 * inner
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.stages = len(depths)
        self.embed, self.classify = nn.Linear(a, embedding), nn.Linear(embedding, names)
        self.register_buffer("centres", torch.zeros(names, embedding))

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities [n, names] and embeddings [n, embedding] of faces [n, 3, h, w] in 0 … 1."""
        x = torch.relu(self.bn1(self.conv1(faces)))
        x = nn.functional.max_pool2d(x, 3, 2, 1)
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        embedding: Tensor = self.embed(x.mean((2, 3)))
        return self.classify(embedding).log_softmax(1), embedding

    @classmethod
    def shaped_as(cls, tensors: Mapping[str, Tensor]) -> Recogniser:
        """A network of the size of these weights; KeyError if a tensor that determines the size is missing."""
        depths: list[int] = []
        while f"layer{len(depths) + 1}.0.conv1.weight" in tensors:
            stage, depth = f"layer{len(depths) + 1}", 0
            while f"{stage}.{depth}.conv1.weight" in tensors:
                depth += 1
            depths.append(depth)
        names, embedding = tensors["classify.weight"].shape
        width = tensors["conv1.weight"].shape[0]
        return cls(width=width, depths=tuple(depths), embedding=embedding, names=names)
