"""`import resurgence_harness as rh`: its functions on a very small model, in a process of their own."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import resurgence_harness as rh
from tests.gate.conftest import POLICY, Tiny, micro, tiny
from tests.plugin.conftest import ROOT, Folder
from tests.shared import made_once
from tests.warm_python import python

pytestmark = pytest.mark.slow

__all__ = ["micro", "tiny"]
Said = dict[str, Any]


@pytest.fixture(scope="module")
def said(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Said:
    """What each call of script.py gave."""

    def make(folder: Path) -> None:
        (folder / "files.json").write_text(json.dumps({name: str(file) for name, file in tiny.files.items()}))
        (folder / "policy.yaml").write_text(POLICY, encoding="utf-8")
        words = [tiny.base, tiny.gallery, tiny.store, folder / "files.json"]
        ran = subprocess.run(
            [python(), str(ROOT / "tests" / "library" / "script.py"), *map(str, words)],
            cwd=folder,
            env=Folder(folder, tiny.base, tiny.store).env(),
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        (folder / "printed.txt").write_text(ran.stdout, encoding="utf-8")

    folder = made_once(tmp_path_factory, "library", make)
    answers: Said = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    return {**answers, "printed": (folder / "printed.txt").read_text(encoding="utf-8")}


def test_a_cell_is_examined_as_in_a_suite(said: Said) -> None:
    """Its verdict, exit code, text, table and pictures; nothing is printed."""
    found = said["examine"]
    assert found["verdicts"] == {"uce-1-lora": "HOLDS"}
    assert (found["code"], found["passed"]) == (0, True)
    assert found["text"].endswith("1 cell: 1 holds. Exit code 0: every cell holds or is known.")
    assert found["sheets"]["uce-1-lora"][-1] == "base | unlearned | fine-tuned"
    (row,) = found["rows"]
    assert (row["verdict"], row["base_rate"], row["after_hits"]) == ("HOLDS", 1.0, 0)
    assert said["printed"] == ""


def test_results_show_themselves(said: Said) -> None:
    """As HTML: the verdict, the table, and the worst images, with texts escaped."""
    page = said["examine"]["html"]
    assert "Exit code 0" in page and "<table>" in page and "data:image/jpeg;base64," in page
    assert "Exit code 1" in said["stress"]["html"]
    assert "data:image/svg+xml" in said["stress"]["html"], "the curve over the steps"


def test_results_are_loaded_again(said: Said) -> None:
    """`rh.load` gives what the run gave."""
    assert {**said["loaded"], "folder": ""} == {**said["examine"], "folder": ""}


def test_a_policy_is_a_limits_file(said: Said) -> None:
    """Limits that are too tight to be shown leave the cell undecided; nothing undecided has passed."""
    assert said["limits"]["verdicts"] == {"uce-1-lora": "UNDECIDED"}
    assert (said["limits"]["code"], said["limits"]["passed"]) == (10, False)


def test_given_models_are_stressed(said: Said) -> None:
    """One survives; the other draws what was erased, at every step of its fine-tuning."""
    found = said["stress"]
    assert found["verdicts"]["kept-2-lora"] == "HOLDS"
    assert found["verdicts"]["returned-2-lora"] == "VIOLATED"
    assert {step for steps in found["steps"].values() for step in steps} >= {1, 2}
    assert (found["code"], found["passed"]) == (1, False)


def test_the_gate_is_called(said: Said) -> None:
    """Though the package of the gate has the same name."""
    assert (said["gate"]["verdicts"], said["gate"]["code"]) == ({"erased-2-candidate": "HOLDS"}, 0)
    assert said["gate on a regression"]["code"] == 1


def test_two_gates_are_compared(said: Said) -> None:
    """In pairs, from the store that both used; the new images are side by side."""
    found = said["compare"]
    assert (found["results"], found["code"]) == ({"erased-2-candidate": "worse"}, 1)
    assert found["paired"] and all(found["paired"]), found["text"]
    assert "data:image/jpeg;base64," in found["html"]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("unknown method", "nosuch"),
        ("nothing to load", "There is no verdict file"),
        ("no names", "has no names"),
        ("steps that fall", "are not rising"),
        ("gate on nothing", "nowhere"),
    ],
)
def test_a_mistake_is_an_error_of_one_sentence(said: Said, call: str, says: str) -> None:
    """A UserError, and a run that is refused leaves no results."""
    assert said[call]["error"] == "UserError"
    assert says in said[call]["says"] and "Traceback" not in said[call]["says"]


def test_pictures_of_another_run_are_not_shown(said: Said) -> None:
    """Another run in the same folder was refused, and removed the results."""
    assert said["stale"] == {"sheets": []}


@pytest.mark.parametrize("option", ["--help", "--collect-only"])
def test_a_run_that_judged_nothing_gives_no_earlier_results(said: Said, option: str) -> None:
    """pytest ends with 0 there, and the folder may hold an earlier run that passed."""
    assert said[option]["error"] == "HarnessError"


def test_results_are_neither_true_nor_false(said: Said) -> None:
    """`if rh.gate(…):` would pass every model."""
    assert "ask for .passed" in said["truth"]


def test_importing_it_loads_nothing() -> None:
    """Not even pydantic; a project that has it installed pays nothing."""
    code = "import sys, resurgence_harness as rh; print(sorted({'torch','pydantic','numpy','yaml'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_the_stub_names_what_is_public() -> None:
    """`__init__.pyi` is what editors and mypy read."""
    tree = ast.parse((ROOT / "resurgence_harness" / "__init__.pyi").read_text(encoding="utf-8"))
    imported = {name.asname for node in tree.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert imported | {"__version__"} == set(rh.__all__)
    for name in rh.__all__:
        value: Callable[..., Any] = getattr(rh, name)
        assert name == "__version__" or value.__doc__
    with pytest.raises(AttributeError):
        _ = rh.nothing  # type: ignore[attr-defined]
