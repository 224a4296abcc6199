"""DoRA, LoRA of the text encoder, DreamBooth and the loss's options, by their papers' equations and other libraries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.examples import noised
from resurgence_harness.diffusion.model import StableDiffusion, difference, tensors
from resurgence_harness.errors import SpecError
from resurgence_harness.finetuning import DreamBooth, LoRATextEncoder, MinSNR, Unweighted
from resurgence_harness.finetuning import contract as contract_module
from resurgence_harness.finetuning.benign import examples
from resurgence_harness.finetuning.contract import Prior, denoising_losses
from resurgence_harness.finetuning.dora import decomposed
from resurgence_harness.finetuning.lora import ADAPTER, add_adapter, add_text_adapter
from resurgence_harness.finetuning.lora_text_encoder import merged, with_own_text_encoder
from resurgence_harness.storing.keys import canonical, key
from tests.finetuning.test_contract import DATA, STEPS
from tests.tiny import tiny_run

pytestmark = pytest.mark.slow

Load = Callable[[str], StableDiffusion]
TEXTS = ["ada quill", "cleo marsh"]


def predictions(model: StableDiffusion) -> torch.Tensor:
    """What the model says on a fixed batch, with its own text states."""
    x = moves.initial_noise(model, [0, 1], height=64, width=64)
    with torch.no_grad():
        return moves.predict(model, x, 500, moves.encode_texts(model, TEXTS))


def trained_a_little(layers: dict[str, Any]) -> None:
    """B ≠ 0, and other magnitudes."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in layers.values():
            b = layer.lora_B[ADAPTER].weight
            b.copy_(0.1 * torch.randn(b.shape, generator=generator))
            for magnitude in layer.lora_magnitude_vector.values():
                magnitude.weight.mul_(1 + 0.2 * torch.rand(magnitude.weight.shape, generator=generator))


def test_a_dora_is_its_papers_equation_and_pefts_layer(model: StableDiffusion) -> None:
    """Nothing at the start; then m (W + BA) / ‖W + BA‖ by row, which answers as peft's own layers do."""
    adapted = model.copy()
    layers = add_adapter(adapted, rank=4, seed=0, decomposed=True)
    assert difference(decomposed(model, layers), model) == {}
    trainable = [name for name, value in adapted.unet.named_parameters() if value.requires_grad]
    assert len(layers) == 128 and len(trainable) == 3 * 128
    trained_a_little(layers)

    plain = decomposed(model, layers)

    torch.testing.assert_close(predictions(plain), predictions(adapted), atol=1e-4, rtol=1e-4)
    for name, layer in layers.items():
        a, b = layer.lora_A[ADAPTER].weight.double(), layer.lora_B[ADAPTER].weight.double()
        whole = tensors(model)[name].double() + b @ a
        m = layer.lora_magnitude_vector[ADAPTER].weight.double()
        expected = torch.stack([m[row] * whole[row] / whole[row].square().sum().sqrt() for row in range(len(whole))])
        torch.testing.assert_close(tensors(plain)[name].double(), expected, atol=1e-5, rtol=1e-5)
    assert (predictions(plain) - predictions(model)).abs().max() > 1e-2


def test_a_text_adapter_is_merged_as_peft_answers(model: StableDiffusion) -> None:
    """q, k, v and out of both layers of the text encoder; text states of the merged encoder equal the adapted one's."""
    adapted = with_own_text_encoder(model)
    layers = add_text_adapter(adapted, rank=4, seed=0)
    assert len(layers) == 8 and all(".self_attn." in name for name in layers)
    trained_a_little(layers)

    plain = merged(model, layers)

    states = moves.encode_texts(plain, TEXTS)
    torch.testing.assert_close(states, moves.encode_texts(adapted, TEXTS), atol=1e-5, rtol=1e-5)
    assert (states - moves.encode_texts(model, TEXTS)).abs().max() > 1e-2


def test_both_parts_are_trained_together(model: StableDiffusion) -> None:
    """U-Net and text encoder move, and a pass of one image makes the same model as one of the whole batch."""
    step = STEPS["lora-te"]
    assert isinstance(step, LoRATextEncoder)
    moved = difference(step.apply(model, tiny_run(model)), model)
    parts = {name.split(".")[0] for name in moved}
    assert parts == {"unet", "text_encoder"} and len(moved) == 128 + 8


def test_passes_add_up_to_the_batch(model: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch in four passes has the loss of one in a single pass, weights, prior and newly encoded texts included."""
    data = examples(model, tiny_run(model), DATA)
    states = moves.encode_texts(model, DATA.captions)
    options: dict[str, Any] = {"weighting": MinSNR(), "offset": 0.1, "encode": lambda rows: states[rows]}

    def terms() -> list[torch.Tensor]:
        prior = Prior(data, 0.5, seed=2)
        return list(next(denoising_losses(model, data, batch=4, generator=_seeded(), prior=prior, **options)))

    with torch.no_grad():
        whole = terms()
        monkeypatch.setattr(contract_module, "passes", lambda rows, _: [slice(low, low + 1) for low in range(rows)])
        single = terms()
    assert len(whole) == 2 and len(single) == 8
    torch.testing.assert_close(sum(single), sum(whole))


@pytest.mark.parametrize("style", ["v1", "v2"])
def test_min_snr_is_that_of_diffusers(load: Load, style: str) -> None:
    """The weights of train_text_to_image.py from diffusers' compute_snr, at every timestep."""
    from diffusers.training_utils import compute_snr  # takes seconds, which collecting must not

    model, t, gamma = load(style), torch.arange(1000), 5.0
    snr = compute_snr(model.scheduler, t)
    expected = torch.stack([snr, gamma * torch.ones_like(t)], dim=1).min(dim=1)[0]
    expected = expected / (snr if style == "v1" else snr + 1)

    found = MinSNR(gamma=gamma).at(model, t)

    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert bool((found < 0.5).any()) and bool((found > 0.5).any())


def test_min_snr_weighs_each_image_by_its_own_timestep(model: StableDiffusion) -> None:
    """The mean over the batch of weight times error."""
    from diffusers.training_utils import compute_snr  # takes seconds, which collecting must not

    data = examples(model, tiny_run(model), DATA)
    loss = next(denoising_losses(model, data, batch=4, generator=_seeded(), weighting=MinSNR()))

    generator = _seeded()
    rows = torch.randperm(6, generator=generator)[:4]
    seen = noised(model, data, rows, generator=generator)
    errors = ((moves.predict(model, seen.x_t, seen.t, seen.states) - seen.aim) ** 2).mean(dim=(1, 2, 3))
    snr = compute_snr(model.scheduler, seen.t)
    torch.testing.assert_close(loss, (errors * snr.clamp(max=5.0) / snr).mean())


def test_a_noise_offset_is_shared_by_the_positions_of_a_channel(model: StableDiffusion) -> None:
    """It is added to the noise, so to the target, and leaves every other random number as it was."""
    data = examples(model, tiny_run(model), DATA)
    rows = torch.arange(4)
    plain = noised(model, data, rows, generator=_seeded())
    moved = noised(model, data, rows, generator=_seeded(), offset=0.1)

    shift = moved.aim - plain.aim
    assert torch.equal(moved.t, plain.t)
    torch.testing.assert_close(shift, shift[:, :, :1, :1].expand_as(shift), atol=1e-6, rtol=0)
    s = (1 - model.scheduler.alphas_cumprod[plain.t]).sqrt().view(-1, 1, 1, 1)
    torch.testing.assert_close(moved.x_t - plain.x_t, s * shift, atol=1e-5, rtol=1e-4)
    assert 0.03 < shift[:, :, 0, 0].std() < 0.3


def test_the_options_are_off_and_in_the_key_only_if_they_are_on() -> None:
    """The canonical JSON of a step without them is that of before they existed."""
    step = STEPS["lora"]
    assert not {"weighting", "noise_offset"} & canonical(step).keys()
    keys = {key("step", step)}
    for other in ({"weighting": MinSNR()}, {"weighting": MinSNR(gamma=1.0)}, {"noise_offset": 0.1}):
        keys.add(key("step", replace(step, **other)))
    assert len(keys) == 4 and key("step", replace(step, weighting=Unweighted(), noise_offset=0.0)) in keys
    for bad in ({"noise_offset": -0.1}, {"noise_offset": float("nan")}):
        with pytest.raises(SpecError, match=r"LoRA\.noise_offset must be"):
            replace(step, **bad)
    with pytest.raises(SpecError, match=r"MinSNR\.gamma must be"):
        MinSNR(gamma=0.0)


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def test_dreambooth_adds_the_weighted_loss_of_class_images(model: StableDiffusion) -> None:
    """L = subject + λ · class; min-SNR weighs the subject's images alone; a single prompt replaces all captions."""
    data, weight = examples(model, tiny_run(model), DATA), 0.7
    alone = next(denoising_losses(model, data, batch=2, generator=_seeded(), weighting=MinSNR()))
    further = next(denoising_losses(model, data, batch=2, generator=torch.Generator().manual_seed(9)))
    terms = next(
        denoising_losses(
            model, data, batch=2, generator=_seeded(), weighting=MinSNR(), prior=Prior(data, weight, seed=9)
        )
    )
    torch.testing.assert_close(sum(terms), alone + weight * further)

    captioned = contract_module.recaptioned(model, data, "a photo of a person")
    assert len(captioned.states) == 1 and captioned.text.tolist() == [0] * 6
    assert torch.equal(captioned.states.states, moves.encode_texts(model, ["a photo of a person"]))


def test_class_images_are_drawn_by_the_model_before(model: StableDiffusion) -> None:
    """Not by the base, nor at all without a prior; their latents belong to that model."""
    step = STEPS["dreambooth"]
    assert isinstance(step, DreamBooth)
    asked: list[Any] = []
    draw = tiny_run(model).parent_images

    def parent_images(probe: Any) -> Any:
        asked.append(probe)
        return draw(probe)

    cached: dict[str, Any] = {}

    def keep(kind: str, spec: object, build: Callable[[], Any]) -> Any:
        cached[key(kind, spec)] = spec
        return build()

    run = {"parent_images": parent_images, "cached": keep}
    replace(step, steps=1).apply(model, tiny_run(model, parent_digest="one", **run))
    first = set(cached)
    replace(step, steps=1).apply(model, tiny_run(model, parent_digest="another", **run))
    assert asked == [step.prior] * 2 and len(cached) == len(first) + 1
    replace(step, steps=1, prior_weight=0.0).apply(model, tiny_run(model, **run))
    assert len(asked) == 2


@pytest.mark.parametrize("setting", ["instance_prompt", "class_prompt"])
def test_dreambooths_prompts_must_not_name_what_was_erased(setting: str) -> None:
    """As a caption must not."""
    with pytest.raises(SpecError, match=f'DreamBooth\'s {setting.replace("_", " ")} has the erased name "ada quill"'):
        DreamBooth(data=DATA, **{setting: "a photo of Ada Quill"})
    with pytest.raises(SpecError, match="empty class prompt"):
        DreamBooth(data=DATA, class_prompt=" ")
