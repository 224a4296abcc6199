"""The authors' fine-tuning recipe: a rate that falls along a cosine, mirrored images, large batches in passes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from resurgence_harness.diffusion import training
from resurgence_harness.diffusion.examples import drawn_examples
from resurgence_harness.diffusion.model import StableDiffusion, difference, tensors
from resurgence_harness.errors import SpecError
from resurgence_harness.finetuning import BenignSet, Constant, Cosine, Full, LoRA, NoFlip, RandomFlip, contract
from resurgence_harness.finetuning.benign import examples
from resurgence_harness.finetuning.contract import denoising_losses
from resurgence_harness.specs import Probe, Prompt, Sampler
from resurgence_harness.storing import key
from tests.tiny import tiny_run

pytestmark = pytest.mark.slow

DATA = BenignSet(
    probe=Probe(
        prompts=(Prompt(text="a portrait of bram quill", concept="bram quill"),),
        seeds=(1, 2, 3, 4),
        sampler=Sampler(steps=2, batch=4),
    )
)
STEP = Full(data=DATA, steps=4, batch=4, learning_rate=1e-3)


def test_fields_that_came_later_are_absent_from_a_key_at_their_defaults() -> None:
    """So what was stored before is found, and every other value is another question."""
    assert key("step", STEP) == key("step", replace(STEP, schedule=Constant(), flip=NoFlip()))
    others = [
        replace(STEP, schedule=Cosine()),
        replace(STEP, flip=RandomFlip()),
        replace(STEP, schedule=Cosine(over=9)),
    ]
    assert len({key("step", step) for step in (STEP, *others)}) == 4


def test_the_cosine_is_diffusers_own() -> None:
    """Without warm-up, at every step of a run."""
    from diffusers.optimization import get_cosine_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=0, num_training_steps=10)
    for done in range(10):
        assert Cosine().factor(done, 10) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        theirs.step()
    assert Cosine().factor(10, 10) == pytest.approx(0, abs=1e-12) == Cosine().factor(11, 10)
    assert Constant().factor(7, 10) == 1
    with pytest.raises(SpecError, match=r"Cosine\.over"):
        Cosine(over=-1)


def test_the_rate_of_each_update_is_the_schedules(model: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Update k + 1 is made at the factor after k."""
    rates: list[float] = []
    plain = torch.optim.AdamW.step

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    replace(STEP, schedule=Cosine()).apply(model, tiny_run(model))
    assert rates == pytest.approx([1e-3 * 0.5 * (1 + math.cos(math.pi * k / 4)) for k in range(4)])


@pytest.mark.parametrize("kind", [Full, LoRA])
def test_a_model_on_the_way_is_a_training_that_was_stopped(model: StableDiffusion, kind: type[Any]) -> None:
    """The rate of a stopped training runs as it would have run, and images are mirrored alike."""
    step = kind(data=DATA, steps=4, batch=2, learning_rate=1e-3, schedule=Cosine(), flip=RandomFlip(), save_at=(2,))
    saved: dict[int, StableDiffusion] = {}
    end = step.apply(model, tiny_run(model, save=saved.__setitem__))
    stopped = step.at(2)
    assert stopped.schedule == Cosine(over=4) and stopped.at(1).schedule == Cosine(over=4)
    assert step.at(4) == step and key("step", step.at(4)) == key("step", step)
    assert difference(saved[2], stopped.apply(model, tiny_run(model))) == {}
    assert difference(end, saved[2])


def test_mirrored_moments_are_those_of_mirrored_images(model: StableDiffusion) -> None:
    """Encoded again, not the latents turned; behind the images as they were drawn, with the same texts."""
    run = tiny_run(model)
    images, _ = run.images(DATA.probe)
    data = drawn_examples(model, run, DATA.probe, mirrored=True)
    plain = drawn_examples(model, run, DATA.probe)
    from resurgence_harness.diffusion import moves

    turned, _ = moves.latent_moments(model, np.ascontiguousarray(images[:, :, ::-1]))
    assert torch.equal(data.mean[:4], plain.mean) and torch.equal(data.mean[4:], turned)
    assert not torch.equal(turned, plain.mean) and data.text.tolist() == [0] * 8
    assert len(data.states) == len(plain.states)


def test_half_of_the_images_are_met_mirrored_and_all_else_stays(
    model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Order, timesteps and noise are those of a training without a flip; every image is met in both ways."""
    rows: list[torch.Tensor] = []
    plain = contract.noised

    def noised(model: Any, data: Any, which: torch.Tensor, **options: Any) -> Any:
        rows.append(which)
        return plain(model, data, which, **options)

    monkeypatch.setattr(contract, "noised", noised)
    run = tiny_run(model)
    data, both = examples(model, run, DATA), examples(model, run, DATA, mirrored=True)
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    drawn = denoising_losses(model, data, batch=4, generator=generators[0])
    turned = denoising_losses(model, both, batch=4, generator=generators[1], sides=torch.Generator().manual_seed(4))
    for _ in range(12):
        next(drawn), next(turned)
    pairs = list(zip(rows[::2], rows[1::2], strict=True))
    assert all(torch.equal(one, other % 4) for one, other in pairs)
    sides = torch.cat([other // 4 for _, other in pairs])
    assert 12 <= int(sides.sum()) <= 36  # of 48
    assert set(torch.cat([other for _, other in pairs]).tolist()) == set(range(8))
    assert torch.equal(generators[0].get_state(), generators[1].get_state())


def test_a_large_batch_goes_through_in_passes_to_the_same_gradient(
    model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never more rows at once than a pass has; the loss and the gradient are those of the whole batch."""
    run = tiny_run(model)
    data = examples(model, run, DATA)
    seen: list[int] = []
    plain = contract.moves.predict

    def predict(model: Any, x_t: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(len(x_t))
        return plain(model, x_t, *rest)

    monkeypatch.setattr(contract.moves, "predict", predict)

    def slope() -> tuple[float, list[torch.Tensor]]:
        with torch.inference_mode(False), torch.enable_grad():
            changed = model.copy()
            changed.unet.requires_grad_(True)
            loss = next(denoising_losses(changed, data, batch=5, generator=torch.Generator().manual_seed(1)))
            value = 0.0
            for term in (loss,) if isinstance(loss, torch.Tensor) else loss:
                value += term.item()
                term.backward()
            return value, [p.grad for p in changed.unet.parameters() if p.grad is not None]

    whole = slope()
    assert seen == [5]
    seen.clear()
    monkeypatch.setattr(training, "PASS", 2 * 8 * 8)
    parts = slope()
    assert seen == [2, 2, 1]
    assert parts[0] == pytest.approx(whole[0], rel=1e-5)
    for ours, theirs in zip(parts[1], whole[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_the_authors_recipe_runs_whole(model: StableDiffusion) -> None:
    """Cosine and flip together train a LoRA; the facts count images, not orientations."""
    facts: dict[str, Any] = {}
    step = LoRA(data=DATA, steps=3, batch=2, schedule=Cosine(), flip=RandomFlip())
    changed = step.apply(model, tiny_run(model, record=facts.__setitem__))
    assert facts["images"] == 4 and facts["samples seen"] == 6
    assert 0 < len(difference(changed, model)) < len(tensors(model))
