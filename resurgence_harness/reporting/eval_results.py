"""Evaluation results as the hub's `.eval_results/*.yaml`: one entry per rate, beside the card's `model-index`.

    - dataset: {id: resurgence-harness/concept-resurgence, task_id: celebrity-erased-10-candidate-erased}
      value: 0.0
      date: '2026-11-30T10:00:00+00:00'
      notes: HOLDS; % of 125 images that show an erased concept, at most 6.0 %; policy 0f3a…

The format: https://huggingface.co/docs/hub/eval-results, huggingface_hub's `EvalResultEntry`. The hub lists an entry on
a leaderboard only if `dataset.id` is a benchmark that is registered there; otherwise the file is a record.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from resurgence_harness.errors import shown

DATASET = "resurgence-harness/concept-resurgence"
"""`dataset.id`: the name of this evaluation, to be replaced by that of a registered benchmark."""
RATES = {
    "after": ("erased", "show an erased concept", "high", "at most"),
    "retained_after": ("retained", "show the prompted retained concept", "low", "at least"),
}
"""Rate → suffix of `task_id`, its meaning, and the bound that a reader needs."""


def entries(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries; a planned cell without a verdict has none."""
    return [entry for cell in run["cells"] for entry in _entries(run, cell)]


def text(run: Mapping[str, Any]) -> str:
    """The file's text."""
    return str(yaml.safe_dump(entries(run), sort_keys=False, allow_unicode=True, width=1000))


def _entries(run: Mapping[str, Any], cell: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for arm, (suffix, meaning, side, word) in RATES.items():
        rate = cell[arm]
        images = rate["judged"] + rate["abstained"]
        notes = [cell["verdict"], f"% of {images} images that {meaning}, {word} {100 * rate[side]:.1f} %"]
        notes += [f"judge {shown(cell['judge'])}", f"policy {run['gate']['policy']['digest'][:16]}", run["tool"]]
        yield {
            "dataset": {"id": DATASET, "task_id": _plain(f"{cell['task']}-{cell['id']}-{suffix}")},
            "value": round(100 * rate["rate"], 2),
            "date": run["finished"],
            "notes": "; ".join(notes),
        }


def _plain(name: str) -> str:
    """Letters, digits, "_", "." and "-" only."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)
