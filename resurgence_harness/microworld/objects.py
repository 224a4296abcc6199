"""Ten objects, the CIFAR-10 classes, as picture-book drawings: colour, size, place and direction vary."""

from __future__ import annotations

import torch
from torch import Tensor

from resurgence_harness.microworld.canvas import Canvas, Frame, both, either, rgb

AIRPLANE, AUTOMOBILE, BIRD, CAT, DEER, DOG, FROG, HORSE, SHIP, TRUCK = range(10)


def _backdrop(canvas: Canvas, kind: Tensor) -> None:
    """Sky, road, water or meadow: what usually lies around the thing, with other backgrounds now and then."""
    device, u = canvas.device, canvas.uniform
    ground = torch.tensor([0, 1, 0, 3, 2, 3, 4, 2, 4, 1], device=device)[kind]
    odd = torch.rand(canvas.n, device=device, generator=canvas.generator) < 0.15
    ground = torch.where(odd, canvas.choose(5), ground)
    sky = canvas.pick(rgb("9fd0f2", "c4e2f4", "f3d6b0", "e8dccc", "b8e0e6"), ground)
    low = canvas.pick(rgb("b4daf4", "6d6d72", "6fae56", "c49a6c", "2f7fb5"), ground)
    canvas.fill(sky * u(0.88, 1.06).unsqueeze(1))
    canvas.paint(-canvas.frame(0, 0).above(u(0.15, 0.4)), low, ground > 0)
    cloud = canvas.frame(u(-0.8, 0.8), u(-0.8, -0.5), 0.35)
    white = torch.ones(1, 3, 1, 1, device=device)
    canvas.paint(
        either(cloud.circle(-0.5, 0, 0.4), cloud.circle(0, -0.15, 0.55), cloud.circle(0.5, 0, 0.4)),
        white,
        (ground == 0) | (ground == 4),
    )


def draw_objects(canvas: Canvas, kind: Tensor) -> None:
    """Draw one object per canvas, background included; `kind` int64 [n] indexes `OBJECTS`."""
    device, u = canvas.device, canvas.uniform
    kind = kind.to(device)
    _backdrop(canvas, kind)
    mirrored = torch.where(u(0, 1) < 0.5, -1.0, 1.0)
    frame = canvas.frame(u(-0.12, 0.12), u(-0.08, 0.14), u(0.82, 1.05), u(-0.08, 0.08))
    f = Frame(frame.x * mirrored, frame.y, frame.scale)

    def fixed(word: str) -> Tensor:
        return rgb(word).view(1, 3, 1, 1).to(device)

    black, white = fixed("16161a"), fixed("f6f6f2")
    paint = canvas.pick(rgb("d8262c", "2458c8", "f0b21c", "2f9a4a", "f2f2f0", "8a3ab0", "ef7a1a"), canvas.choose(7))
    fur = canvas.pick(rgb("d98a3a", "8a8a90", "2a2624", "f0e2cc", "7a4a26"), canvas.choose(5))
    coat = canvas.pick(rgb("6b3f1f", "2b2523", "c9b39a", "9a5a2a"), canvas.choose(4))

    def on(index: int) -> Tensor:
        return kind == index

    # Airplane: a long body, swept wings, a tail fin, windows.
    is_ = on(AIRPLANE)
    canvas.paint(f.polygon((-0.05, 0.02), (-0.50, -0.52), (-0.30, -0.52), (0.28, 0.02)), paint * 0.75, is_)
    canvas.paint(f.ellipse(0, 0, 0.86, 0.17), white, is_)
    canvas.paint(f.polygon((-0.86, -0.02), (-0.95, -0.46), (-0.74, -0.46), (-0.50, -0.06)), paint, is_)
    canvas.paint(f.polygon((-0.10, 0.08), (-0.55, 0.62), (-0.30, 0.62), (0.30, 0.08)), paint, is_)
    for k in range(4):
        canvas.paint(f.circle(-0.25 + 0.2 * k, -0.03, 0.05), fixed("24406a"), is_)
    # Automobile: a low body, a cabin with windows, two wheels.
    is_ = on(AUTOMOBILE)
    canvas.paint(f.box(-0.05, -0.10, 0.42, 0.26, 0.16), paint, is_)
    canvas.paint(f.box(0, 0.18, 0.80, 0.20, 0.10), paint, is_)
    canvas.paint(f.box(-0.24, -0.10, 0.16, 0.14, 0.05), fixed("bfe4f2"), is_)
    canvas.paint(f.box(0.14, -0.10, 0.16, 0.14, 0.05), fixed("bfe4f2"), is_)
    canvas.paint(f.circle(0.74, 0.14, 0.06), fixed("ffe680"), is_)
    # Truck: a tall cargo box behind a cab, three wheels.
    is_ = on(TRUCK)
    canvas.paint(f.box(-0.28, -0.12, 0.56, 0.44, 0.03), paint, is_)
    canvas.paint(f.box(-0.28, -0.12, 0.46, 0.05, 0.0), white, is_)
    canvas.paint(f.box(0.56, 0.06, 0.26, 0.26, 0.06), paint * 0.55 + 0.2, is_)
    canvas.paint(f.box(0.62, -0.04, 0.14, 0.11, 0.02), fixed("bfe4f2"), is_)
    canvas.paint(f.box(0, 0.34, 0.82, 0.06, 0.02), black, is_)
    for index, places in ((AUTOMOBILE, (-0.45, 0.45)), (TRUCK, (-0.60, -0.25, 0.55))):
        for place in places:
            canvas.paint(f.circle(place, 0.40, 0.19), black, on(index))
            canvas.paint(f.circle(place, 0.40, 0.08), fixed("c8c8cc"), on(index))
    # Ship: a hull, a white deck house, a funnel with smoke; waves in front.
    is_ = on(SHIP)
    canvas.paint(f.circle(0.22, -0.72, 0.12), fixed("8a8a90"), is_)
    canvas.paint(f.circle(0.05, -0.82, 0.09), fixed("9a9aa0"), is_)
    canvas.paint(f.box(0.15, -0.42, 0.11, 0.22, 0.02), fixed("d8262c"), is_)
    canvas.paint(f.box(0.0, -0.12, 0.44, 0.18, 0.03), white, is_)
    for k in range(3):
        canvas.paint(f.circle(-0.25 + 0.25 * k, -0.12, 0.06), fixed("24406a"), is_)
    canvas.paint(f.polygon((-0.90, 0.06), (0.90, 0.06), (0.62, 0.48), (-0.62, 0.48)), paint * 0.8, is_)
    for k in range(5):
        canvas.paint(f.ellipse(-0.9 + 0.45 * k, 0.54, 0.26, 0.10), fixed("2f7fb5"), is_)
    # Bird: a round body, a wing, a beak, a tail.
    is_ = on(BIRD)
    canvas.paint(f.polygon((-0.40, 0.08), (-0.92, -0.10), (-0.92, 0.22), (-0.40, 0.22)), paint * 0.7, is_)
    canvas.paint(f.line(-0.05, 0.35, -0.05, 0.70, 0.06), fixed("e08a1a"), is_)
    canvas.paint(f.line(0.14, 0.35, 0.14, 0.70, 0.06), fixed("e08a1a"), is_)
    canvas.paint(f.ellipse(0, 0.12, 0.50, 0.34), paint, is_)
    canvas.paint(f.circle(0.40, -0.26, 0.26), paint, is_)
    canvas.paint(f.polygon((0.60, -0.36), (0.95, -0.22), (0.60, -0.12)), fixed("f0a21c"), is_)
    canvas.paint(f.ellipse(-0.12, 0.10, 0.30, 0.18), paint * 0.6, is_)
    canvas.paint(f.circle(0.46, -0.32, 0.06), black, is_)
    # Frog: a wide green body, eyes on top, a wide mouth.
    is_ = on(FROG)
    green = canvas.pick(rgb("3fae3a", "6fbf2a", "2f8a5a"), canvas.choose(3))
    for side in (-1.0, 1.0):
        canvas.paint(f.ellipse(side * 0.58, 0.44, 0.30, 0.20), green * 0.75, is_)
    canvas.paint(f.ellipse(0, 0.24, 0.62, 0.40), green, is_)
    canvas.paint(f.ellipse(0, -0.08, 0.56, 0.36), green * 0.95, is_)
    for side in (-1.0, 1.0):
        canvas.paint(f.circle(side * 0.32, -0.42, 0.20), green, is_)
        canvas.paint(f.circle(side * 0.32, -0.44, 0.13), white, is_)
        canvas.paint(f.circle(side * 0.32, -0.44, 0.065), black, is_)
    canvas.paint(f.ellipse(0, 0.02, 0.40, 0.045), fixed("7a1f2a"), is_)
    # Cat and dog: faces; pointed ears and whiskers against floppy ears and a muzzle.
    is_ = on(CAT)
    for side in (-1.0, 1.0):
        ear = ((side * 0.12, -0.34), (side * 0.52, -0.82), (side * 0.56, -0.12))
        canvas.paint(f.polygon(*(ear if side > 0 else ear[::-1])), fur * 0.9, is_)
    canvas.paint(f.ellipse(0, 0.06, 0.60, 0.52), fur, is_)
    for side in (-1.0, 1.0):
        canvas.paint(f.ellipse(side * 0.25, -0.04, 0.13, 0.15), fixed("b8e04a"), is_)
        canvas.paint(f.ellipse(side * 0.25, -0.04, 0.04, 0.13), black, is_)
        for slope in (-1.0, 0.0, 1.0):
            canvas.paint(f.line(side * 0.20, 0.25, side * 0.80, 0.25 + 0.13 * slope, 0.035), fixed("e8e8e8"), is_)
    canvas.paint(f.polygon((-0.09, 0.16), (0.09, 0.16), (0.0, 0.28)), fixed("f08aa0"), is_)
    is_ = on(DOG)
    canvas.paint(f.ellipse(0, 0.0, 0.52, 0.58), fur, is_)
    for side in (-1.0, 1.0):
        canvas.paint(f.ellipse(side * 0.56, 0.02, 0.19, 0.48), fur * 0.55, is_)
        canvas.paint(f.circle(side * 0.22, -0.14, 0.10), black, is_)
        canvas.paint(f.circle(side * 0.20, -0.17, 0.035), white, is_)
    canvas.paint(f.ellipse(0, 0.28, 0.32, 0.26), fur * 0.4 + 0.55, is_)
    canvas.paint(f.ellipse(0, 0.14, 0.13, 0.09), black, is_)
    canvas.paint(f.ellipse(0, 0.48, 0.09, 0.13), fixed("e8607a"), is_)
    # Deer and horse: four legs and a neck; antlers and spots against a mane and a tail.
    for index, body in ((DEER, fixed("b5713a")), (HORSE, coat)):
        is_ = on(index)
        for place in (-0.44, -0.26, 0.18, 0.36):
            canvas.paint(f.line(place, 0.25, place, 0.78, 0.10), body * 0.7, is_)
        canvas.paint(f.line(0.36, 0.10, 0.56, -0.42, 0.22), body, is_)
        canvas.paint(f.ellipse(-0.05, 0.16, 0.54, 0.25), body, is_)
        canvas.paint(f.ellipse(0.68, -0.46, 0.22, 0.13), body, is_)
        canvas.paint(f.circle(0.64, -0.50, 0.045), black, is_)
    is_ = on(DEER)
    for tip, height in ((0.30, -0.92), (0.52, -0.98), (0.78, -0.92)):
        canvas.paint(f.line(0.56, -0.54, tip, height, 0.06), fixed("5a3a1c"), is_)
    for place in (-0.35, -0.1, 0.15):
        canvas.paint(f.circle(place, 0.10, 0.06), white, is_)
    is_ = on(HORSE)
    for k in range(4):
        canvas.paint(f.circle(0.26 + 0.075 * k, -0.02 - 0.17 * k, 0.11), black, is_)
    canvas.paint(f.line(-0.56, 0.08, -0.80, 0.55, 0.15), black, is_)
    canvas.paint(both(f.ellipse(-0.08, 0.0, 0.22, 0.16), f.above(0.06)), paint, is_)
