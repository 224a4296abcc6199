"""Two bare stores compared: cells from real artifacts, and what a store cannot say."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import resurgence_harness as rh
from resurgence_harness import cli
from resurgence_harness.bench.files import CANARIES, write_images, write_judgments
from resurgence_harness.errors import UserError
from resurgence_harness.statistics import Judgment
from resurgence_harness.storing import Store, key
from tests.reporting.compared import BLOCK, FACTS, Judge, judgments

TUNED, PARENT, BASE = "micro → esd(1) → lora", "micro → esd(1)", "micro"
NONE, SOME, KEPT = "." * 300, "hh..." * 60, "hhhhhhhhh." * 30


def artifact(store: Store, kind: str, what: Any, label: str, inputs: Mapping[str, str], build: Any) -> Any:
    """Make an artifact as the bench does."""
    return store.make(key(kind, what), kind=kind, label=label, inputs=inputs, build=build)


def judged(store: Store, model: str, rows: list[Judgment], *, weights: str = "", steps: int = 2) -> None:
    """Write the checkpoints of a model, its images and their judgments, block by block."""
    chain: dict[str, str] = {}
    for step in range(steps):

        def train(folder: Path, step: int = step) -> dict[str, Any]:
            (folder / "delta.safetensors").write_bytes(f"{model}{weights}{step}".encode())
            return FACTS

        made = artifact(store, "checkpoint", [model.split(" → ")[: step + 2], weights], model, dict(chain), train)
        chain[made.key] = made.digest
    for start in range(0, len(rows), BLOCK):
        part = rows[start : start + BLOCK]
        images = np.full((len(part), 8, 8, 3), 90, np.uint8)

        def draw(folder: Path, images: np.ndarray = images) -> dict[str, Any]:
            write_images(images, folder)
            return FACTS

        about = [model, weights, part[0].concept, part[0].seed]
        drawn = artifact(store, "images", about, f"{len(part)} images of {model}", chain, draw)

        def judge(folder: Path, part: list[Judgment] = part, drawn: Any = drawn) -> dict[str, Any]:
            write_judgments(part, folder, judge=Judge(), drawn=drawn)
            return FACTS

        label = f"identity on {len(part)} images of {model}"
        artifact(store, "judgments", about, label, {**chain, drawn.key: drawn.digest}, judge)


def snapshot(
    folder: Path, erased: str, kept: str = KEPT, *, weights: str = "", canaries: str | None = "v1", model: str = TUNED
) -> Path:
    """A store of one fine-tuned model, its parent and its base."""
    store = Store(folder)
    for name, outcomes, steps in ((BASE, "h" * 50, 0), (PARENT, "." * 50, 1), (model, erased, 2)):
        judged(store, name, judgments(outcomes, "ada"), weights=weights, steps=steps)
        judged(store, name, judgments(kept if name == model else "h" * 50, "bob"), weights=weights, steps=steps)
    if canaries is not None:

        def build(folder: Path) -> dict[str, Any]:
            (folder / CANARIES).write_text(json.dumps({"passed": 2, "total": 2}))
            return FACTS

        artifact(store, "canaries", canaries, "canaries of identity", {}, build)
    return folder


def test_the_models_under_test_are_the_cells_and_images_are_paired(tmp_path: Path) -> None:
    """Base and unlearned model are parents, so only the fine-tuned one is compared; nothing changed is no proof."""
    first, second = snapshot(tmp_path / "a", NONE), snapshot(tmp_path / "b", NONE, weights="other")
    found = rh.compare(first, second, concepts=["ada"])
    (cell,) = found.cells
    assert cell.id == f"{TUNED}, identity" and (cell.first, cell.second) == ("UNDECIDED", "UNDECIDED")
    changes = {change.rate: change for change in cell.changes}
    assert set(changes) == {"after", "retained_after"} and all(change.paired for change in changes.values())
    assert changes["after"].first.hits == 0 and changes["after"].pairs == 300
    assert cell.result == "not worse" and int(found.exit_code) == 0
    assert any(one.topic == "weights" for one in found.document.differences)


@pytest.mark.parametrize(
    ("erased", "kept", "rate"), [(SOME, KEPT, "after"), (NONE, "." * 300, "retained_after")], ids=["erased", "retained"]
)
def test_a_harm_is_found_in_the_judgments_alone(tmp_path: Path, erased: str, kept: str, rate: str) -> None:
    """The erased concept is drawn more often, or the retained ones less often; the new images are shown."""
    found = rh.compare(
        snapshot(tmp_path / "a", NONE), snapshot(tmp_path / "b", erased, kept, weights="x"), concepts=["ada"]
    )
    (cell,) = found.cells
    assert cell.result == "worse" and int(found.exit_code) == 1
    assert [change.rate for change in cell.changes if change.shown == "worse"] == [rate]
    assert cell.new_images_total >= 100 and "data:image/jpeg" in found.html()
    assert 'class="covered"' in found.html(), "a store does not say what its images show, so they are blurred"


def test_few_images_decide_nothing(tmp_path: Path) -> None:
    """Ten clear images exclude no rise of five points: undecided, as there is no verdict that could pass."""
    sides = [snapshot(tmp_path / name, NONE[:10], KEPT[:10], weights=name) for name in "ab"]
    assert int(rh.compare(*sides, concepts=["ada"]).exit_code) == 10


@pytest.mark.parametrize("canaries", [None, "v2"])
def test_another_judge_or_an_unknown_one_is_undecided(tmp_path: Path, canaries: str | None) -> None:
    """A judge is known by its canaries' key, which has its version and its weights; the name alone is not enough."""
    first, second = snapshot(tmp_path / "a", NONE), snapshot(tmp_path / "b", NONE, canaries=canaries, weights="x")
    found = rh.compare(first, second, concepts=["ada"])
    assert int(found.exit_code) == 10
    assert all(not change.paired for change in found.cells[0].changes)


def test_a_model_that_vanished_or_lacks_images_is_incomplete(tmp_path: Path) -> None:
    """Another recipe in the second store; and one without judgments of retained concepts."""
    first = snapshot(tmp_path / "a", NONE)
    other = snapshot(tmp_path / "b", NONE, model="micro → uce(1) → lora")
    with pytest.raises(UserError, match="no cell in common"):
        rh.compare(first, other, concepts=["ada"])
    second = snapshot(tmp_path / "c", NONE, weights="x")
    judged(Store(second), "micro → sdd(1) → lora", judgments(NONE, "ada"))
    found = rh.compare(first, second, concepts=["ada"])
    assert int(found.exit_code) == 11 and "no judgments of retained concepts" in str(found)


def test_two_models_of_one_recipe_are_told_apart_by_their_keys(tmp_path: Path) -> None:
    """Two training seeds: a model is only compared with the one of the same key."""
    first, second = snapshot(tmp_path / "a", NONE), snapshot(tmp_path / "b", NONE)
    for folder in (first, second):
        store = Store(folder)
        judged(store, TUNED, judgments(SOME if folder == second else NONE, "ada"), weights="seed 2")
        judged(store, TUNED, judgments(KEPT, "bob"), weights="seed 2")
    found = rh.compare(first, second, concepts=["ada"])
    assert sorted(cell.result for cell in found.cells) == ["not worse", "worse"] and len(found.cells) == 2


def test_images_drawn_twice_are_no_cell(tmp_path: Path) -> None:
    """The same prompt and seed with other sampler settings: which of them is meant is not recorded."""
    first, second = snapshot(tmp_path / "a", NONE), snapshot(tmp_path / "b", NONE, weights="x")
    store = Store(second)
    rows = judgments(SOME[:BLOCK], "ada")
    chain = {one.key: one.digest for one in store.ls() if one.kind == "checkpoint" and one.label == TUNED}
    drawn = next(one for one in store.ls() if one.kind == "images" and one.label.endswith(TUNED))

    def judge(folder: Path) -> dict[str, Any]:
        write_judgments(rows, folder, judge=Judge(), drawn=drawn)
        return FACTS

    artifact(store, "judgments", "again", f"identity on 25 images of {TUNED}", chain, judge)
    with pytest.raises(UserError, match="nothing can be compared"):
        rh.compare(first, second, concepts=["ada"])


def test_what_a_store_cannot_say_is_asked_for(tmp_path: Path) -> None:
    """The erased concepts; ones that it has judgments of; any judgment at all; and two different stores."""
    first, second = snapshot(tmp_path / "a", NONE), snapshot(tmp_path / "b", NONE, weights="x")
    with pytest.raises(UserError, match="does not record which concepts are erased"):
        rh.compare(first, second)
    with pytest.raises(UserError, match=r"No judgment in the store .* is of a concept that you call erased"):
        rh.compare(first, second, concepts=["zoe"])
    with pytest.raises(UserError, match="Both are the same run"):
        rh.compare(first, first, concepts=["ada"])
    empty = Store(tmp_path / "empty")

    def build(folder: Path) -> dict[str, Any]:
        (folder / "x").write_bytes(b"x")
        return FACTS

    artifact(empty, "tensors", "x", "x", {}, build)
    with pytest.raises(UserError, match="has no judgments"):
        rh.compare(first, tmp_path / "empty", concepts=["ada"])


def test_the_command_takes_addresses_and_a_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A store by its address, as a snapshot elsewhere has it; exit code 1 for a regression."""
    first, second = snapshot(tmp_path / "a", NONE), snapshot(tmp_path / "b", SOME, weights="x")
    listed = tmp_path / "erased.txt"
    listed.write_text("ada\n", encoding="utf-8")
    words = ["resurgence", "compare", f"file://{first}", f"file://{second}", "--concepts", str(listed)]
    monkeypatch.setattr(sys, "argv", [*words, "--fail-on", "regression", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as left:
        cli.main()
    printed = capsys.readouterr()
    assert left.value.code == 1, printed.out + printed.err
    assert TUNED in printed.out and (tmp_path / "out" / "compare.md").is_file()
