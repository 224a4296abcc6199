"""`resurgence validate --arithmetic`: the rule, and the microworld drawn three times."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from resurgence_harness import cli
from resurgence_harness.errors import UserError
from resurgence_harness.experiments.arithmetic import LIMIT, Answer, Changes, Comparison, compare, sampler_for
from resurgence_harness.judging import judge_by_name
from resurgence_harness.selection import resolve_base
from resurgence_harness.storing import Store
from resurgence_harness.tasks import CELEBRITY

pytestmark = pytest.mark.slow


def comparison(images: int, *, gained: int = 0, lost: int = 0, hits: int | None = None, pixels: int = 1) -> Comparison:
    """Counts of float16; another batch changes nothing."""
    half = Changes(way="float16", images=images, gained=gained, lost=lost, pixels=pixels, drawn_with="here")
    return Comparison(
        base=resolve_base("micro"),
        judge=judge_by_name(CELEBRITY.judges[0]),
        task="celebrity",
        least_shown=0.8,
        reference="float32",
        drawn_with="here",
        images=images,
        hits=images if hits is None else hits,
        batch=replace(half, way="float32, another batch", gained=0, lost=0),
        half=half,
    )


@pytest.mark.parametrize(
    ("found", "answer", "code", "reason"),
    [
        (comparison(459), Answer.PASS, 0, "as little as required"),
        (comparison(458), Answer.UNDECIDED, 10, "give more images"),
        (comparison(2500, gained=7, lost=6), Answer.PASS, 0, "as little as required"),
        (comparison(2500, gained=7, lost=7), Answer.UNDECIDED, 10, "give more images"),
        (comparison(2500, lost=37), Answer.UNDECIDED, 10, "give more images"),
        (comparison(2500, lost=38), Answer.DIFFERENT, 12, "sampler.arithmetic=float32"),
        (comparison(2500, hits=2000), Answer.UNDECIDED, 10, "recognises 2000 of 2500"),
        (comparison(2500, hits=0), Answer.UNDECIDED, 10, "recognises 0 of 2500"),
        (comparison(2500, pixels=0), Answer.UNDECIDED, 10, "float16 was not tried"),
        (comparison(2500, hits=0, gained=38), Answer.DIFFERENT, 12, "sampler.arithmetic=float32"),
    ],
)
def test_the_rule(found: Comparison, answer: Answer, code: int, reason: str) -> None:
    """Bounds against the limit; nothing passes where nothing could have changed."""
    assert round(100 * LIMIT, 9) == 1  # the percentage in --help and docs
    assert (found.answer, found.answer.code) == (answer, code)
    assert reason in found.reason
    assert found.text().splitlines()[-1] == f"{answer.value}: {found.reason}"


def test_no_image_is_no_comparison(tmp_path: Path) -> None:
    """One sentence, before anything is loaded."""
    base: Any = resolve_base("micro")
    with pytest.raises(UserError, match="0 images cannot be compared"):
        compare(
            None,  # type: ignore[arg-type]
            base,
            CELEBRITY,
            judge_by_name(CELEBRITY.judges[0]),
            sampler=sampler_for(base),
            images=0,
        )


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The command's exit code."""
    monkeypatch.setattr(sys, "argv", ["resurgence", "validate", "--arithmetic", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    code = left.value.code
    return code if isinstance(code, int) else 0


def test_the_microworld_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six images three times: too few to pass; files name command, digests, and what computed the images."""
    store, out = tmp_path / "store", tmp_path / "out"
    given = ("--images=6", "--set=sampler.batch=4", f"--store={store}", f"--to={out}", "--device=cpu")
    assert run(monkeypatch, *given) == 10
    text = capsys.readouterr().out
    assert "UNDECIDED" in text and resolve_base("micro").digest in text
    assert (out / "arithmetic.txt").read_text(encoding="utf-8").startswith("$ resurgence validate --arithmetic")
    with (out / "arithmetic.csv").open(encoding="utf-8") as file:
        batch, half = csv.DictReader(file)
    assert (batch["way"], half["way"]) == ("float32, batch 2", "float16, batch 4")
    assert half["drawn_with"].endswith("float16 by plain modules") and "float16" not in batch["drawn_with"]
    assert int(half["images"]) == 6 and int(half["images_with_other_pixels"]) > 0
    assert float(half["high"]) > LIMIT
    images = [one for one in Store(store).ls() if one.kind == "images"]
    assert [one.facts["arithmetic"] for one in images].count("float16") == 1 and len(images) == 3
    assert run(monkeypatch, "--task=nobody") == 4
