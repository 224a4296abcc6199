"""What a base's own files determine: which preset is used, and how large its images are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.specs import EMBEDDED, Base

SMALL = 128
"""Largest side, in pixels, of a base for which the microworld's preset is used."""
PUBLISHED_SIDES = {**dict.fromkeys(EMBEDDED, 64), "sd14": 512, "sd21-base": 512, "sd21": 768, "sdxl": 1024}
"""Sides of the published bases, in pixels, by name, for plans made without their files."""


class Image(NamedTuple):
    """The size of a base's images, and what sizes must be a multiple of."""

    side: int
    """Side in pixels that the base was trained for."""
    factor: int
    """Pixels per latent position, in each direction; heights and widths are multiples of it."""


def image_of(base: Base) -> Image:
    """The size in a base's own files; if they cannot be read here, the size for its name."""
    try:
        latent = int(_config(base, "unet")["sample_size"])
        blocks = _config(base, "vae").get("block_out_channels")
    except (OSError, ValueError, KeyError, TypeError):
        return Image(PUBLISHED_SIDES.get(base.name, PUBLISHED_SIDES["sd14"]), 8)
    factor = 2 ** (len(blocks) - 1) if blocks else 8
    return Image(latent * factor, factor)


def preset_of(base: Base) -> str:
    """The preset for a base: "micro" for models at most 128 pixels wide, else "sdxl" or "sd"."""
    try:
        unet = _config(base, "unet")
        if 8 * int(unet["sample_size"]) <= SMALL:
            return "micro"
        return "sd" if unet.get("addition_embed_type") is None else "sdxl"
    except (OSError, ValueError, KeyError, TypeError):
        return "micro" if base.name in EMBEDDED else "sdxl" if base.name == "sdxl" else "sd"


def check_size(image: Image, height: int, width: int) -> str:
    """A warning for images of another size than the base's; empty for its own.

    UserError for a size that is not a multiple of `image.factor`.
    """
    if height < image.factor or width < image.factor or height % image.factor or width % image.factor:
        raise UserError(
            sentence(
                f"The base cannot draw images of {width} × {height} pixels.",
                multiple_of=f"{image.factor} pixels",
                its_own=f"{image.side} × {image.side}",
                do="Omit sampler.height and sampler.width: the base's own size is used.",
            )
        )
    if (height, width) == (image.side, image.side):
        return ""
    return (
        f"Images of {width} × {height} pixels are drawn, but the base was made for {image.side} × {image.side}:"
        " its images, and models trained on them, differ from what was published."
    )


def _config(base: Base, part: str) -> dict[str, Any]:
    """A part's config.json; empty if a base has no such file, except for the U-Net's."""
    path = Path(base.location) / part / "config.json"
    if part != "unet" and not path.is_file():
        return {}
    read = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(read, dict):
        raise ValueError(f"{path} is not a JSON object")
    return read
