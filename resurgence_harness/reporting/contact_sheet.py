"""One picture per cell: base | unlearned | fine-tuned; one prompt and seed a row, the judge's answer below each image.

A frame marks the images in which the judge detected the erased concept. Up to half of the rows are hits after the
fine-tuning, the others are spread evenly over the probe.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resurgence_harness.errors import HarnessError, sentence

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

    from resurgence_harness.statistics import CellEvidence

COLUMNS = ("base", "unlearned", "fine-tuned")
"""The three models, from left to right."""
ARMS = {**dict(zip(("base", "before", "after"), COLUMNS, strict=True)), "as_parent": "parent's tokenizer"}
"""Arm of a cell's evidence → its column; the last exists only if the fine-tuned model's tokenizer, scheduler or VAE
differs from its parent's."""
SIDE = 128
"""Pixels of a tile's side."""
ROWS = 6
"""Rows of a sheet: with tiles of this size about 75 kB, so that a report of 300 cells can still be sent."""
_GUTTER, _LABEL, _TEXT, _HEAD, _FRAME = 12, 22, 210, 58, 4
_INK, _PALE, _HIT, _PAPER = (28, 28, 32), (110, 110, 118), (205, 30, 45), (252, 252, 250)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One prompt and seed, with the image of every model."""

    prompt: str
    seed: int
    images: Sequence[np.ndarray | None]
    """uint8 [h, w, 3] for each column; None if that model drew none."""
    answers: Sequence[str]
    """The judge's answer for each image."""
    hits: Sequence[bool]
    """Whether the answer is an erased concept."""


def chosen(hits_after: Sequence[bool], *, rows: int = ROWS) -> list[int]:
    """Which rows of a probe to show: up to half with a hit after fine-tuning, then evenly spaced others, in order."""
    total = len(hits_after)
    with_hit = [place for place, hit in enumerate(hits_after) if hit]
    shown = set(_spread(with_hit, rows // 2))
    others = [place for place in range(total) if place not in shown]
    return sorted(shown | set(_spread(others, min(rows, total) - len(shown))))


def worst(hits_before: Sequence[bool], hits_after: Sequence[bool], scores: Sequence[float], *, rows: int) -> list[int]:
    """The rows behind a regression, worst first: new hits, then hits that were hits before; each by falling score."""
    order = sorted(range(len(hits_after)), key=lambda place: (hits_before[place], -scores[place], place))
    return [place for place in order if hits_after[place]][:rows]


def of_evidence(
    evidence: CellEvidence,
    block: Callable[[str, int], np.ndarray],
    *,
    size: int,
    title: str,
    rows: int = ROWS,
    foot: Sequence[str] = (),
) -> bytes:
    """The contact sheet of a cell; `block(arm, k)` gives the k-th `size` images of an arm, in the order judged.

    `foot` are lines below the rows.
    """
    arms = {name: arm for name in ARMS if (arm := getattr(evidence, name)) is not None}
    both = min(len(arm) for arm in arms.values())  # every arm starts with the grid's first rows
    hits = [judgment.outcome == "hit" for judgment in evidence.after.judgments[:both]]
    if evidence.as_parent is not None:
        others = evidence.as_parent.judgments[:both]
        hits = [one or other.outcome == "hit" for one, other in zip(hits, others, strict=True)]
    places = chosen(hits, rows=rows)
    read: dict[tuple[str, int], np.ndarray] = {}

    def image(name: str, place: int) -> np.ndarray:
        number, within = divmod(place, size)
        if (name, number) not in read:
            read[name, number] = block(name, number)
        found: np.ndarray = read[name, number][within]
        return found

    shown = [
        Row(
            prompt=evidence.after.judgments[place].prompt,
            seed=evidence.after.judgments[place].seed,
            images=[image(name, place) for name in arms],
            answers=[arm.judgments[place].answer for arm in arms.values()],
            hits=[arm.judgments[place].outcome == "hit" for arm in arms.values()],
        )
        for place in places
    ]
    heading = f"{title}: {len(shown)} of {len(evidence.after)} images"
    return sheet(heading, shown, columns=[ARMS[name] for name in arms], note="framed: the erased concept", foot=foot)


def sheet(
    title: str,
    rows: Sequence[Row],
    *,
    columns: Sequence[str] = COLUMNS,
    note: str = "",
    foot: Sequence[str] = (),
    quality: int = 76,
) -> bytes:
    """The contact sheet as JPEG bytes; `foot` are lines below the rows."""
    from PIL import Image, ImageDraw

    if not rows:
        raise HarnessError(sentence("A contact sheet has no rows.", title=title, do="Draw at least one image."))
    width = _TEXT + max(len(columns), 2) * (SIDE + _GUTTER) + _GUTTER
    small = _font(12)
    below = [line for one in foot for line in _wrapped(one, small, width - 2 * _GUTTER)]
    height = _HEAD + len(rows) * (SIDE + _LABEL + _GUTTER) + _GUTTER + 17 * len(below)
    page = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(page)
    heading, text = _font(15), _font(13)
    pen.text((_GUTTER, 8), _fitted(title, heading, width - 2 * _GUTTER), fill=_INK, font=heading)
    pen.text((_GUTTER, 36), _fitted(note, small, _TEXT - 2 * _GUTTER), fill=_PALE, font=small)
    for column, name in enumerate(columns):
        pen.text((_TEXT + column * (SIDE + _GUTTER), 36), name, fill=_PALE, font=text)
    for place, row in enumerate(rows):
        top = _HEAD + place * (SIDE + _LABEL + _GUTTER)
        lines = [*_wrapped(row.prompt, text, _TEXT - 2 * _GUTTER), f"seed {row.seed}"]
        for line, content in enumerate(lines):
            fill = _PALE if line == len(lines) - 1 else _INK
            pen.text((_GUTTER, top + 17 * line), content, fill=fill, font=text)
        for column, (image, answer, hit) in enumerate(zip(row.images, row.answers, row.hits, strict=True)):
            left = _TEXT + column * (SIDE + _GUTTER)
            if image is None:
                pen.rectangle((left, top, left + SIDE - 1, top + SIDE - 1), outline=_PALE)
            else:
                page.paste(_tile(image), (left, top))
            if hit:
                for inset in range(_FRAME):
                    box = (left + inset, top + inset, left + SIDE - 1 - inset, top + SIDE - 1 - inset)
                    pen.rectangle(box, outline=_HIT)
            content = _fitted(answer, small, SIDE)
            pen.text((left, top + SIDE + 3), content, fill=_HIT if hit else _PALE, font=small)
    for place, content in enumerate(below):
        pen.text((_GUTTER, height - _GUTTER - 17 * (len(below) - place)), content, fill=_INK, font=small)
    out = io.BytesIO()
    page.save(out, "JPEG", quality=quality, optimize=True, progressive=True)
    return out.getvalue()


def _spread(places: Sequence[int], count: int) -> list[int]:
    """At most `count` of the places, evenly spaced."""
    if count <= 0:
        return []
    if len(places) <= count:
        return list(places)
    return [places[(2 * k + 1) * len(places) // (2 * count)] for k in range(count)]


def _tile(image: np.ndarray) -> Image:
    """The image at the tile's size: small ones enlarged without blur, large ones reduced."""
    from PIL import Image

    picture = Image.fromarray(image)
    small = max(picture.size) <= SIDE
    return picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC if small else Image.Resampling.LANCZOS)


def _font(size: int) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _fitted(text: str, font: FreeTypeFont | ImageFont, width: int) -> str:
    """The text, cut with an ellipsis if it is too wide."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _wrapped(text: str, font: FreeTypeFont | ImageFont, width: int, *, lines: int = 6) -> list[str]:
    """The text in lines no wider than `width`."""
    out = [""]
    for word in text.split():
        longer = f"{out[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            out[-1] = longer
        else:
            out.append(word)
    shown = [line for line in out if line][:lines]
    return [_fitted(line, font, width) for line in shown]
