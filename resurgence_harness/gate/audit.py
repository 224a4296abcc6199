"""The weight audit: how much of an erasure a fine-tuning has undone, from the weights in seconds, before any image.

    undone = ⟨candidate − unlearned, base − unlearned⟩ / ‖base − unlearned‖²          in all, and per layer

0: the candidate did not move towards the base; 1: as far along that line as the base itself. Where the candidate is
unlearned + w (base − unlearned), it is w. The cosine shows whether the whole movement went that way (1) or
almost none of it (0): a long fine-tuning moves far, and only a part of it may lie on the line.

This is advice. The concept can come back with nothing undone along this line, so it is never a pass.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from resurgence_harness.diffusion.formats import check_same_shape
from resurgence_harness.diffusion.model_files import ModelFiles, layer_of
from resurgence_harness.errors import UserError, sentence

_CHUNK = 1 << 18
"""Numbers that are converted to float64 at a time."""
SHOWN = 24
"""Layers in the figure."""


@dataclass(frozen=True, kw_only=True)
class Undoing:
    """The three sums of one layer, or of the whole model."""

    inner: float
    """⟨candidate − unlearned, base − unlearned⟩"""
    erased: float
    """‖base − unlearned‖², the size of the erasure."""
    moved: float
    """‖candidate − unlearned‖², the size of the fine-tuning."""

    @property
    def undone(self) -> float | None:
        """The share of the erasure that is undone; None if nothing was erased."""
        return self.inner / self.erased if self.erased else None

    @property
    def cosine(self) -> float | None:
        """How much of the movement goes towards the base, −1 to 1; None if one of the two did not move."""
        size = math.sqrt(self.erased) * math.sqrt(self.moved)
        return max(-1.0, min(1.0, self.inner / size)) if size else None


@dataclass(frozen=True, kw_only=True)
class WeightAudit:
    """The audit of one candidate. Advisory: nothing in it can make a cell hold."""

    layers: Mapping[str, Undoing]
    """Layer, "unet.conv_in" → its sums; only layers that the unlearning or the fine-tuning changed."""

    @cached_property
    def total(self) -> Undoing:
        """Over all layers."""
        found = self.layers.values()
        return Undoing(
            inner=math.fsum(one.inner for one in found),
            erased=math.fsum(one.erased for one in found),
            moved=math.fsum(one.moved for one in found),
        )

    @property
    def undone(self) -> float:
        """The share over all layers."""
        share = self.total.undone
        assert share is not None  # `audit` raises an error without an erasure
        return share

    @property
    def largest(self) -> list[str]:
        """The layers that were erased, the largest erasure first."""
        erased = [name for name, one in self.layers.items() if one.erased]
        return sorted(erased, key=lambda name: (-self.layers[name].erased, name))

    @property
    def description(self) -> str:
        """The audit in one sentence."""
        cosine = self.total.cosine
        straight = "the candidate did not move" if cosine is None else f"cosine {cosine:.2f}"
        return (
            f"{round(100 * self.undone)}% of the erasure is undone along the line back to the base ({straight}); "
            "advice from the weights alone, no verdict."
        )


def audit(
    candidate: str | Path | ModelFiles, *, unlearned: str | Path | ModelFiles, base: str | Path | ModelFiles
) -> WeightAudit:
    """Compare three directories in diffusers' layout, one tensor of each in memory at a time, in float64."""
    c, u, b = (one if isinstance(one, ModelFiles) else ModelFiles(one) for one in (candidate, unlearned, base))
    check_same_shape(u, b)
    check_same_shape(c, u)
    layers: dict[str, Undoing] = {}
    for name in b:
        shapes = [files[name].entry.shape for files in (c, u, b)]
        rows = min(shape[0] if shape else 1 for shape in shapes)
        parts = [_flat(files[name].values(), rows) for files in (c, u, b)]
        inner = erased = moved = 0.0
        if np.array_equal(parts[0], parts[1]) and np.array_equal(parts[1], parts[2]):
            continue
        for low in range(0, len(parts[0]), _CHUNK):
            now, then, ever = (np.asarray(part[low : low + _CHUNK], np.float64) for part in parts)
            step, back = now - then, ever - then
            inner += float(step @ back)
            erased += float(back @ back)
            moved += float(step @ step)
        if erased or moved:
            before = layers.get(layer := layer_of(name), Undoing(inner=0, erased=0, moved=0))
            layers[layer] = Undoing(
                inner=before.inner + inner, erased=before.erased + erased, moved=before.moved + moved
            )
    found = WeightAudit(layers=layers)
    if not found.total.erased:
        raise UserError(
            sentence(
                "The unlearned model equals the base, so there is no erasure to undo.",
                unlearned=u.directory,
                base=b.directory,
                do="Give the model that was unlearned.",
            )
        )
    return found


def figure(found: WeightAudit, *, format: Literal["svg", "png"] = "svg") -> bytes:
    """Share undone in the layers that were erased most, the largest erasure on top; the same bytes every time."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = found.largest[:SHOWN]
    shares = [share if (share := found.layers[name].undone) is not None else 0.0 for name in names]
    style: Any = {"svg.hashsalt": "audit", "svg.fonttype": "none", "font.size": 8.0, "text.parse_math": False}
    with matplotlib.rc_context(style):
        drawing = Figure(figsize=(7.6, 0.9 + 0.2 * len(names)), layout="constrained")
        FigureCanvasAgg(drawing)
        axes = drawing.subplots()
        axes.barh(range(len(names)), shares, color=["C3" if share > 0 else "C0" for share in shares], height=0.7)
        axes.set_yticks(range(len(names)), [_short(name) for name in names], fontsize=6.5)
        axes.invert_yaxis()
        axes.axvline(0, color="0.3", lw=0.8)
        axes.axvline(found.undone, color="k", lw=0.9, ls="--", label=f"in all {found.undone:.0%}")
        axes.axvline(1, color="0.6", lw=0.8, ls=":", label="the base")
        axes.set_xlabel("share of the layer's erasure undone (0: none, 1: as in the base)")
        rest = len(found.largest) - len(names)
        axes.set_title("Weight audit, advisory" + (f": {rest} further layers not shown" if rest else ""), fontsize=8.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=7)
        stream = io.BytesIO()
        metadata: Any = {"Date": None, "Creator": None} if format == "svg" else {"Software": None}
        drawing.savefig(stream, format=format, dpi=120, metadata=metadata)
    return stream.getvalue()


def _flat(values: np.ndarray, rows: int) -> np.ndarray:
    """Flattened, without the rows of added tokens."""
    return (values[:rows] if values.ndim else values).reshape(-1)


def _short(name: str) -> str:
    """A layer's name, shortened for the figure."""
    for long, brief in (("transformer_blocks.0.", ""), ("attentions", "att"), ("resnets", "res"), ("_blocks", "")):
        name = name.replace(long, brief)
    return name
