"""Licences that were agreed to: once for each item and licence, kept in a file beside the weights.

    ~/.cache/resurgence/weights/licences.json    {"sd14": [{"licence": "creativeml-openrail-m", "agreed": "2026-…"}]}

An agreement is to the licence that was shown. If an item's licence differs later, it is asked for again.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.judging.weights import directory

FILE = "licences.json"
UNSTATED = "none-stated"
"""The tag of a repository that states no licence."""


@dataclass(frozen=True, kw_only=True)
class Agreements:
    """The file of agreements."""

    path: Path

    @classmethod
    def here(cls) -> Agreements:
        """The file in the directory of weights."""
        return cls(path=directory() / FILE)

    def has(self, item: str, licence: str) -> bool:
        """Whether this licence of this item was agreed to."""
        return any(one.get("licence") == licence for one in self._read().get(item, ()))

    def add(self, item: str, licence: str, *, source: str) -> None:
        """Record an agreement with the time; `source` is where the licence was stated. The file is replaced at once."""
        content = self._read()
        agreed = {"licence": licence, "source": source, "agreed": datetime.now(UTC).isoformat(timespec="seconds")}
        content.setdefault(item, []).append(agreed)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        draft.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(draft, self.path)

    def _read(self) -> dict[str, list[dict[str, Any]]]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if isinstance(content, dict) and all(
                isinstance(row, list) and all(isinstance(one, dict) for one in row) for row in content.values()
            ):
                return content
            problem: object = "it is no table of lists"
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            problem = error
        raise UserError(
            sentence(
                f"The record of licences {self.path} cannot be read.",
                problem=problem,
                do="Remove it, and agree to the licences again.",
            )
        )


def unmet(item: str, licence: str, *, name: str, text: str, limits: str) -> UserError:
    """The error for a licence that was not agreed to."""
    facts = {"licence": name, **({"text": text} if text else {}), **({"limits": limits} if limits else {})}
    return UserError(
        sentence(
            f"The licence of {shown(item)} has not been agreed to.",
            do=f"Read it, then: resurgence fetch {shown(item)} --agree {licence}",
            **facts,
        )
    )
