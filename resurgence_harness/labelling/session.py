"""One labeller's work on a set: shuffled pictures, answers, undo, and the agreement with another labeller."""

from __future__ import annotations

import hashlib
import threading
from typing import Any

from resurgence_harness.labelling.label_file import CANNOT_TELL, NONE, LabelFile, labellers
from resurgence_harness.labelling.picture_set import Picture, PictureSet
from resurgence_harness.statistics.kappa import Agreement, agreement

AHEAD = 4
"""Pictures that the page loads ahead of the one that is shown."""


class Session:
    """A set and a labeller. Used by several threads: every window of the page asks it."""

    def __init__(self, pictures: PictureSet, by: str) -> None:
        """`by`: the labeller's role. UserError for an edited file of labels, of this or another labeller."""
        self.pictures = pictures
        self.file = LabelFile.open(pictures, by)
        self.others = tuple(file for file in labellers(pictures) if file.by != by)
        key = f"{pictures.digest}{by}"
        self.order: tuple[Picture, ...] = tuple(
            sorted(pictures.pictures, key=lambda one: hashlib.sha256(f"{key}{one.sha256}".encode()).digest())
        )
        self._place = {one.sha256: place for place, one in enumerate(self.order)}
        self._lock = threading.Lock()

    def state(self) -> dict[str, Any]:
        """What the page shows: counts, the places of the next pictures, the agreement. Nothing of their origin."""
        with self._lock:
            return self._state()

    def answer(self, place: int, label: str) -> dict[str, Any]:
        """Keep an answer; one that another window gave first stays, and the state says so."""
        with self._lock:
            picture = self.order[place]
            kept = self.file.labels.get(picture.sha256)
            if kept is None:
                self.file.add(picture.sha256, label)
            return {**self._state(), "kept": kept or label}

    def undo(self) -> dict[str, Any]:
        """Take the last answer back; the state's next picture is the one that it was for."""
        with self._lock:
            picture = self.file.undo()
            state = self._state()
            if picture is not None:
                place = self._place[picture]
                state["next"] = [place, *(one for one in state["next"] if one != place)][: AHEAD + 1]
            return state

    def _state(self) -> dict[str, Any]:
        labels = self.file.labels
        open_ones = [place for place, one in enumerate(self.order) if one.sha256 not in labels]
        return {
            "total": len(self.order),
            "done": len(labels),
            "next": open_ones[: AHEAD + 1],
            "choices": [*self.pictures.choices],
            "none": NONE,
            "cannot_tell": CANNOT_TELL,
            "covered": self.pictures.covered,
            "agreement": [_text(file.by, agreement_of(self.file, file)) for file in self.others],
        }


def agreement_of(one: LabelFile, other: LabelFile) -> Agreement | None:
    """The agreement of two labellers on the pictures that both labelled; None if there is none."""
    both = [picture for picture in one.labels if picture in other.labels]
    return agreement([(one.labels[picture], other.labels[picture]) for picture in both]) if both else None


def _text(by: str, found: Agreement | None) -> str:
    if found is None:
        return f"no picture in common with {by} yet"
    kappa = "undefined" if found.kappa is None else f"{found.kappa:.2f}"
    return f"agrees with {by} on {found.same} of {found.pictures} pictures, Cohen's kappa {kappa}"
