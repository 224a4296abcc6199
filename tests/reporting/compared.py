"""Two runs as a gate leaves them: verdict.json beside a real store with judgments and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resurgence_harness.bench.files import write_images, write_judgments
from resurgence_harness.reporting import verdict_json
from resurgence_harness.statistics import Evidence, Judgment, Outcome, Rate, Shuffled
from resurgence_harness.statistics.evidence import judgments_digest
from resurgence_harness.storing import Store, key
from tests.reporting.records import ALPHA, record, run

BLOCK, GRID, VERSION = 25, 500, "version 1, weights 0123456789ab"
FACTS = {"device": "cpu", "hardware": "x86_64", "versions": {"torch": "2.9.0"}}


class Judge:
    """What is written of a judge."""

    name, version, digest = "identity", 1, "0" * 64


def judgments(outcomes: str, concept: str, *, first_seed: int = 0) -> list[Judgment]:
    """One judgment per letter, prompts and seeds counted up: h a hit, a abstained, anything else clear."""
    kinds = {"h": Outcome.HIT, "a": Outcome.ABSTAINED}
    return [
        Judgment(
            concept=concept,
            prompt=f"a photo of {concept}",
            seed=first_seed + place,
            outcome=kinds.get(letter, Outcome.CLEAR),
            score=1 - place / 1000,
            answer=concept if letter == "h" else "nobody",
        )
        for place, letter in enumerate(outcomes)
    ]


def stored(store: Store, arm: Sequence[Judgment], name: str, cell: str) -> dict[str, Any]:
    """Write an arm's images and judgments, block by block; the entry of verdict.json."""
    keys = []
    for start in range(0, len(arm), BLOCK):
        part = arm[start : start + BLOCK]
        shade = np.array([90 + 120 * (one.outcome is Outcome.HIT) for one in part], dtype=np.uint8)
        images = np.broadcast_to(shade[:, None, None, None], (len(part), 16, 16, 3))

        def draw(folder: Path, images: np.ndarray = images) -> dict[str, Any]:
            write_images(images, folder)
            return FACTS

        place = key("images", [cell, name, start, str(store.root)])
        drawn = store.make(place, kind="images", label="images", inputs={}, build=draw)

        def judge(folder: Path, part: Sequence[Judgment] = part, drawn: Any = drawn) -> dict[str, Any]:
            write_judgments(part, folder, judge=Judge(), drawn=drawn)
            return FACTS

        inputs = {drawn.key: drawn.digest}
        place = key("judgments", [cell, name, start, str(store.root)])
        keys.append(store.make(place, kind="judgments", label="judgments", inputs=inputs, build=judge).key)
    return {"arm": name, "judge": "identity", "version": VERSION, "keys": keys, "digest": judgments_digest(arm)}


def saved(
    folder: Path,
    *,
    cells: Mapping[str, tuple[str, str]],
    verdict: str = "HOLDS",
    keep: bool = True,
    first_seed: int = 0,
    number: int = 1,
    change: Mapping[str, Any] | None = None,
    cell: Mapping[str, Any] | None = None,
) -> Path:
    """A run's folder; `cells`: id → outcomes of the erased and of the retained concepts, as letters.

    `keep=False`: without a store. `change` and `cell` replace fields of the run and of its cells.
    """
    folder.mkdir()
    store = Store(folder / "store") if keep else None
    engine = dict(cell or {}).get("engine", "sequential")
    records = []
    for name, outcomes in cells.items():
        arms, entries = {}, []
        for arm, letters, concept in zip(("after", "retained_after"), outcomes, ("ada", "bob"), strict=True):
            found = judgments(letters, concept, first_seed=first_seed)
            design = {} if engine == "fixed" else {"design": Shuffled(GRID)}
            evidence = Evidence(judgments=tuple(found), planned=len(found), recipe="m", judge="identity", **design)
            arms[arm] = Rate.of(evidence).as_dict(ALPHA)
            if store is not None:
                entries.append(stored(store, found, arm, name))
        records.append(record(name, verdict, **{**arms, "erased": ["ada"], "judgments": entries, **(cell or {})}))
    about = {"run_id": f"00000000-0000-4000-8000-{number:012d}", **(change or {})}
    code = {"HOLDS": 0, "KNOWN": 0, "VIOLATED": 1, "UNDECIDED": 10}[verdict]
    verdict_json.write(folder / "verdict.json", {**run(*records, exit_code=code), **about})
    return folder
