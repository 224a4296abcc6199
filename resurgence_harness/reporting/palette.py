"""The style of every figure: colours and background; and how figures are saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {
    "HOLDS": "#0072B2",
    "KNOWN": "#E69F00",
    "UNDECIDED": "#999999",
    "VIOLATED": "#D55E00",
    "NO VERDICT": "#222222",
}
"""Okabe and Ito, Color universal design (2008); grey for UNDECIDED, black without a verdict."""
PAPER, INK, PALE = "#fcfcfa", "#1c1c20", "#6e6e76"
"""Background, text, secondary text; the background is opaque, so that figures look the same on a dark page."""


def save(figure: Figure, to: Path | BinaryIO, *, kind: str = "") -> None:
    """Write a figure as "png" or "svg", by the path's suffix if `kind` is empty; the same bytes for the same run."""
    import matplotlib

    style: Any = {"svg.hashsalt": "resurgence", "svg.fonttype": "none", "font.family": "sans-serif"}
    kind = kind or (to.suffix.removeprefix(".") if isinstance(to, Path) else "svg")
    about = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    layout: Any = figure.get_layout_engine()
    if layout is not None:
        layout.set(w_pad=0.12, h_pad=0.12)  # inches
    with matplotlib.rc_context(style):
        figure.savefig(to, format=kind, dpi=120, facecolor=PAPER, metadata=about)
