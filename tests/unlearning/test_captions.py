"""General captions hold a model as the published weights mean it, however many somebody has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.model import StableDiffusion, tensors
from resurgence_harness.errors import SpecError, UserError
from resurgence_harness.specs import Concept
from resurgence_harness.storing import key
from resurgence_harness.unlearning import MACE, CaptionFile, CaptionSample, WholeImage
from resurgence_harness.unlearning.closed_form import COCO_CAPTIONS, general_moment
from tests.tiny import portraits, tiny_run

TEXTS = ("a photo of event", "a sketch")


def test_a_sample_stands_for_as_many_captions_as_it_says(model: StableDiffusion, tmp_path: Path) -> None:
    """The mean moment of its captions, so often; a file is its lines; all of COCO's are the authors' sum."""
    run = tiny_run(model)
    states = moves.encode_texts(model, TEXTS).double()
    total = torch.einsum("nld,nle->de", states, states)
    (tmp_path / "captions.txt").write_text("a photo of event\na sketch\n", encoding="utf-8")
    file = CaptionFile.of(tmp_path / "captions.txt")
    for captions in (TEXTS, file):
        found = general_moment(model, run, CaptionSample(captions=captions, stand_for=50))
        torch.testing.assert_close(found, total * 25)
    torch.testing.assert_close(general_moment(model, run, CaptionSample(captions=TEXTS, stand_for=2)), total)
    torch.testing.assert_close(general_moment(model, run, TEXTS), total)
    assert CaptionSample(captions=TEXTS).stand_for == COCO_CAPTIONS == 414_113 + 202_654


def test_captions_hold_what_they_speak_of(model: StableDiffusion) -> None:
    """The more they stand for, the less the matrices say of them is changed; none at all is another key."""
    step = MACE(
        concepts=(Concept(name="ada quill", kind="a person"),),
        forget=portraits(("ada quill",)),
        masks=WholeImage(),
        templates=("{}", "a photo of {}"),
        iterations=1,
        train_preserve_scale=1e-3,
        fuse_preserve_scale=1e-3,
        preserve_weight=0.0,
    )
    held = moves.encode_texts(model, TEXTS)
    name = "unet.up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"

    def moved(general: CaptionSample | tuple[str, ...]) -> float:
        changed = replace(step, general=general).apply(model, tiny_run(model))
        return float((held @ (tensors(changed)[name] - tensors(model)[name]).T).norm())

    none, few, many = (
        moved(general) for general in ((), CaptionSample(captions=TEXTS, stand_for=2), CaptionSample(captions=TEXTS))
    )
    assert many < 0.2 * few < 0.2 * none
    others = [(), TEXTS, CaptionSample(captions=TEXTS), CaptionSample(captions=TEXTS, stand_for=2)]
    assert len({key("step", replace(step, general=general)) for general in others}) == 4


def test_nothing_cannot_stand_for_anything(model: StableDiffusion, tmp_path: Path) -> None:
    """An empty list or file would hold nothing under the name of something."""
    with pytest.raises(SpecError, match="is empty"):
        CaptionSample(captions=())
    with pytest.raises(SpecError, match="stand_for is below 1"):
        CaptionSample(captions=TEXTS, stand_for=0)
    (tmp_path / "captions.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(UserError, match="There is no caption"):
        general_moment(model, tiny_run(model), CaptionSample(captions=CaptionFile.of(tmp_path / "captions.txt")))


def test_a_long_caption_of_a_file_is_cut_and_one_in_a_spec_is_refused(model: StableDiffusion, tmp_path: Path) -> None:
    """COCO has a few that no text encoder reads to their end."""
    long = "a photo " * 30
    (tmp_path / "captions.txt").write_text(long, encoding="utf-8")
    found = general_moment(model, tiny_run(model), CaptionFile.of(tmp_path / "captions.txt"))
    assert bool(torch.isfinite(found).all())
    with pytest.raises(UserError, match="does not fit"):
        general_moment(model, tiny_run(model), (long,))
