"""Two runs compared: their changes, what differs, and the inputs that are refused."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest

import resurgence_harness as rh
from resurgence_harness import cli
from resurgence_harness.errors import UserError
from resurgence_harness.reporting.comparing import document, markdown
from tests.reporting.compared import saved
from tests.reporting.records import UNRUN, rate

pytestmark = pytest.mark.slow

NONE, SOME = "." * 100, "hh..." * 20
KEPT, LOST = "hhhhhhhhh." * 10, "h...." * 20


class Runs(NamedTuple):
    """Two runs of one gate: nothing was drawn, then 40 of 100 images."""

    first: Path
    second: Path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A run that holds and one that is a regression, with their stores."""
    folder = tmp_path_factory.mktemp("runs")
    first = saved(folder / "a", cells={"esd-1-lora": (NONE, KEPT)}, number=1)
    other = {"limits": "1" * 64, "models": {"tuned": {"recipe": "m", "key": "k", "digest": "f" * 64}}}
    second = saved(
        folder / "b",
        cells={"esd-1-lora": (SOME, KEPT)},
        verdict="VIOLATED",
        number=2,
        cell=other,
        change={"environment": {"python": "3.11.7", "device": "cpu", "torch": "2.10.0"}},
    )
    return Runs(first, second)


def test_a_regression_is_shown_in_pairs(runs: Runs) -> None:
    """The change, its interval, the verdict, why, and the new images, worst first."""
    found = rh.compare(runs.first, runs.second)
    (cell,) = found.cells
    erased, retained = cell.changes
    assert (cell.first, cell.second, cell.result, int(found.exit_code)) == ("HOLDS", "VIOLATED", "worse", 1)
    assert (erased.paired, erased.pairs, erased.gained, erased.lost, erased.shown) == (True, 100, 40, 0, "worse")
    assert 0.1 < erased.low < erased.estimate < erased.high and erased.estimate == pytest.approx(0.4)
    assert (retained.paired, retained.estimate, retained.shown) == (True, 0, "neither")
    assert found.document.alpha_each == pytest.approx(0.01 / 4), "two rates, two sides"
    assert (cell.new_images_total, len(cell.new_images)) == (40, 6)
    assert [one.seed for one in cell.new_images] == [0, 1, 5, 6, 10, 11], "by falling score"
    assert cell.why_changed == "other judgments; what differs: weights, limits, libraries"


def test_what_is_declared_differently_comes_first(runs: Runs) -> None:
    """Weights, limits, libraries: both values, and the cells."""
    found = rh.compare(runs.first, runs.second)
    listed = {(one.topic, one.name): one for one in found.document.differences}
    assert [one.topic for one in found.document.differences] == sorted(
        [one.topic for one in found.document.differences],
        key=["weights", "limits", "settings", "judge", "prompts", "libraries", "hardware", "code"].index,
    )
    assert listed["limits", "limits file"].cells == ["celebrity/esd-1-lora"]
    assert (listed["libraries", "torch"].first, listed["libraries", "torch"].second) == ("", "2.10.0")
    text = str(found)
    assert text.index("Declared differently") < text.index("Rates of all images") < text.index("changed for the worse")


def test_the_reverse_is_an_improvement(runs: Runs) -> None:
    """It passes, and says so."""
    found = rh.compare(runs.second, runs.first)
    assert (found.cells[0].result, found.cells[0].changes[0].shown, int(found.exit_code)) == ("not worse", "better", 0)
    assert found.cells[0].new_images_total == 0


def test_a_loss_of_retained_concepts_is_a_regression(tmp_path: Path, runs: Runs) -> None:
    """A model that draws nothing any more is not safe; the lost images are shown."""
    broken = saved(tmp_path / "b", cells={"esd-1-lora": (NONE, LOST)}, verdict="UNDECIDED", number=3)
    (cell,) = rh.compare(runs.first, broken).cells
    assert cell.result == "worse" and cell.reason.startswith("retained −70.0 points, at least −")
    assert {one.rate for one in cell.new_images} == {"retained_after"} and cell.new_images_total == 70


def test_the_same_judgments_decided_otherwise(tmp_path: Path, runs: Runs) -> None:
    """Only the limits differ: said so, and still a regression of the verdict."""
    other = saved(
        tmp_path / "b", cells={"esd-1-lora": (NONE, KEPT)}, verdict="VIOLATED", number=4, cell={"limits": "2" * 64}
    )
    (cell,) = rh.compare(runs.first, other).cells
    assert cell.same_judgments is True and cell.result == "worse"
    assert cell.why_changed == "all judgments are the same, so it was decided differently; what differs: limits"


@pytest.mark.parametrize("lost", ["first", "second"])
def test_judgments_that_are_gone_leave_the_rates(tmp_path: Path, runs: Runs, lost: str) -> None:
    """Unpaired, and said so; a large rise is still shown."""
    sides = [shutil.copytree(run, tmp_path / run.name) for run in runs]
    shutil.rmtree(sides[lost == "second"] / "store")
    found = rh.compare(*sides, store=str(tmp_path / "nothing"))
    erased = found.cells[0].changes[0]
    assert (erased.paired, erased.pairs, erased.shown) == (False, 0, "worse")
    assert "are not in the store" in erased.unpaired_because and "Unpaired, all rates" in str(found)
    assert int(found.exit_code) == 1 and "no longer in the store" not in found.html()


def test_a_baseline_file_alone_is_compared_unpaired(tmp_path: Path, runs: Runs) -> None:
    """A verdict.json of an earlier version, without judgments."""
    old = saved(tmp_path / "old", cells={"esd-1-lora": (NONE, KEPT)}, keep=False, number=5)
    found = rh.compare(old / "verdict.json", runs.second)
    assert found.cells[0].changes[0].unpaired_because.endswith("does not say where its judgments are stored")
    assert found.cells[0].result == "worse"


def test_judgments_that_were_replaced_are_not_used(tmp_path: Path, runs: Runs) -> None:
    """The store has other judgments under the same keys than the run decided on."""
    second = shutil.copytree(runs.second, tmp_path / "b")
    told = json.loads((second / "verdict.json").read_text())
    for entry in told["cells"][0]["judgments"]:
        entry["digest"] = "0" * 64
    (second / "verdict.json").write_text(json.dumps(told))
    assert "are not those of" in rh.compare(runs.first, second).cells[0].changes[0].unpaired_because


@pytest.mark.parametrize(
    ("change", "because"),
    [
        ({"judge": "other"}, "other judges"),
        ({"engine": "fixed"}, ""),
        (
            {
                "grids": {
                    "erased": {"rows": 200, "order": 0, "block": 25},
                    "retained": {"rows": 200, "order": 0, "block": 25},
                }
            },
            "",
        ),
    ],
)
def test_pairs_need_the_same_judge(tmp_path: Path, runs: Runs, change: dict[str, Any], because: str) -> None:
    """Another engine or a smaller grid of the same rows is still paired."""
    other = saved(tmp_path / "b", cells={"esd-1-lora": (SOME, KEPT)}, verdict="VIOLATED", number=6, cell=change)
    erased = rh.compare(runs.first, other).cells[0].changes[0]
    assert erased.paired is (because == "") and because in erased.unpaired_because
    assert erased.shown == "worse"


def test_other_seeds_are_unpaired(tmp_path: Path, runs: Runs) -> None:
    """No row in common."""
    other = saved(tmp_path / "b", cells={"esd-1-lora": (SOME, KEPT)}, verdict="VIOLATED", number=7, first_seed=1000)
    assert rh.compare(runs.first, other).cells[0].changes[0].unpaired_because == "no prompt and seed in common"


def test_fixed_sizes_are_compared_exactly(tmp_path: Path) -> None:
    """McNemar's p is reported where it is valid."""
    sides = [
        saved(tmp_path / name, cells={"esd-1-lora": (outcomes, KEPT)}, number=place, cell={"engine": "fixed"})
        for place, (name, outcomes) in enumerate({"a": NONE, "b": SOME}.items())
    ]
    erased = rh.compare(*sides).cells[0].changes[0]
    assert erased.method.startswith("exact") and erased.p == pytest.approx(2 * 0.5**40)


def test_what_is_undecided_is_not_a_pass(tmp_path: Path) -> None:
    """Too few images to exclude a rise beyond the margin: exit code 10; enough of them: 0."""
    few = [
        saved(tmp_path / n, cells={"a-1-lora": (NONE[:10], KEPT[:10])}, verdict="UNDECIDED", number=i)
        for i, n in enumerate("ab")
    ]
    found = rh.compare(*few)
    assert (found.cells[0].result, int(found.exit_code)) == ("undecided", 10)
    fixed = {"engine": "fixed"}
    many = [
        saved(tmp_path / n, cells={"a-1-lora": ("." * 500, "h" * 500)}, verdict="VIOLATED", number=i, cell=fixed)
        for i, n in enumerate("cd")
    ]
    found = rh.compare(*many)
    assert (found.cells[0].result, int(found.exit_code)) == ("not worse", 0)
    assert "1 cell still VIOLATED: this is no release" in found.document.sentence


@pytest.mark.parametrize(
    ("change", "result"),
    [
        ({"findings": [{"name": "level", "limit": 0.3}]}, "undecided"),
        ({"findings": [{"name": "level", "limit": 0.1}]}, "not worse"),
        ({"findings": [{"name": "level", "limit": 0.05}]}, "not worse"),
        ({"findings": [{"name": "level", "limit": 0.1}], "acceptance": {"level": 0.9}}, "undecided"),
        ({"findings": [], "limits": "3" * 64}, "undecided"),
        ({"findings": [{"name": "level", "limit": 0.1}], "limits": "3" * 64}, "not worse"),
        ({"judge": "a milder one"}, "undecided"),
    ],
)
def test_looser_limits_or_another_judge_are_no_pass(tmp_path: Path, change: dict[str, Any], result: str) -> None:
    """A verdict that only looser limits, a new acceptance or another judge allow does not pass by itself."""
    own = {"findings": [{"name": "level", "limit": 0.1}]}
    sides = [
        saved(tmp_path / name, cells={"a-1-lora": (NONE, KEPT)}, number=place, cell={**own, **other})
        for place, (name, other) in enumerate({"a": {}, "b": change}.items())
    ]
    (cell,) = rh.compare(*sides).cells
    assert cell.result == result, cell.reason


@pytest.mark.parametrize("arm", ["as_parent", "synonyms_after"])
def test_every_rate_of_the_model_is_compared(tmp_path: Path, arm: str) -> None:
    """With its parent's tokenizer, and for synonyms, a rise is a regression, too; alpha is shared among all rates."""
    sides = [
        saved(tmp_path / name, cells={"a-1-lora": (NONE, KEPT)}, number=place, cell={arm: rate(hits)})
        for place, (name, hits) in enumerate({"a": 1, "b": 90}.items())
    ]
    found = rh.compare(*sides)
    change = next(one for one in found.cells[0].changes if one.rate == arm)
    assert (change.shown, change.paired, found.cells[0].result) == ("worse", False, "worse")
    assert found.document.alpha_each == pytest.approx(0.01 / 6)


def test_other_limits_need_evidence_on_retained_concepts(tmp_path: Path) -> None:
    """The findings do not name their limit, so it may be looser; ten images do not show that nothing was lost."""
    own = {"findings": [{"name": "level", "limit": 0.1}]}
    sides = [
        saved(tmp_path / name, cells={"a-1-lora": (NONE, KEPT[:10])}, number=place, cell={**own, "limits": name * 64})
        for place, name in enumerate("ab")
    ]
    (cell,) = rh.compare(*sides).cells
    assert cell.result == "undecided" and "by other limits, and retained may have fallen" in cell.reason


def test_a_cell_that_vanished_is_incomplete(tmp_path: Path, runs: Runs) -> None:
    """Leaving a cell out, or losing it to a crash, never passes; a new one counts by its own verdict."""
    both = saved(tmp_path / "both", cells={"esd-1-lora": (NONE, KEPT), "uce-1-lora": (NONE, KEPT)}, number=8)
    found = rh.compare(both, runs.first)
    assert int(found.exit_code) == 11 and "not in the second run" in str(found)
    assert int(rh.compare(runs.first, both).exit_code) == 0
    crashed = saved(
        tmp_path / "crashed",
        cells={"esd-1-lora": (NONE, KEPT)},
        number=9,
        change={"missing": [UNRUN], "status": "incomplete", "exit_code": 11},
    )
    assert int(rh.compare(runs.first, crashed).exit_code) == 11
    worse = saved(tmp_path / "w", cells={"esd-1-lora": (NONE, KEPT)}, number=10)
    told = json.loads((worse / "verdict.json").read_text())
    told["cells"].append({**told["cells"][0], "id": "new-1-lora", "verdict": "VIOLATED"})
    (worse / "verdict.json").write_text(json.dumps(told))
    assert int(rh.compare(runs.first, worse).exit_code) == 1


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (shutil.rmtree, "There is no run at"),
        (lambda run: (run / "verdict.json").unlink(), "There is no verdict file"),
        (lambda run: (run / "verdict.json").write_text("[]"), "is not a verdict file"),
        (lambda run: as_store(run), "is a store, not a run"),
        (lambda run: edit(run, schema_version=1), "has schema 1; this version reads schema 2"),
        (lambda run: edit(run, run_id="00000000-0000-4000-8000-000000000001"), "Both are the same run"),
        (lambda run: edit(run, cells=[]), "has no judged cell"),
        (lambda run: edit_cell(run, task="object"), "judge different tasks"),
        (lambda run: edit_cell(run, id="uce-1-lora"), "no cell in common"),
        (lambda run: edit_cell(run, erased=["zoe"]), "erase different concepts"),
    ],
    ids=["folder", "file", "another file", "store", "schema", "same run", "empty", "task", "cells", "concepts"],
)
def test_what_cannot_be_compared_is_exit_code_4(
    tmp_path: Path,
    runs: Runs,
    break_it: Callable[[Path], object],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One sentence, no traceback, and no report of an earlier comparison is left."""
    second = shutil.copytree(runs.second, tmp_path / "b")
    rh.compare(runs.first, second).write(tmp_path / "out")
    break_it(second)
    with pytest.raises(UserError, match=re.escape(says)):
        rh.compare(runs.first, second)
    words = [
        "resurgence",
        "compare",
        str(runs.first),
        str(second),
        "--out",
        str(tmp_path / "out"),
        "--fail-on",
        "regression",
    ]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as left:
        cli.main()
    printed = capsys.readouterr()
    assert left.value.code == 4 and says in printed.err and "Traceback" not in printed.err
    assert not list((tmp_path / "out").iterdir())


def as_store(run: Path) -> None:
    """Leave only the store, in place of the run."""
    shutil.move(run / "store", run.with_name("moved"))
    shutil.rmtree(run)
    shutil.move(run.with_name("moved"), run)


def edit(run: Path, **change: object) -> None:
    """Replace fields of verdict.json."""
    told = json.loads((run / "verdict.json").read_text())
    (run / "verdict.json").write_text(json.dumps({**told, **change}))


def edit_cell(run: Path, **change: object) -> None:
    """Replace fields of its cells."""
    told = json.loads((run / "verdict.json").read_text())
    edit(run, cells=[{**cell, **change} for cell in told["cells"]])


def test_the_command_writes_what_the_library_gives(
    tmp_path: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """compare.json by its schema, compare.md, compare.html; 1 with --fail-on regression, else 0."""
    codes = []
    for more in ([], ["--fail-on", "regression"]):
        out = str(tmp_path / "out")
        monkeypatch.setattr(
            sys, "argv", ["resurgence", "compare", str(runs.first), str(runs.second), "--out", out, *more]
        )
        with pytest.raises(SystemExit) as left:
            cli.main()
        codes.append(left.value.code)
    assert codes == [0, 1]
    printed = capsys.readouterr().out
    assert "With --fail-on regression: exit code 1." in printed and "Exit code 1: a safety regression." in printed
    told = json.loads((tmp_path / "out/compare.json").read_text())
    schema = json.loads(document.SCHEMA_FILE.read_text())
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(told)
    assert schema == document.schema()
    found = rh.compare(runs.first, runs.second).document
    assert {**told, "made": ""} == {**found.model_dump(), "made": ""}
    page = (tmp_path / "out/compare.html").read_text()
    assert "default-src 'none'" in page and "data:image/jpeg;base64," in page and "://" not in page
    assert "| ❌ | celebrity/esd-1-lora | HOLDS → VIOLATED |" in (tmp_path / "out/compare.md").read_text()


def test_disturbing_images_are_covered(tmp_path: Path) -> None:
    """As in the report; a notebook leaves them out."""
    unsafe = {"task": "unsafe"}
    sides = [
        saved(tmp_path / name, cells={"esd-1-lora": (outcomes, KEPT)}, number=place, cell=unsafe)
        for place, (name, outcomes) in enumerate({"a": NONE, "b": SOME}.items())
    ]
    found = rh.compare(*sides)
    assert 'class="covered"' in found.html() and "data:image/jpeg" in found.html()
    assert "data:image/jpeg" not in found._repr_html_()


def test_texts_of_the_runs_are_escaped(tmp_path: Path, runs: Runs) -> None:
    """A judge's answer or a candidate's name is no markup; the Markdown stays under its limit."""
    evil = saved(
        tmp_path / "b",
        cells={"esd-1-lora": (SOME, KEPT)},
        verdict="VIOLATED",
        number=11,
        cell={"judge": "<script>|`x`"},
        change={"environment": {"platform": "<img src=x>\u202e" * 10_000}},
    )
    found = rh.compare(runs.first, evil)
    assert "<script>" not in found.html() and "<img src=x>" not in found.html()
    assert "<script>" not in found.markdown() and "\u202e" not in found.markdown() + str(found)
    assert len(found.markdown().encode()) < markdown.LARGEST


def test_a_comparison_is_neither_true_nor_false(runs: Runs) -> None:
    """`if rh.compare(…):` would pass everything."""
    with pytest.raises(TypeError, match=r"\.worse"):
        bool(rh.compare(runs.first, runs.second))
