"""Every path at Stable Diffusion's size, at a very small size: benchmarks/sd_paths.py as it is, killed and resumed."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.random_bases import random_base
from benchmarks.sd_path import ROOT
from benchmarks.sd_paths import COLUMNS, CellPath, Table, changes, main, outcome
from resurgence_harness.presets import SEVEN, parse_change
from resurgence_harness.selection import Selection
from resurgence_harness.storing import Store
from tests.warm_python import python

SMALL = ("--tiny", "--device", "cpu", "--task", "object", "--updates", "2", "--sampler-steps", "1")
LORA, FULL = (CellPath("sd14-tiny", "object", "uce", finetuning) for finetuning in ("lora", "full"))


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a csv; none where it is not there yet."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def killed_after_a_row(to: Path, work: Path) -> dict[str, str]:
    """Run two cells by the command line and kill everything as soon as the first has its row."""
    command = [sys.executable, "-m", "benchmarks.sd_paths", *SMALL, "--method", "uce"]
    with (work.parent / "killed.txt").open("wb") as log:
        run = subprocess.Popen(
            [*command, "--out", str(to), "--work", str(work)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            until = time.monotonic() + 600
            while not (rows := read(to)) and run.poll() is None and time.monotonic() < until:
                time.sleep(0.1)
        finally:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
    assert len(rows) == 1, (work.parent / "killed.txt").read_text(encoding="utf-8")
    return rows[0]


@pytest.mark.slow
def test_cells_go_on_after_a_kill_and_a_crash_is_a_row_that_stops_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two cells run once each although the second is killed once; between them one diverges."""
    to, work = tmp_path / "paths.csv", tmp_path / "work"
    first = killed_after_a_row(to, work)
    monkeypatch.setattr(sys, "executable", python())  # forks of the warm server are not in the group that was killed
    assert CellPath(*(first[name] for name in CellPath._fields)) == LORA

    diverging = ("--method", "esd,uce", "--finetuning", "full", "--set", "esd.learning_rate=1e30")
    assert main([*SMALL, *diverging, "--out", str(to), "--work", str(work)]) == 12
    before, crashed, after = read(to)
    assert before == first, "a finished cell was run again"
    assert (crashed["method"], crashed["verdict"], crashed["exit code"]) == ("esd", "", "12")
    assert "diverged at step 2 of 2" in crashed["why no verdict"]
    assert crashed["recipe seconds"] == "", "of what was not made nothing is reckoned"

    assert (after["method"], after["finetuning"]) == ("uce", "full")
    for row in (first, after):
        assert (row["verdict"], row["exit code"], row["why no verdict"]) == ("UNDECIDED", "10", "")
        assert (row["unlearn updates"], row["finetune updates"]) == ("1", "2")
        assert row["finetune recipe updates"] == "1000"
        assert int(row["judged images"]) > 30 and float(row["sample seconds"]) > 0 and float(row["judge seconds"]) > 0
        assert float(row["recipe seconds"]) > 20 * float(row["finetune seconds"]), "1,000 updates, and 2 were made"
    kinds = {artifact.kind for artifact in Store(work / "sd14-tiny" / "store").entries()}
    assert "images" in kinds and "checkpoint" not in kinds, "weights are deleted after their cell"

    capsys.readouterr()
    assert main([*SMALL, "--method", "uce", "--out", str(to), "--work", str(work)]) == 0, "all there: nothing is run"
    assert capsys.readouterr().out == "2 of 2 cells have a row.\n"
    assert main([*SMALL, "--method", "uce,mace", "--minutes", "0", "--out", str(to), "--work", str(work)]) == 11
    assert "The time is up: 2 cells are left." in capsys.readouterr().out
    assert read(to) == [before, crashed, after]


@pytest.mark.parametrize(
    ("told", "code", "said"),
    [
        ({}, 0, ""),
        ({"verdict": "VIOLATED", "exit code": 1}, 0, ""),
        ({"verdict": "HOLDS", "exit code": 0}, 1, "sd14-tiny/object/uce/lora is HOLDS"),
        ({"verdict": "KNOWN", "exit code": 0}, 1, "sd14-tiny/object/uce/lora is KNOWN"),
        ({"exit code": 0}, 12, "its run ended with 0"),
        ({"verdict": "", "why no verdict": "CUDA out of memory"}, 12, "no verdict: CUDA out of memory"),
        ({"peak GiB": "37.3"}, 1, "took 37.3 GiB"),
        ({"peak GiB": "37.2"}, 0, ""),
    ],
)
def test_no_row_passes_that_random_weights_cannot_give(
    told: dict[str, object], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """HOLDS, KNOWN, a wrong exit code, no verdict, and more than 40 · 10⁹ bytes are named and set the exit code."""
    table = Table(tmp_path / "paths.csv")
    usual = dict.fromkeys(COLUMNS, "") | LORA._asdict() | {"verdict": "UNDECIDED", "exit code": 10}
    table.put(LORA, usual | told)
    again = Table(tmp_path / "paths.csv")
    assert outcome([LORA], again, most_memory=40) == code
    assert said in capsys.readouterr().out
    assert outcome([LORA, FULL], again, most_memory=40) == (code or 11)


def test_a_table_of_other_columns_is_not_overwritten(tmp_path: Path) -> None:
    """Another csv by that name is left as it is."""
    (tmp_path / "paths.csv").write_text("stage,seconds\nbase,1\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="has other columns than this script writes"):
        Table(tmp_path / "paths.csv")


def test_what_is_reduced_is_a_setting_of_each_trained_method() -> None:
    """Every training of the seven methods and both fine-tunings is cut to the updates asked for, batches are not."""
    changed = dict(map(parse_change, changes("copyright", updates=20, sampler_steps=5, tiny=False)))
    Selection(changed=tuple(changed.items()))
    assert {f"{method}.iterations" for method in SEVEN if method != "uce"} <= changed.keys()
    assert {changed[f"{method}.iterations"] for method in SEVEN if method != "uce"} == {20}
    assert changed["lora.steps"] == changed["full.steps"] == 20
    assert not [key for key in changed if key.endswith((".batch", ".rank", ".learning_rate"))]


@pytest.mark.parametrize(
    ("name", "heads", "padding", "prediction"),
    [
        ("sd14", 4, "<|endoftext|>", "epsilon"),
        ("sd21-base", [2, 4, 6, 6], "!", "epsilon"),
        ("sd21", [2, 4, 6, 6], "!", "v_prediction"),
    ],
)
def test_a_tiny_base_keeps_what_tells_the_published_ones_apart(
    name: str, heads: object, padding: str, prediction: str
) -> None:
    """Heads by level, linear projections, padding and what is predicted are the published base's."""
    model = random_base(name, "cpu", tiny=True)
    config = model.unet.config
    assert list(config.attention_head_dim) == heads if isinstance(heads, list) else config.attention_head_dim == heads
    assert config.use_linear_projection == (name != "sd14")
    assert (model.tokenizer.pad_token, model.prediction_type) == (padding, prediction)
    assert model.text_encoder.config.hidden_act == ("quick_gelu" if name == "sd14" else "gelu")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "unet", "text_encoder", "side"),
    [
        ("sd14", 859_520_964, 123_060_480, 512),
        ("sd21-base", 865_910_724, 340_387_840, 512),
        ("sd21", 865_910_724, 340_387_840, 768),
    ],
)
def test_a_base_has_the_published_number_of_parameters(name: str, unet: int, text_encoder: int, side: int) -> None:
    """The parts have as many numbers as the published files; without memory for them."""
    model = random_base(name, "meta")
    assert sum(value.numel() for value in model.unet.parameters()) == unet
    assert sum(value.numel() for value in model.text_encoder.parameters()) == text_encoder
    assert sum(value.numel() for value in model.vae.parameters()) == 83_653_863
    assert model.sample_size == side
