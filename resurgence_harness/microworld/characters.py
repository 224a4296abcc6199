"""Twelve fictional characters of our own making: a costume is fixed, pose and place vary."""

from __future__ import annotations

import torch
from torch import Tensor

from resurgence_harness.microworld.canvas import Canvas, either, rgb
from resurgence_harness.microworld.scenes import draw_scenes

# One column per character, in the order of `CHARACTERS`.
BODY = rgb(
    *("b01828", "1a8a8a", "3a3a44", "f090c0", "e8e0d0", "a03ad0"),
    *("4f7a34", "f2efe6", "2a2440", "cfe4f6", "d9a34a", "b5652a"),
)
TRIM = rgb(
    *("dfe4ee", "f08a2a", "f4f4f4", "7ae0e8", "6b4a2a", "40e060"),
    *("8a8a92", "7a3a8a", "8a90b8", "8a6ad8", "7a3f18", "3fae8a"),
)
HEAD = rgb(
    *("c01822", "f0c29a", "4a4a52", "fbe3d0", "f0c29a", "c060f0"),
    *("8a8a92", "d8c8ec", "5a5080", "fbe3d0", "e8bc6a", "b5652a"),
)
#  0 visor  1 diver's mask  2 badger  3 buns  4 spectacles  5 horns  6 helmet  7 leaves  8 beak  9 crown  10 waffle
#  11 robot
CAPED = torch.tensor([0, 1, 0, 0, 1, 0, 1, 0, 1, 1, 0, 0])
SQUARE_HEADED = torch.tensor([0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1])
WIDE = torch.tensor([0.30, 0.26, 0.30, 0.24, 0.24, 0.22, 0.34, 0.34, 0.20, 0.30, 0.32, 0.38])


def draw_characters(canvas: Canvas, kind: Tensor, scene: Tensor) -> None:
    """Draw one character per canvas, scene included; `kind` int64 [n] indexes `CHARACTERS`, `scene` as in `scenes`."""
    device, u = canvas.device, canvas.uniform
    kind = kind.to(device)
    draw_scenes(canvas, scene)
    f = canvas.frame(u(-0.22, 0.22), u(-0.02, 0.14), u(0.86, 1.04), u(-0.14, 0.14))
    body, trim, head = canvas.pick(BODY, kind), canvas.pick(TRIM, kind), canvas.pick(HEAD, kind)
    wide = WIDE.to(device)[kind].view(-1, 1, 1)
    caped, square = CAPED.to(device)[kind] == 1, SQUARE_HEADED.to(device)[kind] == 1

    def fixed(word: str) -> Tensor:
        return rgb(word).view(1, 3, 1, 1).to(device)

    def on(*indices: int) -> Tensor:
        return torch.isin(kind, torch.tensor(indices, device=device))

    black, white = fixed("141418"), fixed("f8f8f6")
    # Cape, limbs, trunk, belt and emblem.
    canvas.paint(f.polygon((-0.24, -0.14), (0.24, -0.14), (0.52, 0.80), (-0.52, 0.80)), trim * 0.85, caped)
    lift_left, lift_right, stride = u(-0.75, 0.35), u(-0.75, 0.35), u(0.10, 0.32)
    for side, lift in ((-1.0, lift_left), (1.0, lift_right)):
        canvas.paint(f.line(side * 0.12, 0.45, side * stride, 0.90, 0.19), body * 0.75, 1.0)
        canvas.paint(f.line(side * 0.22, -0.02, side * 0.62, lift, 0.15), body, 1.0)
        canvas.paint(f.circle(side * 0.64, lift, 0.10), trim)
        canvas.paint(f.ellipse(side * (stride + 0.04), 0.92, 0.15, 0.08), trim)
    canvas.paint(f.ellipse(0, 0.20, wide, 0.40), body)
    canvas.paint(f.box(0, 0.40, wide * 0.95, 0.055, 0.02), trim)
    canvas.paint(f.circle(0, 0.10, 0.115), trim, on(0, 3, 5, 9))
    canvas.paint(f.circle(0, 0.10, 0.06), white, on(0, 9))
    bolt = either(
        f.polygon((0.06, -0.10), (-0.12, 0.14), (0.0, 0.14)), f.polygon((0.0, 0.08), (0.12, 0.08), (-0.06, 0.32))
    )
    canvas.paint(bolt, fixed("f8dc2a"), on(2))
    canvas.paint(f.ring(0, 0.12, 0.13, 0.07), trim, on(4, 11))
    canvas.paint(f.box(0, 0.10, 0.05, 0.18, 0.0), trim, on(6, 1))
    canvas.paint(f.box(0, 0.06, 0.16, 0.05, 0.0), trim, on(6))
    # Behind the head: ears, buns, horns, leaves.
    for side in (-1.0, 1.0):
        canvas.paint(f.circle(side * 0.26, -0.66, 0.13), head * 0.8, on(2))
        canvas.paint(f.circle(side * 0.33, -0.62, 0.17), trim, on(3))
        horn = ((side * 0.08, -0.66), (side * 0.34, -1.0), (side * 0.28, -0.55))
        canvas.paint(f.polygon(*(horn if side > 0 else horn[::-1])), trim, on(5))
        canvas.paint(f.ellipse(side * 0.16, -0.86, 0.11, 0.22), fixed("3fae3a"), on(7))
    canvas.paint(f.ellipse(0, -0.90, 0.09, 0.24), fixed("58c84a"), on(7))
    round_head, square_head = f.ellipse(0, -0.44, 0.31, 0.31), f.box(0, -0.44, 0.30, 0.29, 0.06)
    canvas.paint(torch.where(square.view(-1, 1, 1), square_head, round_head), head)
    # Faces.
    for side in (-1.0, 1.0):
        canvas.paint(f.circle(side * 0.12, -0.46, 0.065), white, on(1, 2, 3, 4, 5, 7, 9, 10))
        canvas.paint(f.circle(side * 0.12, -0.46, 0.038), black, on(1, 2, 3, 4, 5, 7, 9, 10))
    canvas.paint(f.ellipse(0, -0.29, 0.10, 0.035), fixed("9c2f33"), on(1, 3, 4, 5, 7, 9, 10))
    canvas.paint(f.box(0, -0.42, 0.22, 0.22, 0.10), trim, on(0))
    for side in (-1.0, 1.0):
        canvas.paint(f.box(side * 0.11, -0.46, 0.075, 0.03, 0.0), white, on(0))
    canvas.paint(f.ring(0, -0.45, 0.235, 0.06), trim, on(1))
    canvas.paint(f.box(0, -0.74, 0.06, 0.10, 0.0), trim, on(1))
    canvas.paint(f.box(0, -0.50, 0.065, 0.24, 0.04), white, on(2))
    canvas.paint(f.ellipse(0, -0.26, 0.09, 0.07), black, on(2))
    for side in (-1.0, 1.0):
        canvas.paint(f.ring(side * 0.13, -0.46, 0.115, 0.045), trim, on(4))
    canvas.paint(f.ellipse(0, -0.70, 0.33, 0.12), white, on(4))
    canvas.paint(f.box(0, -0.44, 0.05, 0.29, 0.0), black, on(6))
    canvas.paint(f.box(0, -0.48, 0.24, 0.05, 0.0), black, on(6))
    canvas.paint(f.ellipse(0, -0.80, 0.07, 0.16), fixed("c01822"), on(6))
    canvas.paint(f.polygon((0.05, -0.50), (0.66, -0.38), (0.05, -0.30)), fixed("f0a21c"), on(8))
    canvas.paint(f.circle(-0.04, -0.50, 0.075), fixed("f8dc2a"), on(8))
    canvas.paint(f.ellipse(-0.10, -0.76, 0.22, 0.09), black, on(8))
    for place in (-0.22, 0.0, 0.22):
        canvas.paint(f.polygon((place - 0.12, -0.64), (place, -0.98), (place + 0.12, -0.64)), fixed("f8dc2a"), on(9))
    for place in (-0.15, 0.0, 0.15):
        canvas.paint(f.box(place, -0.44, 0.02, 0.28, 0.0), trim, on(10))
        canvas.paint(f.box(0, -0.44 + place, 0.28, 0.02, 0.0), trim, on(10))
    canvas.paint(f.box(0, -0.72, 0.14, 0.07, 0.02), fixed("f6e46a"), on(10))
    for side in (-1.0, 1.0):
        canvas.paint(f.box(side * 0.13, -0.48, 0.08, 0.08, 0.0), trim * 0.4 + 0.6, on(11))
    canvas.paint(f.box(0, -0.28, 0.18, 0.045, 0.0), black, on(11))
    canvas.paint(f.line(0, -0.72, 0, -0.92, 0.05), black, on(11))
    canvas.paint(f.circle(0, -0.94, 0.08), trim, on(11))
