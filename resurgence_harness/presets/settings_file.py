"""A settings file: sets many values at once, as --resurgence-set sets single ones.

esd:
  iterations: 500
shs:
  projection: {kind: gradient-memory, margin: 0.1}
mace:
  general: captions.txt          # beside this file
recipes:                         # of several stages: lives.py
  twice: uce(2) > lora > uce(+2) > lora

The sections `finetunings` and `unlearnings` declare commands (commands.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.finetuning import ImageFolder, read_folder
from resurgence_harness.presets import choices
from resurgence_harness.presets.commands import SECTIONS, Declared, read_commands
from resurgence_harness.presets.lives import read_lives
from resurgence_harness.specs import Life
from resurgence_harness.strict_yaml import read_yaml


class SettingsFile(NamedTuple):
    """The values that a file sets."""

    changed: tuple[tuple[str, Any], ...]
    """(group.field, value), in the file's order."""
    digest: str
    """sha256 of the file's text."""
    lives: tuple[Life, ...] = ()
    """Its `recipes:`, in the file's order."""
    commands: tuple[Declared, ...] = ()
    """The declared commands; nothing is run or registered by reading them."""


def read_settings(
    path: Path,
    *,
    images: Callable[[Path], ImageFolder] = read_folder,
    declare: Callable[[tuple[Declared, ...], str], None] = lambda commands, digest: None,
) -> SettingsFile:
    """The values of a file, all checked; UserError with the field's path for the first wrong one.

    `images`: reads a folder of fine-tuning images that a recipe names. `declare`: is given the declared commands and
    the file's digest before recipes are read, which may name them.
    """
    document = read_yaml(path, "settings file", "Write a group and its values, as in docs/settings.md.")
    content = document.content
    if not isinstance(content, dict) or not content:
        raise UserError(
            sentence(f"The settings {path} set nothing.", do="Write a group and its values, as in docs/settings.md.")
        )
    changed, lives = [], tuple[Life, ...]()
    commands: list[Declared] = []
    recipes = content.get("recipes")
    digest = hashlib.sha256(document.text.encode()).hexdigest()
    for group, values in content.items():
        if group == "recipes":
            continue
        if not isinstance(values, dict) or not values:
            raise UserError(
                sentence(
                    f"{path}: {group} is {values!r}, which sets nothing.",
                    do="Write names and values below it, as in docs/settings.md.",
                )
            )
        if group in SECTIONS:
            try:
                commands += read_commands(group, values, path.absolute().parent)
            except UserError as problem:
                raise UserError(f"{path}: {problem}") from None
            continue
        for name, value in values.items():
            key = f"{group}.{name}"
            try:
                changed.append((key, choices.read(key, value, folder=path.absolute().parent)))
            except UserError as problem:
                raise UserError(f"{path}: {problem}") from None
    declare(tuple(commands), digest)
    if "recipes" in content:
        try:
            lives = read_lives(recipes, path.absolute().parent, images=images)
        except UserError as problem:
            raise UserError(f"{path}: {problem}") from None
    return SettingsFile(tuple(changed), digest, lives, tuple(commands))
