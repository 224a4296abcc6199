"""Augmentation of the training images of a fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final


@final
@dataclass(frozen=True)
class NoFlip:
    """No augmentation."""

    name: ClassVar[str] = "none"


@final
@dataclass(frozen=True)
class RandomFlip:
    """Horizontal flip with probability ½, as in the authors' scripts; VAE moments of both orientations are cached."""

    name: ClassVar[str] = "random"


Flip = NoFlip | RandomFlip
