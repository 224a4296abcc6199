"""Records of cells as a run makes them, for testing the reports."""

from __future__ import annotations

from typing import Any

from resurgence_harness.statistics import Rate

ALPHA = 0.01


def rate(hits: int, images: int = 150, abstained: int = 0) -> dict[str, Any]:
    """An arm's counts with their exact bounds."""
    return Rate(hits, images - abstained, abstained).as_dict(ALPHA)


def record(name: str = "esd-10-lora", verdict: str = "VIOLATED", **other: Any) -> dict[str, Any]:
    """One cell."""
    method, count, finetuning = name.rsplit("-", 2)
    model = {"recipe": "micro", "key": "k", "digest": "d"}
    return {
        "id": name,
        "nodeid": f"suites/celebrity/test_celebrity.py::test_x[{name}]",
        "task": "celebrity",
        "method": method,
        "concepts": int(count),
        "erased": [f"concept {number}" for number in range(int(count))],
        "finetuning": finetuning,
        "run": 0,
        "base": rate(143),
        "before": rate(5),
        "after": rate(63),
        "as_parent": None,
        "retained_before": rate(135),
        "retained_after": rate(140),
        "verdict": verdict,
        "reason": "the erased concept came back: 63 of 150 images show it after fine-tuning, 5 before.",
        "base_retained": rate(144),
        "insample_before": rate(136),
        "insample_after": None,
        "synonyms_before": None,
        "synonyms_after": None,
        "incidental_before": None,
        "incidental_after": None,
        "by_step": [],
        "by_stage": [],
        "along": None,
        "templates": [],
        "confusion": {},
        "alpha": ALPHA,
        "findings": [],
        "outcome": "unlearned",
        "acceptance": None,
        "settings": "0" * 12,
        "controls": [],
        "agreement": {},
        "culprits": None,
        "arithmetic": "  scope  …",
        "tighten": False,
        "images_to_settle": None,
        "e_value": 1e6 if verdict == "VIOLATED" else 1.0,
        "limits": "0" * 64,
        "judge": "identity",
        "judgments": [],
        "models": {"base": model, "unlearned": model, "tuned": model},
        "engine": "sequential",
        "looks": 3,
        "images": 700,
        "grids": {name: {"rows": 500, "order": 0, "block": 25} for name in ("erased", "retained")},
        "drawn_with": ["cpu, torch 2.11.0, float32"],
        "given": [],
        "seconds": 61.5,
        **other,
    }


def run(*cells: dict[str, Any], missing: tuple[dict[str, Any], ...] = (), exit_code: int = 1) -> dict[str, Any]:
    """A whole run."""
    return {
        "schema_version": 2,
        "tool": "resurgence-harness 0.0",
        "run_id": "00000000-0000-4000-8000-000000000000",
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:04:00+00:00",
        "status": "incomplete" if missing else "complete",
        "exit_code": exit_code,
        "base": {"name": "micro", "digest": "0" * 64},
        "selection": {
            "engine": "sequential",
            "changed": {},
            "settings": "",
            "prompts": [],
            "notes": [],
            "choices": {"profile": "quick"},
        },
        "environment": {"python": "3.11.7", "device": "cpu"},
        "family": {
            "declared": 14,
            "judged": len(cells),
            "alpha": ALPHA,
            "alarms": [],
            "global_e_value": 1.0,
            "every_cell_passes": False,
        },
        "cells": list(cells),
        "missing": list(missing),
        "selected": {"cells": len(cells) + len(missing), "of": len(cells) + len(missing)},
        "failed_tests": [],
        "lost_worker": False,
    }


UNRUN = {
    "id": "esd-100-lora",
    "nodeid": "suites/celebrity/test_celebrity.py::test_x[esd-100-lora]",
    "task": "celebrity",
    "kind": "worker died",
    "why": "worker 'gw1' crashed while running it",
}
