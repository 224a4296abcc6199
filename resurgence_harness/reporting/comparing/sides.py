"""One side of a comparison: a run's verdict.json, and the store with its judgments and images."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from resurgence_harness.bench.files import read_drawn, read_judgments
from resurgence_harness.errors import StoreError, UserError, sentence, shown
from resurgence_harness.reporting.comparing.stores import run_of_store
from resurgence_harness.reporting.verdict_json import CellResult, JudgedResult, Verdicts, read
from resurgence_harness.statistics.evidence import Judgment, judgments_digest
from resurgence_harness.storing import Store

if TYPE_CHECKING:
    import numpy as np

OWN_STORE = "store"
"""A folder of this name beside verdict.json is the run's store."""


class Place(NamedTuple):
    """Where an image is."""

    judgments: str
    """Key of the block's judgments."""
    within: int
    """Index within the block."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The judgments of one arm, in the order drawn."""

    judgments: tuple[Judgment, ...]
    places: tuple[Place, ...]
    moments: tuple[datetime, ...] = ()
    """Of a bare store: when each was made, to the second, which is all that is known of the order; else empty."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """A run, and the store that has its judgments."""

    name: str
    """The path as the user gave it."""
    run: Verdicts
    store: Store
    erased: frozenset[str] | None = None
    """Of a bare store: the erased concepts, by which a block's judgments are divided; None for a run."""
    _blocks: dict[str, np.ndarray | None] = field(default_factory=dict, repr=False, compare=False)

    def entry(self, cell: CellResult, arm: str) -> JudgedResult | None:
        """Where the deciding judge's judgments of an arm are; None if the file does not say."""
        return next((one for one in cell.judgments if one.arm == arm and one.judge == cell.judge), None)

    def judged(self, cell: CellResult, arm: str) -> Judged | str:
        """The deciding judge's judgments of an arm, or why they cannot be read, as a clause."""
        entry = self.entry(cell, arm)
        if entry is None:
            return f"{self.name} does not say where its judgments are stored"
        return self.read(entry)

    def read(self, entry: JudgedResult) -> Judged | str:
        """The judgments of an entry of verdict.json, or why they cannot be read, as a clause."""
        found: list[Judgment] = []
        places: list[Place] = []
        moments: list[datetime] = []
        for key in entry.keys:
            try:
                artifact = self.store.open(key)
                stored = read_judgments(artifact)
            except (StoreError, UserError, ValueError, KeyError, TypeError):
                return f"the judgments of {self.name} are not in the store {shown(self.store.name)}"
            rows = [place for place, row in enumerate(stored.judgments) if self._belongs(row, entry.arm)]
            found += [stored.judgments[place] for place in rows]
            places += [Place(key, place) for place in rows]
            moments += [artifact.made] * (len(rows) if self.erased is not None else 0)
        if judgments_digest(found) != entry.digest:
            return f"the judgments in the store {shown(self.store.name)} are not those of {self.name}"
        return Judged(judgments=tuple(found), places=tuple(places), moments=tuple(moments))

    def _belongs(self, row: Judgment, arm: str) -> bool:
        return self.erased is None or (row.concept in self.erased) is (arm == "after")

    def image(self, place: Place) -> np.ndarray | None:
        """uint8 [height, width, 3]; None if the image is no longer in the store."""
        if place.judgments not in self._blocks:
            self._blocks[place.judgments] = self._block(place.judgments)
        block = self._blocks[place.judgments]
        return None if block is None or place.within >= len(block) else block[place.within]

    def _block(self, key: str) -> np.ndarray | None:
        try:
            judged = self.store.open(key)
            digest = read_judgments(judged).images
            source = next((place for place, made in judged.inputs.items() if made == digest), None)
            drawn = self.store.open(source) if source is not None else None
            return read_drawn(drawn) if drawn is not None and drawn.digest == digest else None
        except (StoreError, UserError, ValueError, KeyError, TypeError):
            return None


def read_side(given: str | Path, store: str | None, *, erased: Collection[str] = ()) -> Side:
    """A run's folder, or its verdict.json, with its store: the one beside it, else `store`; or a bare store.

    `erased`: the erased concepts of a bare store, which does not record them. UserError if there is no verdict.json, or
    if it is damaged, of another schema, or has no judged cell; and for a bare store without `erased`.
    """
    if "://" in str(given):
        return _bare(str(given), erased)
    path = Path(given)
    file = path / "verdict.json" if path.is_dir() else path
    if not path.exists():
        raise UserError(
            sentence(f"There is no run at {shown(str(given))}.", do="Give a run's folder, or its verdict.json.")
        )
    if path.is_dir() and not file.exists() and any(path.glob("[0-9a-f][0-9a-f]/*/manifest.json")):
        return _bare(str(given), erased)
    run = read(file)
    if not run.cells:
        raise UserError(
            sentence(
                f"{shown(str(given))} has no judged cell, so there is nothing to compare.",
                without_a_verdict=len(run.missing),
                do="Give a run that judged at least one cell.",
            )
        )
    own = file.parent / OWN_STORE
    chosen = str(own) if own.is_dir() else store
    return Side(name=shown(str(given)), run=run, store=Store(chosen, read_only=True))


def _bare(given: str, erased: Collection[str]) -> Side:
    """A store without reports."""
    if not erased:
        raise UserError(
            sentence(
                f"{shown(given)} is a store, not a run: it does not record which concepts are erased.",
                do="Name them with --concepts FILE; or give the run's folder, and its store with --store.",
            )
        )
    store = Store(given, read_only=True)
    run = run_of_store(store, erased, name=given)
    return Side(name=shown(given), run=run, store=store, erased=frozenset(erased))


def flat(value: object) -> str:
    """A value of verdict.json as one line; empty for null."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
