"""Conditions become rows through the real bench, on a small model; a run that was cut goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from resurgence_harness.bench import Bench
from resurgence_harness.diffusion.base_files import digest_of
from resurgence_harness.errors import UserError
from resurgence_harness.experiments import comparing, figures, measuring
from resurgence_harness.experiments.conditions import Condition
from resurgence_harness.presets import parse_change
from resurgence_harness.registry import Origin, register, temporary
from resurgence_harness.selection import CellPlan, Selection, plan_cell
from resurgence_harness.specs import Base, Cell
from resurgence_harness.storing import Store
from tests.plugin.gallery import SETTINGS, TINY, GalleryJudge, draw_gallery
from tests.tiny import save_tiny_stable_diffusion

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A small Stable Diffusion, and in the package's list the judge that knows its pictures."""
    directory = save_tiny_stable_diffusion(tmp_path_factory.mktemp("base") / "tiny")
    draw_gallery(directory, directory.parent / "gallery.npz", count=100)
    return Base(digest=digest_of(directory), name="tiny", location=str(directory))


@pytest.fixture
def plan(base: Base) -> Iterator[CellPlan]:
    """UCE on one name, then LoRA."""
    judge = GalleryJudge(str(Path(base.location).parent / "gallery.npz"))
    selection = Selection(engine="fixed", seeds=100, changed=tuple(dict(map(parse_change, SETTINGS)).items()))
    cell = Cell(task="tiny", method="uce", count=1, finetuning="lora")
    with temporary():
        register("judge", judge, Origin.of_conftest("conftest.py"))
        yield plan_cell(cell, base, task=TINY, selection=selection)


def test_a_condition_is_counted_and_a_table_goes_on(base: Base, plan: CellPlan, tmp_path: Path) -> None:
    """Every arm's hits and images; what the file holds is not measured again; runs are told by their median."""
    place = measuring.Place(str(tmp_path / "store"), base, "cpu")
    file, told = tmp_path / "table-1.csv", []
    conditions = [
        Condition(plan=plan),
        Condition(plan=replace(plan, tuned=plan.unlearned), again=True),
    ]
    rows = measuring.run("table-1", conditions[:1], place, file, jobs=1, progress=lambda *what: told.append(what[:2]))
    again = measuring.run("table-1", conditions, place, file, jobs=1, progress=lambda *what: told.append(what[:2]))

    assert told == [(1, 1), (2, 2)]
    assert again[0] == rows[0] and measuring.read(file) == again
    assert measuring.held("table-1", conditions[::-1], file) == again[::-1]
    assert measuring.held("table-1", conditions[1:], file) == again[1:]
    (row, control) = again
    assert row["base_images"] == row["before_images"] == row["after_images"] == "100"
    assert int(row["base_hits"]) >= 95 and int(row["before_hits"]) <= 5
    assert row["retained_after_images"] and row["incidental_after_hits"] == "0"
    assert (row["verdict"], row["outcome"], row["steps"]) == ("HOLDS", "unlearned", "2")
    assert control["verdict"] == "" and control["finetuning"] == "none (other seeds)"
    assert control["before_hits"] == row["before_hits"] and control["after_images"] == "100"

    header, lines = comparing.table(again)
    assert "before" in header and len(lines) == 2
    written = figures.draw("table-1", "Table 1", again, tmp_path / "figures")
    assert [path.suffix for path in written] == [".png", ".svg"] and all(path.stat().st_size > 3000 for path in written)


def test_a_model_is_compared_with_itself_on_other_seeds(base: Base, plan: CellPlan, tmp_path: Path) -> None:
    """The second half of an A/A is drawn, not copied: on the base, whose names show on the seeds the judge knows."""
    bench = Bench(Store(str(tmp_path)), base_location=base)
    bare = Condition(plan=replace(plan, unlearned=plan.base, tuned=plan.base), again=True)
    row = measuring.measure(bench, bare)
    assert int(row["before_hits"]) >= 95
    assert row["after_hits"] != row["before_hits"]


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    """Nothing is appended to it."""
    file = tmp_path / "table-1.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="is not a table of this version"):
        measuring.read(file)
