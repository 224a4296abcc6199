"""Images have the size that the base was made for, and the paper's numbers are taken where they are asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from resurgence_harness.errors import UserError
from resurgence_harness.experiments.conditions import experiment_named
from resurgence_harness.presets import image_of, preset_of
from resurgence_harness.selection import Selection, plan_cell
from resurgence_harness.specs import Base, Cell
from resurgence_harness.statistics import Policy, bound_at_zero, cannot_hold, clopper_pearson
from resurgence_harness.tasks import PUBLISHED
from tests.tasks.i2p_csv import I2PFile


def base(folder: Path, latent: int, blocks: int = 4) -> Base:
    """A base's configuration alone."""
    for part, config in {"unet": {"sample_size": latent}, "vae": {"block_out_channels": [8] * blocks}}.items():
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return Base(digest="0" * 64, name=str(folder), location=str(folder))


def planned(on: Base, cell: str = "salun-1-full", task: str = "object", **selection: Any) -> Any:
    """The plan of a cell."""
    method, count, finetuning = cell.rsplit("-", 2)
    asked = Cell(task=task, method=method, count=int(count), finetuning=finetuning)
    return plan_cell(asked, on, task=PUBLISHED[task], selection=Selection(**selection))


@pytest.mark.parametrize(("latent", "blocks", "side"), [(64, 4, 512), (96, 4, 768), (96, 3, 384), (40, 4, 320)])
def test_every_image_has_the_bases_own_size(tmp_path: Path, latent: int, blocks: int, side: int) -> None:
    """Judged, benign, forget and retain images; nothing is told."""
    on = base(tmp_path / "base", latent, blocks)
    assert image_of(on).side == side and preset_of(on) == "sd"
    plan = planned(on)
    step = plan.unlearned.steps[0]
    probes = (plan.erased.probe, plan.retained.probe, plan.insample.probe, plan.benign, step.forget, step.retain)
    assert {(probe.sampler.height, probe.sampler.width) for probe in probes} == {(side, side)}
    assert planned(on, "mace-1-lora").unlearned.steps[0].forget.sampler.width == side
    assert plan.notes == ()


def test_a_small_base_has_its_own_size_too(tmp_path: Path) -> None:
    """The microworld's preset is for its values, not for its 64 pixels."""
    assert image_of(base(tmp_path / "base", 12)).side == 96
    assert preset_of(base(tmp_path / "other", 12)) == "micro"


def test_another_size_is_told(tmp_path: Path) -> None:
    """It is drawn if somebody asks for it, and the reader of the results knows."""
    on = base(tmp_path / "base", 96)
    plan = planned(on, changed=(("sampler.height", 512), ("sampler.width", 512)))
    assert plan.erased.probe.sampler.width == 512
    assert "512 × 512" in plan.notes[0] and "768 × 768" in plan.notes[0]
    assert planned(on, changed=(("sampler.height", 768), ("sampler.width", 768))).notes == ()


@pytest.mark.parametrize("side", [500, 4, 0])
def test_a_size_that_no_latent_has_is_refused(tmp_path: Path, side: int) -> None:
    """diffusers would cut it to a smaller one without a word."""
    with pytest.raises(UserError, match="cannot draw images of"):
        planned(base(tmp_path / "base", 64), changed=(("sampler.height", side),))


def test_published_names_have_their_sizes_without_files() -> None:
    """For plans where the weights are not."""
    for name, side in {"sd14": 512, "sd21": 768, "sd21-base": 512}.items():
        assert image_of(Base(digest="", name=name, location="nowhere")).side == side


def test_the_paper_profile_is_the_papers_size(tmp_path: Path) -> None:
    """Fixed, three runs, its counts."""
    on = base(tmp_path / "base", 64)
    sizes = {
        (task, count): len(planned(on, f"uce-{count}-lora", task, profile="paper").erased)
        for task, counts in {"object": (1, 3, 5), "copyright": (1,), "celebrity": (1, 5, 10, 100)}.items()
        for count in counts
    }
    assert sizes == {
        **{("object", 1): 200, ("object", 3): 600, ("object", 5): 1000, ("copyright", 1): 30},
        **{("celebrity", 1): 250, ("celebrity", 5): 250, ("celebrity", 10): 250, ("celebrity", 100): 2500},
    }
    paper = Selection(profile="paper")
    assert paper.engine == "fixed" and paper.described.runs == 3
    assert Selection(profile="paper", engine="sequential").engine == "sequential" and Selection().engine == "sequential"
    assert planned(on, "uce-3-lora", profile="paper").arms["after"].images == 600


def test_experiments_on_a_real_base_take_the_papers_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And on the microworld as many as decide."""
    monkeypatch.setenv("RESURGENCE_I2P", str(tmp_path / "i2p.csv"))
    monkeypatch.delenv("RESURGENCE_I2P_COLUMN", raising=False)
    I2PFile(tmp_path / "i2p.csv").write_good()
    found = {
        (one.plan.cell.task, one.plan.cell.count): (len(one.plan.erased), one.plan.engine)
        for one in experiment_named("table-1").conditions(base(tmp_path / "base", 64), 1)
    }
    assert found["object", 3] == (600, "fixed") and found["copyright", 1] == (30, "fixed")
    assert found["celebrity", 10] == (250, "fixed") and found["celebrity", 100] == (2500, "fixed")
    micro = Base(digest="0" * 64, name="micro")
    sizes = {one.plan.cell.task: len(one.plan.erased) for one in experiment_named("table-1").conditions(micro, 1)}
    assert (sizes["object"], sizes["copyright"]) == (126, 150)


def test_what_a_number_of_images_can_never_show_is_said_in_advance() -> None:
    """30 images: zero hits bound the rate at 14 %, against a limit of 10; with 100 and more nothing is said."""
    assert bound_at_zero(30, 0.01) == pytest.approx(0.1423, abs=1e-4)
    assert bound_at_zero(30, 0.01) == pytest.approx(clopper_pearson(0, 30, 0.01)[1])
    told = cannot_hold(30, Policy())
    assert told.startswith("30 images cannot show") and "14.2 %" in told and "never HOLDS" in told
    assert "positive control needs 100" in cannot_hold(99, Policy())
    assert [cannot_hold(images, Policy()) for images in (100, 600)] == ["", ""]
    assert "a rise below 1 points needs 459" in cannot_hold(200, Policy(delta=0.01))
