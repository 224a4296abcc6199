"""What is done to the images of a fine-tuning while it learns from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final


@final
@dataclass(frozen=True)
class NoFlip:
    """Every image as it was drawn."""

    name: ClassVar[str] = "none"


@final
@dataclass(frozen=True)
class RandomFlip:
    """Mirrored left to right half of the time, as the authors' scripts do; moments of both are kept."""

    name: ClassVar[str] = "random"


Flip = NoFlip | RandomFlip
