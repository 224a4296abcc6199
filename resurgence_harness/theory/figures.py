"""Three figures for `docs/theory.md`, from closed forms; the files are reproducible byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resurgence_harness.theory.account import fine_tuning, isotropic
from resurgence_harness.theory.dynamics import energy
from resurgence_harness.theory.gradients import (
    confined_gradient,
    confined_gradient_of_the_unlearned_optimum,
    gradient,
    gradient_bound,
)
from resurgence_harness.theory.sensitivity import stated_sensitivity_bound, update
from resurgence_harness.theory.subspaces import Subspace, at_angle

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(directory: Path) -> list[Path]:
    """Write theory-bounds.svg, theory-alpha.svg and theory-dynamics.svg into a directory, created if missing."""
    import matplotlib

    directory.mkdir(parents=True, exist_ok=True)
    written = []
    style: Any = {
        "svg.hashsalt": "theory",
        "svg.fonttype": "none",  # keep text as text: small files, readable diffs
        "font.size": 8.0,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "axes.titlesize": 8.5,
    }
    with matplotlib.rc_context(style):
        for name, figure in (("bounds", bounds()), ("alpha", over_alpha()), ("dynamics", dynamics())):
            path = directory / f"theory-{name}.svg"
            figure.savefig(path, metadata={"Date": None, "Creator": None}, bbox_inches="tight")
            written.append(path)
    return written


def bounds() -> Figure:
    """Exact values and bounds against the angle between C and S."""
    from matplotlib.figure import Figure

    degrees = np.linspace(0.0, 90.0, 91)
    model = isotropic(0.5)
    places = [at_angle(model.dim, 1, float(angle)) for angle in degrees]
    figure = Figure(figsize=(7.6, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(degrees, [gradient(model, c) for c, _ in places], "k", label="exact, any W with P_C W = 0")
    left.plot(degrees, [confined_gradient(model, c, s) for c, s in places], "C0", label="confined to S, W = 0")
    optimum = [confined_gradient_of_the_unlearned_optimum(model, c, s) for c, s in places]
    left.plot(degrees, optimum, "C1", label="confined to S, unlearned optimum")
    left.plot(degrees, [gradient_bound(model, c, s) for c, s in places], "r--", lw=1, label="stated bound")
    left.set(title="gradient in C", ylabel="‖P_C ∇L‖_F", xlabel="angle between C and S, degrees", ylim=(0, 2.6))
    left.legend(fontsize=7, loc="upper right")
    for dim, colour in ((1, "C0"), (2, "C1"), (4, "C2")):
        some = [at_angle(model.dim, dim, float(angle)) for angle in degrees]
        right.plot(degrees, [update(model, c) for c, _ in some], colour, label=f"exact, dim C = {dim}")
    right.plot(degrees, [stated_sensitivity_bound(model, c, s) for c, s in places], "r--", lw=1, label="stated bound")
    right.set(
        title="minimising update in C", ylabel="‖P_C ΔW‖_F", xlabel="angle between C and S, degrees", ylim=(0, 2.2)
    )
    right.legend(fontsize=7, loc="upper right")
    return figure


def over_alpha() -> Figure:
    """Gradient and update of a single direction against α, for some variances."""
    from matplotlib.figure import Figure

    alphas = np.linspace(0.0, 0.999, 400)
    figure = Figure(figsize=(7.6, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    line = Subspace.axes(8, 0)
    left.plot(alphas, [gradient(isotropic(float(alpha)), line) for alpha in alphas], "k")
    left.set(title="gradient in C: the same for every variance", xlabel="α (0: all noise)", ylabel="‖P_C ∇L‖_F")
    for number, variance in enumerate((0.02, 0.1, 0.5, 1.0, 2.0)):
        moved = [update(isotropic(float(alpha), variance), line) for alpha in alphas]
        right.plot(alphas, moved, f"C{number}", label=f"variance {variance:g}")
    right.set(title="update in C", xlabel="α (0: all noise)", ylabel="‖P_C ΔW‖_F")
    right.legend(fontsize=7)
    return figure


def dynamics() -> Figure:
    """Energy regained in C on a finite benign set: every weight trained, and updates confined to S."""
    from matplotlib.figure import Figure

    steps = np.unique(np.geomspace(1, 1000, 60).astype(int))
    figure = Figure(figsize=(7.6, 2.9), layout="constrained")
    for axes, confined in zip(figure.subplots(1, 2), (False, True), strict=True):
        for number, angle in enumerate((0, 30, 60, 90)):
            descent, erased, before = fine_tuning(0.5, angle, confined=confined)
            share = [energy(descent.after(int(n)), erased) / before for n in steps]
            axes.plot(steps, share, f"C{number}", label=f"{angle}°")
        axes.axhline(1.0, color="0.7", lw=0.8, zorder=0)
        axes.set(xscale="log", xlabel="gradient steps", ylabel="energy in C, before unlearning = 1")
        axes.set_title("updates confined to S" if confined else "every weight trained")
        axes.legend(fontsize=7, title="angle", title_fontsize=7)
    return figure
