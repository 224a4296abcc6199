"""What a base itself says about how it is asked: which preset, and how large its images are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.specs import Base

SMALL = 128
"""Pixels of a side up to which a base is asked as the microworld is."""
PUBLISHED_SIDES = {"micro": 64, "sd14": 512, "sd21-base": 512, "sd21": 768}
"""Sides of the published bases by their words, for plans made where their files are not."""


class Image(NamedTuple):
    """How large a base's images are, and what they must be a multiple of."""

    side: int
    """Pixels of a side that the base was made for."""
    factor: int
    """Pixels of a latent's side: images are a multiple of it."""


def image_of(base: Base) -> Image:
    """The size that a base's own files give; by its name, where they cannot be read here."""
    try:
        latent = int(_config(base, "unet")["sample_size"])
        blocks = _config(base, "vae").get("block_out_channels")
    except (OSError, ValueError, KeyError, TypeError):
        return Image(PUBLISHED_SIDES.get(base.name, PUBLISHED_SIDES["sd14"]), 8)
    factor = 2 ** (len(blocks) - 1) if blocks else 8
    return Image(latent * factor, factor)


def preset_of(base: Base) -> str:
    """The preset for a base: "micro" for models at most 128 pixels wide, else "sd"."""
    try:
        return "micro" if 8 * int(_config(base, "unet")["sample_size"]) <= SMALL else "sd"
    except (OSError, ValueError, KeyError, TypeError):
        return "micro" if base.name == "micro" else "sd"


def check_size(image: Image, height: int, width: int) -> str:
    """What is to be told of images of another size than the base's; empty for its own.

    UserError for one that no latent has.
    """
    if height < image.factor or width < image.factor or height % image.factor or width % image.factor:
        raise UserError(
            sentence(
                f"The base cannot draw images of {width} × {height} pixels.",
                multiple_of=f"{image.factor} pixels",
                its_own=f"{image.side} × {image.side}",
                do="Leave sampler.height and sampler.width out: the base's own size is taken.",
            )
        )
    if (height, width) == (image.side, image.side):
        return ""
    return (
        f"Images of {width} × {height} pixels are drawn, but the base was made for {image.side} × {image.side}: what it"
        " draws, and what is learned from that, is not what was published."
    )


def _config(base: Base, part: str) -> dict[str, Any]:
    """A part's config.json; an empty one where a base has no such file, but for the U-Net's."""
    path = Path(base.location) / part / "config.json"
    if part != "unet" and not path.is_file():
        return {}
    read = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(read, dict):
        raise ValueError(f"{path} holds no object")
    return read
