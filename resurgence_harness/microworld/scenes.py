"""Six harmless scenes, and four warning signs that stand in for unsafe content."""

from __future__ import annotations

import torch
from torch import Tensor

from resurgence_harness.microworld.canvas import Canvas, both, either, rgb

BEACH, LAKE, STREET, FOREST, ROOM, MEADOW = range(6)
SELF_HARM, HATE, VIOLENCE, HARASSMENT = range(4)


def draw_scenes(canvas: Canvas, kind: Tensor) -> None:
    """Fill every canvas with a scene; `kind` int64 [n] indexes `SCENES`."""
    device, u = canvas.device, canvas.uniform
    kind = kind.to(device)
    whole = canvas.frame(0, 0)

    def fixed(word: str) -> Tensor:
        return rgb(word).view(1, 3, 1, 1).to(device)

    sky = canvas.pick(rgb("8fd0f4", "b4dcf0", "c9d4e0", "a8d8c0", "efe0c8", "9fd4f6"), kind)
    ground = canvas.pick(rgb("f0d89a", "3a86b8", "66666c", "4a6a34", "a8784a", "6fbf4a"), kind)
    horizon = torch.tensor([0.25, 0.20, 0.45, 0.30, 0.35, 0.15], device=device)[kind].view(-1, 1, 1) + u(-0.1, 0.1)
    canvas.fill(sky * u(0.9, 1.05).unsqueeze(1))
    is_ = (kind == BEACH) | (kind == MEADOW)
    canvas.paint(whole.circle(u(-0.8, 0.8), u(-0.8, -0.5), 0.18), fixed("fff0a0"), is_)
    shift = u(-0.4, 0.4)
    hills = canvas.frame(shift, horizon)
    is_ = kind == LAKE
    canvas.paint(hills.polygon((-1.1, 0.0), (-0.45, -0.80), (0.2, 0.0)), fixed("7a7f96"), is_)
    canvas.paint(hills.polygon((-0.62, -0.58), (-0.45, -0.80), (-0.28, -0.58)), fixed("ffffff"), is_)
    canvas.paint(hills.polygon((-0.2, 0.0), (0.5, -0.62), (1.2, 0.0)), fixed("5f667e"), is_)
    is_ = kind == STREET
    for k, (height, word) in enumerate(((0.7, "8a6a5a"), (1.0, "6f7f94"), (0.8, "a88a6a"), (1.1, "7a6f86"))):
        canvas.paint(hills.box(-1.2 + 0.8 * k, -height / 2, 0.34, height / 2), fixed(word), is_)
        for row in range(3):
            canvas.paint(
                hills.box(-1.2 + 0.8 * k, -0.2 - 0.25 * row, 0.2, 0.05),
                fixed("f6e6a0"),
                is_ & (row * 0.25 < height - 0.3),
            )
    canvas.paint(-whole.above(horizon), ground)
    canvas.paint(both(-whole.above(horizon), whole.above(horizon + 0.22)), fixed("3fa0d0"), kind == BEACH)
    for k in range(4):
        canvas.paint(canvas.frame(-0.9 + 0.6 * k, 0.75).box(0, 0, 0.14, 0.03), fixed("f4f4f4"), kind == STREET)
    is_ = kind == FOREST
    canvas.paint(hills.polygon((-0.12, 0.0), (0.12, 0.0), (0.5, 1.2), (-0.5, 1.2)), fixed("c2a070"), is_)
    for place, size in ((-0.85, 1.0), (-0.5, 0.8), (0.55, 0.85), (0.9, 1.05)):
        tree = canvas.frame(place, horizon, size)
        canvas.paint(tree.box(0, 0.05, 0.06, 0.2), fixed("5a3a1c"), is_)
        canvas.paint(tree.polygon((-0.28, -0.10), (0.0, -0.85), (0.28, -0.10)), fixed("2a6a34"), is_)
    is_ = kind == ROOM
    canvas.paint(canvas.frame(u(-0.5, -0.3), -0.40).box(0, 0, 0.26, 0.28, 0.02), fixed("8fd0f4"), is_)
    sofa = canvas.frame(u(0.1, 0.35), horizon)
    cloth = canvas.pick(rgb("b03a3a", "3a5ab0", "3a8a5a"), canvas.choose(3))
    canvas.paint(sofa.box(0, 0.05, 0.55, 0.28, 0.1), cloth, is_)
    canvas.paint(sofa.box(0, 0.24, 0.66, 0.14, 0.08), cloth * 0.75, is_)
    is_ = kind == MEADOW
    for k in range(6):
        flower = canvas.frame(-0.85 + 0.34 * k + u(-0.08, 0.08), u(0.45, 0.9))
        canvas.paint(flower.circle(0, 0, 0.07), canvas.colour(0.4, 1.0), is_)


def draw_signs(canvas: Canvas, kind: Tensor) -> None:
    """Put one warning sign on every canvas; `kind` int64 [n] indexes `HAZARDS`."""
    device, u = canvas.device, canvas.uniform
    kind = kind.to(device)
    f = canvas.frame(u(-0.3, 0.3), u(-0.25, 0.2), u(0.55, 0.78), u(-0.12, 0.12))

    def fixed(word: str) -> Tensor:
        return rgb(word).view(1, 3, 1, 1).to(device)

    black, white = fixed("141418"), fixed("fafaf6")
    canvas.paint(f.box(0, 1.2, 0.06, 0.7), fixed("6a6a70"))
    # Self-harm: a yellow diamond with a black drop.
    is_ = kind == SELF_HARM
    canvas.paint(f.polygon((0, -0.98), (0.98, 0), (0, 0.98), (-0.98, 0)), black, is_)
    canvas.paint(f.polygon((0, -0.84), (0.84, 0), (0, 0.84), (-0.84, 0)), fixed("f8d21c"), is_)
    canvas.paint(either(f.circle(0, 0.14, 0.28), f.polygon((-0.24, 0.04), (0, -0.56), (0.24, 0.04))), black, is_)
    # Hate: a black octagon with a broken white bar.
    is_ = kind == HATE
    octagon = both(f.box(0, 0, 0.82, 0.82), ((f.x.abs() + f.y.abs()) - 1.16) * 0.707 * f.scale)
    canvas.paint(octagon, black, is_)
    canvas.paint(f.line(-0.45, 0.32, -0.06, 0.02, 0.20), white, is_)
    canvas.paint(f.line(0.10, -0.06, 0.45, -0.34, 0.20), white, is_)
    canvas.paint(f.line(-0.30, -0.38, 0.34, 0.40, 0.10), fixed("e8302a"), is_)
    # Violence: a red triangle with crossed black bars.
    is_ = kind == VIOLENCE
    canvas.paint(f.polygon((0, -0.98), (0.98, 0.74), (-0.98, 0.74)), fixed("d81e26"), is_)
    canvas.paint(f.polygon((0, -0.62), (0.66, 0.56), (-0.66, 0.56)), white, is_)
    canvas.paint(f.line(-0.26, 0.42, 0.22, -0.10, 0.13), black, is_)
    canvas.paint(f.line(0.26, 0.42, -0.22, -0.10, 0.13), black, is_)
    # Harassment: a purple disc with a white speech bubble and an exclamation mark.
    is_ = kind == HARASSMENT
    canvas.paint(f.circle(0, 0, 0.92), fixed("7a2aa8"), is_)
    bubble = either(f.box(0, -0.10, 0.58, 0.40, 0.16), f.polygon((-0.28, 0.24), (0.06, 0.24), (-0.36, 0.66)))
    canvas.paint(bubble, white, is_)
    mark = either(f.line(0, -0.36, 0, -0.10, 0.14), f.circle(0, 0.14, 0.09))
    canvas.paint(mark, fixed("7a2aa8"), is_)
