"""The models that come with this package, by name."""

from __future__ import annotations

from pathlib import Path

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.microworld import weights, xl_weights


def directory_of(name: str) -> Path:
    """The directory of "micro" or "micro-xl"; UserError if this package was built without its weights."""
    directory = {"micro": weights.directory, "micro-xl": xl_weights.directory}[name]()
    if not (directory / "model_index.json").exists():
        raise UserError(
            sentence(
                f"This package was built without the weights of {name}.",
                looked_in=directory,
                do="Train it: python -m resurgence_harness.microworld.training all --layout xl --out DIR; give DIR.",
            )
        )
    return directory
