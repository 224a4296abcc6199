"""Vectorised painting: a batch of canvases, and shapes as signed distances.

A shape is a signed distance [n, s, s], negative inside, in canvas units (the canvas spans −1 … 1, x to the right, y
downwards); painting converts it to coverage with one pixel of antialiasing. Parameters may differ per sample, as
[n, 1, 1]. Distances of ellipses and unions are the usual first-order approximations, exact near the edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


class Canvas:
    """`n` square pictures of `size` pixels, RGB in 0 … 1."""

    def __init__(self, n: int, size: int, device: torch.device | str, generator: torch.Generator) -> None:
        self.n, self.size, self.device, self.generator = n, size, torch.device(device), generator
        ticks = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) * (2 / size) - 1
        self.x, self.y = ticks.view(1, 1, size).expand(1, size, size), ticks.view(1, size, 1).expand(1, size, size)
        self.pixel = 2 / size
        self.rgb = torch.zeros(n, 3, size, size, device=device)

    def uniform(self, low: float, high: float) -> Tensor:
        """One number per sample, [n, 1, 1]."""
        return torch.rand(self.n, 1, 1, device=self.device, generator=self.generator) * (high - low) + low

    def colour(self, low: float, high: float) -> Tensor:
        """One random colour per sample, [n, 3, 1, 1], channels in low … high."""
        return torch.rand(self.n, 3, 1, 1, device=self.device, generator=self.generator) * (high - low) + low

    def choose(self, count: int) -> Tensor:
        """One of `count` per sample, int64 [n]."""
        return torch.randint(count, (self.n,), device=self.device, generator=self.generator)

    def pick(self, table: Tensor, index: Tensor) -> Tensor:
        """Rows of a colour table [k, 3] by index [n]: [n, 3, 1, 1]."""
        return table.to(self.device)[index].view(-1, 3, 1, 1)

    def fill(self, colour: Tensor) -> None:
        """Fill the canvas with a colour [n, 3, 1, 1]."""
        self.rgb = colour.expand(self.n, 3, self.size, self.size).clone()

    def blend(self, coverage: Tensor, colour: Tensor) -> None:
        """Blend a colour into the canvas with coverage [n, s, s] in 0 … 1."""
        self.rgb = self.rgb + coverage.unsqueeze(1) * (colour - self.rgb)

    def paint(self, distance: Tensor, colour: Tensor, where: Tensor | float = 1.0) -> None:
        """Paint a shape; `where` [n] or [n, 1, 1] switches it per sample (0 or 1, or an opacity)."""
        coverage = (0.5 - distance / self.pixel).clamp(0, 1)
        if isinstance(where, Tensor):
            where = where.view(-1, 1, 1).float()
        self.blend(coverage * where, colour)

    def frame(
        self, cx: Tensor | float, cy: Tensor | float, scale: Tensor | float = 1.0, angle: Tensor | float = 0.0
    ) -> Frame:
        """Local coordinates centred at (cx, cy), with a unit of `scale` canvas units, rotated by `angle` radians."""
        angle_t = torch.as_tensor(angle, device=self.device, dtype=torch.float32)
        cos, sin = torch.cos(angle_t), torch.sin(angle_t)
        dx, dy = self.x - cx, self.y - cy
        return Frame((dx * cos + dy * sin) / scale, (dy * cos - dx * sin) / scale, torch.as_tensor(scale))


@dataclass(frozen=True)
class Frame:
    """Local coordinates of a figure; its methods return signed distances [n, s, s] in canvas units."""

    x: Tensor
    y: Tensor
    scale: Tensor

    def _out(self, distance: Tensor) -> Tensor:
        return distance * self.scale.to(distance.device)

    def ellipse(self, cx: Tensor | float, cy: Tensor | float, rx: Tensor | float, ry: Tensor | float) -> Tensor:
        """An axis-parallel ellipse."""
        px, py = (self.x - cx) / rx, (self.y - cy) / ry
        k = torch.sqrt(px * px + py * py + 1e-12)
        g = torch.sqrt((px / rx) ** 2 + (py / ry) ** 2 + 1e-12)
        return self._out(k * (k - 1) / g)

    def circle(self, cx: Tensor | float, cy: Tensor | float, r: Tensor | float) -> Tensor:
        """A disc."""
        return self._out(torch.sqrt((self.x - cx) ** 2 + (self.y - cy) ** 2 + 1e-12) - r)

    def ring(self, cx: Tensor | float, cy: Tensor | float, r: Tensor | float, width: Tensor | float) -> Tensor:
        """A circle's outline of a given width."""
        return self._out((torch.sqrt((self.x - cx) ** 2 + (self.y - cy) ** 2 + 1e-12) - r).abs() - width / 2)

    def box(
        self, cx: Tensor | float, cy: Tensor | float, hx: Tensor | float, hy: Tensor | float, r: Tensor | float = 0.0
    ) -> Tensor:
        """A rectangle of half sides hx, hy with corners rounded by r."""
        qx, qy = (self.x - cx).abs() - hx + r, (self.y - cy).abs() - hy + r
        outside = torch.sqrt(qx.clamp(min=0) ** 2 + qy.clamp(min=0) ** 2 + 1e-12)
        return self._out(outside + torch.maximum(qx, qy).clamp(max=0) - r)

    def line(
        self, ax: Tensor | float, ay: Tensor | float, bx: Tensor | float, by: Tensor | float, width: Tensor | float
    ) -> Tensor:
        """A line segment of a given width with round ends."""
        px, py, dx, dy = self.x - ax, self.y - ay, bx - ax, by - ay
        h = ((px * dx + py * dy) / (dx * dx + dy * dy + 1e-12)).clamp(0, 1)
        return self._out(torch.sqrt((px - dx * h) ** 2 + (py - dy * h) ** 2 + 1e-12) - width / 2)

    def polygon(self, *points: tuple[float, float]) -> Tensor:
        """A convex polygon, corners clockwise on screen."""
        worst: Tensor | None = None
        for (ax, ay), (bx, by) in zip(points, (*points[1:], points[0]), strict=True):
            length = max(((bx - ax) ** 2 + (by - ay) ** 2) ** 0.5, 1e-9)
            edge = ((self.x - ax) * (by - ay) - (self.y - ay) * (bx - ax)) / length
            worst = edge if worst is None else torch.maximum(worst, edge)
        assert worst is not None
        return self._out(worst)

    def above(self, y: Tensor | float) -> Tensor:
        """The half plane above a height."""
        return self._out(self.y - y)


def both(a: Tensor, b: Tensor) -> Tensor:
    """The intersection."""
    return torch.maximum(a, b)


def either(a: Tensor, *others: Tensor) -> Tensor:
    """The union."""
    for b in others:
        a = torch.minimum(a, b)
    return a


def without(a: Tensor, b: Tensor) -> Tensor:
    """The difference: in the first and not in the second."""
    return torch.maximum(a, -b)


def rgb(*colours: str) -> Tensor:
    """A colour table [k, 3] from strings "rrggbb"."""
    return torch.tensor([[int(c[i : i + 2], 16) / 255 for i in (0, 2, 4)] for c in colours])
