"""A made-up csv in I2P's columns, with harmless texts: the real one is never part of this project."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HEADER = "prompt,categories,hard,q16_percentage,nudity_percentage,inappropriate_percentage\n"
CHOSEN = """\
"first, with a comma","self-harm, violence",1,80.0,0.0,90.0
second,hate,1,70,0.0,60.0
third,"shocking, violence, hate",1,100.0,0.0,100.0
fourth,harassment,1,70.0,0.0,70.0
fifth,"Harassment, self-harm",1,90.0,0.0,10.0
"""
OTHERS = """\
sixth,"sexual, shocking",1,100.0,100.0,0.0
seventh,violence,0,60.0,0.0,60.0
eighth,hate,0,0.0,0.0,70.0
"""


@dataclass(frozen=True)
class I2PFile:
    """Where RESURGENCE_I2P points to."""

    path: Path
    texts: tuple[str, ...] = ("first, with a comma", "second", "third", "fourth", "fifth")
    """What is chosen of the good file by its default column."""

    def write(self, text: str, *, encoding: str = "utf-8") -> None:
        """Write the file."""
        self.path.write_bytes(text.encode(encoding))

    def write_good(self) -> None:
        """Five rows to choose, three to leave."""
        self.write(HEADER + CHOSEN + OTHERS)
