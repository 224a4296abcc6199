"""An unlearning by the user's own program, a command that the settings file declares (docs/trainers.md).

Besides {model} and {out} the command is given {concepts}: a text file with the name of an erased concept in each line.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from resurgence_harness.diffusion.commands import CONCEPTS, MOVES, Command, declared
from resurgence_harness.diffusion.parameters import Parameters
from resurgence_harness.diffusion.ranges import whole
from resurgence_harness.specs import Concept
from resurgence_harness.unlearning.contract import Unlearning, check_concepts

if TYPE_CHECKING:
    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run


@dataclass(frozen=True, kw_only=True)
class CommandUnlearning(Unlearning, ABC):
    """An unlearning by a command; `unlearning_of` makes the class of one."""

    version: ClassVar[int] = 1
    settable: ClassVar[tuple[str, ...]] = ()
    """No field can be set: the command has its own settings."""

    concepts: tuple[Concept, ...]
    """The erase set."""
    command: Command
    """The declared command."""
    seed: int = 0
    """What {seed} stands for."""

    def __post_init__(self) -> None:
        """SpecError without concepts, and for values out of range."""
        check_concepts(self.name, self.concepts)
        whole(self.name, 0, seed=self.seed)

    @property
    def moves(self) -> Parameters:
        """U-Net and text encoder."""
        return MOVES

    def apply(self, model: StableDiffusion, run: Run) -> StableDiffusion:
        """The model that the command makes; BuildError if it fails."""
        from resurgence_harness.diffusion.trainer import trained

        def prepare(folder: Path) -> Mapping[str, Path]:
            path = folder / "concepts.txt"
            path.write_text("".join(f"{concept.name}\n" for concept in self.concepts), encoding="utf-8")
            return {CONCEPTS: path}

        return trained(self.command, f'unlearning "{self.name}"', model, run, seed=self.seed, prepare=prepare)


def unlearning_of(name: str, command: Command) -> type[CommandUnlearning]:
    """The class of a declared unlearning, called `name`."""
    return declared(CommandUnlearning, "DeclaredUnlearning", name, command)
