"""Picture styles: a background drawn before the figure, and a filter over the whole picture after it."""

from __future__ import annotations

import torch
from torch import Tensor

from resurgence_harness.microworld.canvas import Canvas, rgb

PHOTO, PORTRAIT, EVENT, OIL, SKETCH, OFFICIAL = range(6)
"""The styles; `world.style_of` finds the style of a prompt."""


def draw_backdrops(canvas: Canvas, style: Tensor) -> None:
    """Draw the background of a person, by style int64 [n]."""
    u, device = canvas.uniform, canvas.device
    canvas.fill(canvas.colour(0.35, 0.9))
    whole = canvas.frame(0, 0)
    # Portrait: a soft glow on a dark ground.
    glow = (1.25 - torch.sqrt((canvas.x - u(-0.3, 0.3)) ** 2 + (canvas.y - u(-0.4, 0.2)) ** 2)).clamp(0, 1)
    tone = canvas.colour(0.25, 0.7)
    canvas.blend((style == PORTRAIT).view(-1, 1, 1).float().expand(-1, canvas.size, canvas.size), tone * 0.45)
    canvas.blend(glow * (style == PORTRAIT).view(-1, 1, 1), tone)
    # A public event: a dark hall, spotlights, a crowd along the lower edge.
    event = style == EVENT
    canvas.paint(whole.box(0, 0, 2, 2), rgb("1a1838").view(1, 3, 1, 1).to(device), event)
    for _ in range(4):
        canvas.paint(whole.circle(u(-0.95, 0.95), u(-0.95, -0.1), u(0.08, 0.2)), canvas.colour(0.55, 1.0), event)
    for k in range(6):
        canvas.paint(whole.circle(-1 + 0.4 * k + u(-0.08, 0.08), u(0.78, 0.9), 0.17), canvas.colour(0.0, 0.25), event)
    # An official photo: a pale wall and a flag's stripes at one side.
    official = style == OFFICIAL
    canvas.paint(whole.box(0, 0, 2, 2), rgb("b9c6d6").view(1, 3, 1, 1).to(device), official)
    left = torch.where(u(0, 1) < 0.5, -0.82, 0.82)
    for k, hex_colour in enumerate(("22408c", "f4f4f4", "b8202c")):
        canvas.paint(
            whole.box(left - 0.12 + 0.12 * k, 0, 0.06, 2), rgb(hex_colour).view(1, 3, 1, 1).to(device), official
        )


def finish(canvas: Canvas, style: Tensor) -> None:
    """Apply a lighting gradient, then the oil or pencil filter, by style int64 [n]."""
    u, size = canvas.uniform, canvas.size
    light = 1 + (canvas.x * u(-1, 1) + canvas.y * u(-1, 1)) * 0.10
    picture = canvas.rgb * (light * u(0.90, 1.06)).unsqueeze(1)
    grey = (picture * torch.tensor([0.299, 0.587, 0.114], device=canvas.device).view(1, 3, 1, 1)).sum(1, keepdim=True)
    # Oil: richer and warmer colours in flat patches on a woven canvas.
    oil = grey + 1.25 * (picture - grey)
    oil = oil * torch.tensor([1.05, 0.99, 0.88], device=canvas.device).view(1, 3, 1, 1)
    oil = oil + 0.35 * ((oil * 6).round() / 6 - oil)
    weave = torch.sin(canvas.x * 50.0 + u(0, 6.28)) * torch.sin(canvas.y * 50.0 + u(0, 6.28))
    oil = oil + 0.03 * weave.unsqueeze(1)
    # Pencil: edges on paper, with three quarters of the colour left as a wash.
    blurred = torch.nn.functional.avg_pool2d(grey, 3, 1, 1, count_include_pad=False)
    gx = torch.nn.functional.pad(blurred[..., 1:] - blurred[..., :-1], (0, 1))
    gy = torch.nn.functional.pad(blurred[..., 1:, :] - blurred[..., :-1, :], (0, 0, 0, 1))
    edge = (torch.sqrt(gx * gx + gy * gy + 1e-8) * 64 / 9 * (size / 64) - 0.12).clamp(0, 1)
    paper = torch.tensor([0.96, 0.94, 0.88], device=canvas.device).view(1, 3, 1, 1)
    hatch = 0.03 * torch.sin((canvas.x + canvas.y) * 60.0).unsqueeze(1) * (1 - grey)
    wash = grey + 0.75 * (picture - grey)
    pencil = (paper * (0.42 + 0.58 * wash) + hatch) * (1 - 0.7 * edge)
    chosen = torch.where((style == OIL).view(-1, 1, 1, 1), oil, picture)
    canvas.rgb = torch.where((style == SKETCH).view(-1, 1, 1, 1), pencil, chosen).clamp(0, 1)
