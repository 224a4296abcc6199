"""What a person writes with the library, run in a process of its own: a table of calls, each with what it gave.

python tests/library/script.py base gallery.npz store files.json > answers.json
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import resurgence_harness as rh
from resurgence_harness.registry import Origin, register
from tests.plugin.gallery import SEEDS, SETTINGS, TINY, GalleryJudge


def told(results: rh.Results) -> dict[str, Any]:
    """A run, in short."""
    return {
        "verdicts": {cell.id: cell.verdict for cell in results},
        "steps": {cell.id: [one.step for one in cell.by_step] for cell in results},
        "code": int(results.exit_code),
        "passed": results.passed,
        "text": str(results),
        "html": results._repr_html_(),
        "sheets": {cell.id: [sheet.title for sheet in results.sheets(cell)] for cell in results},
        "rows": results.rows(),
        "folder": str(results.folder),
    }


def main(base: str, gallery: str, store: str, files: dict[str, str]) -> dict[str, Any]:
    """Every call."""
    origin = Origin.of_conftest("conftest.py")
    register("task", TINY, origin)
    register("judge", GalleryJudge(gallery), origin)
    usual: dict[str, Any] = {"base": base, "seeds": SEEDS, "store": store}
    settings = dict(part.split("=") for part in SETTINGS)
    answers: dict[str, Any] = {}

    def ask(name: str, call: Callable[[], rh.Results]) -> rh.Results | None:
        try:
            results = call()
        except (rh.UserError, rh.HarnessError) as error:
            answers[name] = {"error": type(error).__name__, "says": str(error)}
            return None
        answers[name] = told(results)
        return results

    cells = {"methods": "uce", "finetune": "lora", "counts": 1, **usual, "settings": settings}
    first = ask("examine", lambda: rh.examine("tiny", **cells, out="first"))
    assert first is not None
    ask("loaded", lambda: rh.load("first"))
    for word in ("--help", "--collect-only"):
        os.environ["PYTEST_ADDOPTS"] = word
        ask(word, lambda: rh.examine("tiny", **cells, out="first"))
    os.environ["PYTEST_ADDOPTS"] = ""
    first = ask("examine", lambda: rh.examine("tiny", **cells, out="first"))
    assert first is not None
    ask("loaded", lambda: rh.load("first"))
    ask("limits", lambda: rh.examine("tiny", **cells, limits=rh.Policy(delta_u=0.001, level=0.5), out="limits"))
    ask("unknown method", lambda: rh.examine("tiny", **{**cells, "methods": "nosuch"}, out="first"))
    answers["stale"] = {"sheets": [sheet.title for sheet in first.sheets(first.cells[0])]}
    ask("nothing to load", lambda: rh.load("first"))
    erased = [concept.name for concept in TINY.erasable]
    models = {"kept": files["passing"], "returned": files["regressing"]}
    stressed = {**usual, "settings": settings, "concepts": erased, "steps": (1, 2), "task": "tiny"}
    ask("stress", lambda: rh.stress(models, **stressed, out="stress"))
    ask("no names", lambda: rh.stress(models, **{**stressed, "concepts": []}, out="stress"))
    ask("steps that fall", lambda: rh.stress(models, **{**stressed, "steps": (2, 1)}, out="stress"))
    parents = {"unlearned": files["unlearned"], "base": base, "policy": "policy.yaml", "store": store}
    ask("gate", lambda: rh.gate(files["passing"], **parents, out="gate"))
    ask("gate on a regression", lambda: rh.gate(files["regressing"], **parents, out="regression"))
    compared = rh.compare("gate", "regression", store=store)
    answers["compare"] = {
        "results": {cell.id: cell.result for cell in compared},
        "code": int(compared.exit_code),
        "paired": [change.paired for cell in compared for change in cell.changes],
        "html": compared._repr_html_(),
        "text": str(compared),
    }
    ask("gate on nothing", lambda: rh.gate("nowhere", **parents, out="nowhere"))
    try:
        answers["truth"] = bool(first)
    except TypeError as error:
        answers["truth"] = str(error)
    return answers


if __name__ == "__main__":
    base, gallery, store, files = sys.argv[1:]
    answers = main(base, gallery, store, json.loads(Path(files).read_text(encoding="utf-8")))
    Path("answers.json").write_text(json.dumps(answers), encoding="utf-8")
