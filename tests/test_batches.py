"""sampler.batch=auto: the number for a card, from measured peaks; one number for every process of a run."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import pytest

from resurgence_harness.errors import UserError
from resurgence_harness.presets.batches import CONTEXT, ON_CPU, SWAPPED, batch_for, gpu_memory, needed, resolution_note

ROOT = Path(__file__).parents[1]
SD = {"height": 512, "width": 512}


def peaks(way: str) -> dict[int, float]:
    """Measured peak GiB by batch, of reports/performance/half.csv."""
    with (ROOT / "reports/performance/half.csv").open(encoding="utf-8") as file:
        rows = {row["what"]: row["median"] for row in csv.DictReader(file)}
    start, end = f"this project, {way}, batch ", ", peak memory"
    return {
        int(what[len(start) : -len(end)]): float(n)
        for what, n in rows.items()
        if what.startswith(start) and end in what
    }


@pytest.mark.parametrize(("way", "batches"), [("float16", {8, 16, 32, 64}), ("float32", {8})])
def test_the_constants_are_those_measured(way: Any, batches: set[int]) -> None:
    """What a run needs is the benchmark's peak, CUDA's own memory and the second U-Net; at most 2 % less, 5 % more."""
    measured = peaks(way)
    assert measured.keys() == batches
    for batch, peak in measured.items():
        surely = peak + CONTEXT + SWAPPED
        assert 0.98 * surely <= needed(batch, **SD, arithmetic=way) <= 1.05 * surely


@pytest.mark.parametrize(
    ("memory", "float16", "float32"), [(8, 1, 1), (15, 8, 4), (16, 8, 4), (24, 32, 8), (80, 32, 32), (141, 32, 32)]
)
def test_cards(memory: float, float16: int, float32: int) -> None:
    """GiB → images at once; a 16 GB card may report 15."""
    assert batch_for(memory, **SD, arithmetic="float16") == float16
    assert batch_for(memory, **SD, arithmetic="float32") == float32


def test_larger_images_are_fewer_and_a_cpu_is_no_card() -> None:
    """768 pixels are 2.25 times as many."""
    assert batch_for(16, height=768, width=768, arithmetic="float16") == 4
    assert batch_for(None, **SD, arithmetic="float16") == ON_CPU


def test_a_card_that_is_too_small_is_said() -> None:
    """The number is printed; and that even one image should not fit."""
    note = resolution_note(1, 8.0, **SD, arithmetic="float16")
    assert note.startswith("sampler.batch=auto is 1 on this machine") and "memory may run out" in note
    assert "run out" not in resolution_note(8, 16.0, **SD, arithmetic="float16")


def test_the_smallest_card_decides_and_workers_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cards, three workers: two of them on one card. What nvidia-smi does not say is one sentence."""
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\necho "$@" >> "$(dirname "$0")/calls"\necho 81559\necho 24564\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert gpu_memory(("0", "1")) == pytest.approx(24564 / 1024)
    assert gpu_memory(("0", "1"), workers=3) == pytest.approx(24564 / 1024 / 2)
    assert "-i 0,1" in (tmp_path / "calls").read_text()
    program.write_text("#!/bin/sh\necho no devices >&2\nexit 9\n")
    with pytest.raises(UserError, match="memory of the GPU is unknown"):
        gpu_memory(("0",))
