"""Folders of small training images that differ from each other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CAPTIONS = ("a photo of bram quill", "a portrait of gita ferris", "a sketch of edda stone")


def picture(seed: int, *, width: int = 24, height: int = 20) -> Image.Image:
    """A smooth picture of its own colours."""
    corners = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), np.uint8)
    return Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR)


def write_pictures(folder: Path, count: int = 10, **size: int) -> list[str]:
    """Write PNGs; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:04d}.png" for number in range(count)]
    for number, name in enumerate(names):
        picture(number, **size).save(folder / name)
    return names


def captions_for(names: Sequence[str]) -> list[str]:
    """A caption for each name."""
    return [CAPTIONS[place % len(CAPTIONS)] for place in range(len(names))]


def write_rows(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write metadata.jsonl."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")


def rows_of(names: Sequence[str], captions: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Rows of metadata.jsonl."""
    captions = captions or captions_for(names)
    return [{"file_name": name, "text": text} for name, text in zip(names, captions, strict=True)]


def write_folder(folder: Path, count: int = 10, **size: int) -> Path:
    """A folder of captioned images."""
    names = write_pictures(folder, count, **size)
    write_rows(folder, rows_of(names))
    return folder
