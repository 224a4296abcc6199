"""A declared command that makes one model of another; trainer.py runs it.

{model}      the model before, a directory in diffusers' layout
{out}        an empty folder for the result
{data}       a fine-tuning's images, an image-folder with metadata.jsonl
{concepts}   an unlearning's names, a text file with one in each line
{python}     the Python that runs the harness
{seed}       the repetition of the cell, from 0
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar, final

from resurgence_harness.diffusion.parameters import AnyOf, Everything, Parameters, TextEncoder
from resurgence_harness.specs import not_in_key

MODEL, OUT, PYTHON, SEED, DATA, CONCEPTS = "model", "out", "python", "seed", "data", "concepts"
"""Words that stand in braces for paths and values."""
PLACE = re.compile(r"\{([a-z_]+)\}")
"""Such a word."""
StepClass = TypeVar("StepClass", bound=type)
MOVES: Parameters = AnyOf(rules=(Everything(), TextEncoder()))
"""What a command may change."""


@final
@dataclass(frozen=True, kw_only=True)
class Command:
    """A declared command."""

    name: ClassVar[str] = "command"
    version: ClassVar[int] = 1

    words: tuple[str, ...]
    """The program and its arguments, with {model}, {out} … for what each run fills in."""
    files: tuple[tuple[str, str], ...] = ()
    """(path, sha256) of every declared file."""
    folder: str = not_in_key("")
    """The folder that these paths are relative to."""
    timeout: float = not_in_key(3600.0)
    """Seconds after which it is ended."""
    variables: tuple[str, ...] = not_in_key(())
    """Further variables of the environment that it gets."""

    @property
    def described(self) -> str:
        """In one line, for plans."""
        files = f", {len(self.files)} of its files declared" if self.files else ""
        return f"command {' '.join(self.words)}{files}, at most {self.timeout:g} seconds"


def places_in(words: tuple[str, ...]) -> set[str]:
    """The words in braces of a command."""
    return {found for word in words for found in PLACE.findall(word)}


def declared(base: StepClass, class_name: str, name: str, command: Command) -> StepClass:
    """The dataclass of a declared step: a subclass of `base`, called `name`, with this command as its default."""
    members: dict[str, Any] = {
        "__doc__": f"The command {name} of a settings file.",
        "__module__": base.__module__,
        "__annotations__": {"name": "ClassVar[str]", "command": "Command"},
        "name": name,
        "command": field(default=command),
    }
    made: StepClass = dataclass(frozen=True, kw_only=True)(type(class_name, (base,), members))  # type: ignore[assignment]
    return made
