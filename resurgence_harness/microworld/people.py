"""Faces: an identity is a code of visible features; pose, light, expression and clothes vary between pictures.

Two hundred codes are found by a seeded greedy search, so that any two people have a weighted distance of at least
`APART`: no two celebrities differ in a single feature only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from resurgence_harness.microworld.canvas import Canvas, both, either, rgb, without

SKIN = rgb("fbe3d0", "f0c29a", "d99a66", "a86b3c", "6e4220", "3f2718")
HAIR = rgb("17130f", "5a3414", "e8c455", "c2461a", "d8d8da", "2f66d0", "d8489c")
EYES = rgb("2b6cc4", "2e8b4a", "5b3a1c", "7d7d86")
FRAMES = rgb("101014", "101014", "101014", "c8182a", "2040c8")
HATS = rgb("c61f2b", "1f3f9e", "20803c", "ece7d8", "e8b021", "6a2a8a")
EARRINGS = rgb("ffffff", "f2b61c", "f4f4f8", "12a5a0")


@dataclass(frozen=True)
class Feature:
    """One feature of the code: its values, their unnormalised probabilities, and its weight in distances."""

    name: str
    values: int
    weight: float
    chances: tuple[float, ...]


CODE = (
    Feature("skin", 6, 1.0, (1,) * 6),
    Feature("hair style", 8, 1.25, (1, 1, 1, 1, 1, 1, 1, 1)),
    Feature("hair colour", 7, 1.0, (1,) * 7),
    Feature("face", 4, 0.5, (1,) * 4),
    Feature("eyes", 4, 0.25, (1,) * 4),
    Feature("glasses", 5, 1.0, (3, 1, 1, 1, 1)),
    Feature("beard", 5, 1.0, (4, 1, 1, 1, 1)),
    Feature("hat", 6, 1.25, (5, 1, 1, 1, 1, 1)),
    Feature("hat colour", 6, 0.75, (1,) * 6),
    Feature("earrings", 4, 0.75, (3, 1, 1, 1)),
    Feature("brows", 2, 0.25, (1, 1)),
)
WEIGHTS = np.array([f.weight for f in CODE])
APART = 3.25
"""The smallest weighted distance between two of the two hundred people."""

BALD, NO_HAT = 0, 0


def _draw_codes(rng: np.random.Generator, n: int) -> np.ndarray:
    columns = [rng.choice(f.values, size=n, p=np.array(f.chances) / sum(f.chances)) for f in CODE]
    codes = np.stack(columns, axis=1)
    hat, style, beard = codes[:, 7], codes[:, 1], codes[:, 6]
    codes[:, 8] = np.where(hat == NO_HAT, 0, codes[:, 8])
    codes[:, 2] = np.where((style == BALD) & (beard == 0), 0, codes[:, 2])
    return codes


@lru_cache(maxsize=1)
def identities(count: int = 200, seed: int = 20241) -> np.ndarray:
    """The codes of the celebrities, int64 [count, features], with pairwise distances of at least `APART`."""
    rng, kept = np.random.default_rng(seed), np.zeros((0, len(CODE)), dtype=np.int64)
    while len(kept) < count:
        for code in _draw_codes(rng, 512):
            if not len(kept) or ((kept != code) @ WEIGHTS).min() >= APART:
                kept = np.concatenate([kept, code[None]])
                if len(kept) == count:
                    break
    return kept


def strangers(n: int, generator: torch.Generator) -> Tensor:
    """Codes of people who are not celebrities, at a distance of at least 2 from all; int64 [n, features] on the CPU."""
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator, device=generator.device))
    rng, known = np.random.default_rng(seed), identities()
    kept: list[np.ndarray] = []
    while len(kept) < n:
        codes = _draw_codes(rng, max(64, n))
        apart = ((codes[:, None] != known[None]) @ WEIGHTS).min(axis=1) >= 2.0
        kept.extend(codes[apart][: n - len(kept)])
    return torch.from_numpy(np.stack(kept))


def draw_faces(canvas: Canvas, codes: Tensor, formal: Tensor) -> None:
    """Draw one head and shoulders per canvas over the existing background.

    `codes` int64 [n, features]; `formal` bool [n]: a suit and tie instead of a coloured shirt.
    """
    skin_i, style, hair_i, face, eyes_i, glasses, beard, hat, hat_i, ear_i, brow = codes.to(canvas.device).unbind(1)
    skin, hair = canvas.pick(SKIN, skin_i), canvas.pick(HAIR, hair_i)
    eyes, frames = canvas.pick(EYES, eyes_i), canvas.pick(FRAMES, glasses)
    cloth, metal = canvas.pick(HATS, hat_i), canvas.pick(EARRINGS, ear_i)
    black, white = rgb("15110f").view(1, 3, 1, 1).to(canvas.device), torch.ones(1, 3, 1, 1, device=canvas.device)
    u = canvas.uniform
    f = canvas.frame(u(-0.07, 0.07), u(0.02, 0.14), u(0.98, 1.14), u(-0.12, 0.12))
    yaw, smile, gaze = u(-0.05, 0.05), u(-0.04, 0.09), u(-0.015, 0.015)

    def of(index: Tensor, *values: float) -> Tensor:
        return torch.tensor(values, device=canvas.device)[index].view(-1, 1, 1)

    rx, ry = of(face, 0.47, 0.40, 0.45, 0.48), of(face, 0.50, 0.58, 0.52, 0.53)
    # The hair behind the head: long, afro, bob.
    volume = of(style, 0.0, 0.0, 0.0, 0.0, 0.24, 0.09, 0.0, 0.0)
    canvas.paint(f.ellipse(0, -0.08, rx + volume, ry + volume * 0.95), hair, (style == 4))
    canvas.paint(f.box(0, 0.28, rx + 0.10, 0.62, 0.2), hair, (style == 3))
    canvas.paint(f.box(0, 0.08, rx + 0.11, 0.42, 0.2), hair, (style == 5))
    canvas.paint(f.circle(0, -0.66, 0.19), hair, (style == 7) & (hat == NO_HAT))
    # Neck and shoulders.
    shirt = canvas.colour(0.15, 0.95)
    suit = canvas.pick(rgb("20242e", "2c3550", "3a3a3e"), canvas.choose(3))
    canvas.paint(f.box(0, 0.62, 0.16, 0.24, 0.05), skin * 0.86)
    body = f.ellipse(0, 1.16, 0.80, 0.46)
    canvas.paint(body, torch.where(formal.view(-1, 1, 1, 1), suit, shirt))
    canvas.paint(f.polygon((-0.16, 0.70), (0.16, 0.70), (0.0, 1.05)), white, formal)
    canvas.paint(f.polygon((-0.05, 0.80), (0.05, 0.80), (0.07, 1.1), (-0.07, 1.1)), canvas.colour(0.1, 0.8), formal)
    # Ears and head.
    for side in (-1.0, 1.0):
        canvas.paint(f.ellipse(side * rx, 0.02, 0.085, 0.13), skin * 0.90)
    rounded = f.ellipse(0, 0, rx, ry)
    square = f.box(0, 0, rx, ry, 0.20)
    heart = both(f.ellipse(0, -0.06, rx, ry), f.ellipse(0, -0.30, rx * 1.02, 0.86))
    head = torch.where((face == 2).view(-1, 1, 1), square, rounded)
    head = torch.where((face == 3).view(-1, 1, 1), heart, head)
    canvas.paint(head, skin)
    shade = ((f.x * u(-1, 1) + 0.3 * f.y) * 0.22).clamp(-0.16, 0.16)
    canvas.blend((0.5 - head / canvas.pixel).clamp(0, 1) * shade.abs(), (shade < 0).unsqueeze(1).float())
    for side in (-1.0, 1.0):
        canvas.paint(f.circle(side * (rx + 0.01), 0.20, 0.062), metal, ear_i > 0)
        canvas.paint(f.box(side * (rx + 0.01), 0.30, 0.035, 0.08, 0.03), metal, ear_i == 3)
    # Beards lie under mouth and nose.
    jaw = both(head, -f.above(0.16))
    canvas.paint(without(jaw, f.ellipse(yaw, 0.05, rx * 0.74, 0.27)), hair, (beard == 3))
    canvas.blend((0.5 - jaw / canvas.pixel).clamp(0, 1) * 0.38 * (beard == 4).view(-1, 1, 1), hair * 0.8)
    canvas.paint(f.ellipse(yaw, 0.43, 0.13, 0.13), hair, (beard == 2))
    canvas.paint(f.ellipse(yaw, 0.215, 0.20, 0.055), hair, (beard == 1) | (beard == 2) | (beard == 3))
    # Mouth, nose, eyes, brows.
    mouth = either(
        f.line(yaw - 0.13, 0.30 - smile, yaw, 0.315, 0.055), f.line(yaw, 0.315, yaw + 0.13, 0.30 - smile, 0.055)
    )
    canvas.paint(mouth, rgb("9c2f33").view(1, 3, 1, 1).to(canvas.device))
    canvas.paint(f.line(yaw * 1.4, -0.02, yaw * 1.8 + 0.02, 0.12, 0.045), skin * 0.78)
    for side in (-1.0, 1.0):
        ex = side * 0.185 + yaw
        canvas.paint(f.ellipse(ex, -0.10, 0.095, 0.068), white)
        canvas.paint(f.circle(ex + gaze, -0.10, 0.060), eyes)
        canvas.paint(f.circle(ex + gaze, -0.10, 0.027), black)
        thick = of(brow, 0.035, 0.075)
        canvas.paint(f.line(ex - 0.10, -0.225 + 0.02 * side, ex + 0.10, -0.225 - 0.02 * side, thick), hair * 0.75)
    # Glasses: round, square, dark, bright square.
    for side in (-1.0, 1.0):
        ex = side * 0.195 + yaw
        canvas.paint(f.ring(ex, -0.095, 0.145, 0.045), frames, glasses == 1)
        outer, inner = f.box(ex, -0.095, 0.165, 0.125, 0.02), f.box(ex, -0.095, 0.118, 0.078, 0.02)
        canvas.paint(without(outer, inner), frames, (glasses == 2) | (glasses == 4))
        canvas.paint(f.ellipse(ex, -0.085, 0.175, 0.135), black, glasses == 3)
    canvas.paint(f.line(yaw - 0.07, -0.10, yaw + 0.07, -0.10, 0.04), frames, glasses > 0)
    canvas.paint(f.ellipse(yaw - 0.24, -0.13, 0.05, 0.03), frames * 0.4 + 0.6, glasses == 3)
    # The hair in front: 1 cropped, 2 parted, 3 long, 4 afro, 5 bob with fringe, 6 mohawk, 7 bun.
    cap = both(head, f.above(-0.30))
    canvas.paint(cap, hair, (style == 1) | (style == 7))
    side_part = both(f.ellipse(0, -0.02, rx + 0.04, ry + 0.06), f.above(-0.26 - 0.30 * f.x))
    canvas.paint(side_part, hair, (style == 2) | (style == 3))
    canvas.paint(both(f.ellipse(0, -0.04, rx + 0.16, ry + 0.12), f.above(-0.31)), hair, style == 4)
    canvas.paint(both(f.ellipse(0, -0.02, rx + 0.08, ry + 0.08), f.above(-0.27)), hair, style == 5)
    canvas.paint(both(f.box(0, -0.52, 0.11, 0.27, 0.05), f.above(-0.30)), hair, (style == 6) & (hat == NO_HAT))
    # Hats: 1 beanie, 2 peaked cap, 3 top hat, 4 headband, 5 crown.
    dome = both(f.ellipse(0, -0.16, rx + 0.07, 0.56), f.above(-0.30))
    canvas.paint(dome, cloth, (hat == 1) | (hat == 2))
    canvas.paint(f.box(0, -0.33, rx + 0.08, 0.075, 0.05), cloth * 0.72, hat == 1)
    canvas.paint(f.circle(0, -0.74, 0.09), cloth * 0.5 + 0.5, hat == 1)
    canvas.paint(f.ellipse(yaw * 3 + 0.12, -0.31, 0.50, 0.075), cloth * 0.6, hat == 2)
    canvas.paint(f.box(0, -0.62, 0.33, 0.30, 0.03), cloth, hat == 3)
    canvas.paint(f.box(0, -0.34, 0.62, 0.055, 0.05), cloth * 0.8, hat == 3)
    canvas.paint(f.box(0, -0.33, rx + 0.03, 0.075, 0.03), cloth, hat == 4)
    crown = either(
        f.box(0, -0.44, 0.42, 0.11),
        *(f.polygon((a - 0.14, -0.50), (a, -0.78), (a + 0.14, -0.50)) for a in (-0.28, 0.0, 0.28)),
    )
    canvas.paint(crown, cloth, hat == 5)
    canvas.paint(f.circle(0, -0.44, 0.06), 1 - cloth * 0.8, hat == 5)
