"""What every fine-tuning promises, asked of all of them on both styles of model. A new one is one more row."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.diffusion.run import Run
from resurgence_harness.errors import BuildError, SpecError
from resurgence_harness.finetuning import (
    FINETUNINGS,
    BenignSet,
    CrossAttentionOnly,
    DoRA,
    DreamBooth,
    FineTuning,
    Full,
    LoRA,
    LoRATextEncoder,
    benign_losses,
    held_out,
)
from resurgence_harness.finetuning.benign import examples
from resurgence_harness.finetuning.contract import denoising_losses
from resurgence_harness.finetuning.dreambooth import PRIOR_ORDER, class_examples
from resurgence_harness.specs import Probe, Prompt, Sampler
from resurgence_harness.storing.keys import key
from resurgence_harness.testing import check_finetuning
from resurgence_harness.testing.steps import check_step
from tests.tiny import tiny_run

pytestmark = pytest.mark.slow

Load = Callable[[str], StableDiffusion]

NAMES = ("bram quill", "cleo marsh")
DATA = BenignSet(
    probe=Probe(
        prompts=tuple(Prompt(text=f"a portrait of {name}", concept=name) for name in NAMES),
        seeds=(1, 2, 3),
        sampler=Sampler(steps=2, batch=6),
    ),
    forbidden=("ada quill",),
)
STEPS: dict[str, FineTuning] = {
    "lora": LoRA(data=DATA, steps=3, batch=4, learning_rate=1e-3),
    "full": Full(data=DATA, steps=3, batch=4, learning_rate=1e-3),
    "xattn": CrossAttentionOnly(data=DATA, steps=3, batch=4, learning_rate=1e-3),
    "dora": DoRA(data=DATA, steps=2, batch=2, learning_rate=1e-3),
    "lora-te": LoRATextEncoder(data=DATA, steps=2, batch=2, learning_rate=1e-3),
    "dreambooth": DreamBooth(
        data=DATA,
        steps=2,
        batch=2,
        learning_rate=1e-3,
        class_prompt="a photo of a person",
        class_images=3,
        sampler=DATA.probe.sampler,
    ),
}
"""Every fine-tuning, briefly."""
KEYS = {
    "lora": "3c6152b0c13f5b8e80150ec0a85341b14fa535303233024dfec8b3ddec4f7874",
    "full": "4a8d62b710d63fa5fd77014d265cb978fa0120fb3917b3f79bbff47bb7768e36",
    "xattn": "b734a56c7f56932732d1de14f39396f3156052385a59c8c0b0078e5735707007",
    "dora": "8c48fef4add7a8efb64dfd5607ae3e3b17f1b2d310765e971fc85f81e432aa2d",
    "lora-te": "cf5c0e30b309a41fcc74312247b9c9c454a23eb2ecf2377ebabc18ac3b17c5e8",
    "dreambooth": "310591d5ab6e57e22e1b21b1dea964ed32b2ad86ce375c11a5702936a98b95ce",
}
"""Keys of the specs above. A changed key makes every stored checkpoint unfindable: change it knowingly."""

_DRAWN: dict[tuple[int, Probe], Any] = {}


def drawn_once(model: StableDiffusion, **surroundings: Any) -> Run:
    """A Run whose images are drawn once for each model, which no test changes."""
    draw = tiny_run(model).images

    def images(probe: Probe) -> Any:
        place = id(model), probe
        if place not in _DRAWN:
            _DRAWN[place] = draw(probe)
        return _DRAWN[place]

    return tiny_run(model, **{"images": images, "parent_images": images, **surroundings})


every_step = pytest.mark.parametrize("word", STEPS)
both_styles = pytest.mark.parametrize("style", ["v1", "v2", "xl"])


def test_every_finetuning_has_a_row() -> None:
    """A fine-tuning that is exported is tested here, under its own word."""
    assert {word: type(step) for word, step in STEPS.items()} == FINETUNINGS


@every_step
def test_a_finetuning_keeps_the_contract(model: StableDiffusion, word: str) -> None:
    """The same bytes twice, only declared tensors, surroundings and grad mode left alone, a key of every field, and
    intermediate models as shorter runs make them."""
    check_finetuning(STEPS[word], model, run=drawn_once)


@pytest.mark.parametrize("style", ["v2", "xl"])
@every_step
def test_it_does_on_velocity_models_and_the_other_family(load: Load, word: str, style: str) -> None:
    """What every step promises."""
    check_step(STEPS[word], load(style), run=drawn_once)


@both_styles
@every_step
def test_the_first_loss_is_the_input_models(load: Load, style: str, word: str) -> None:
    """Before the first update the model is the input, so the loss is the input's on the same batch."""
    model, facts = load(style), dict[str, Any]()

    STEPS[word].apply(model, tiny_run(model, record=facts.__setitem__))

    generator = torch.Generator().manual_seed(STEPS[word].seed)
    with torch.no_grad():
        data, step = examples(model, tiny_run(model), DATA), STEPS[word]
        loss = next(denoising_losses(model, data, batch=step.batch, generator=generator))
        if isinstance(step, DreamBooth):
            assert step.prior is not None and len(step.prior) == facts["class images"] == 3
            order = torch.Generator().manual_seed(step.seed + PRIOR_ORDER)
            data = class_examples(model, tiny_run(model), step.prior)
            loss = loss + next(denoising_losses(model, data, batch=step.batch, generator=order))
    assert facts["loss"]["first"] == pytest.approx(loss.item(), rel=1e-5)
    assert facts["images"] == 6 and facts["samples seen"] == step.steps * step.batch


@every_step
def test_training_lowers_the_held_out_loss(model: StableDiffusion, word: str) -> None:
    """On benign images that it did not train on, most losses fall: the fine-tuning had an effect."""
    probe = replace(DATA.probe, seeds=(11, 12))
    run = tiny_run(model)
    latents, states = held_out(model, *run.images(probe))
    before = benign_losses(model, latents, states, seed=0)

    rate = 1e-2 if word in ("lora", "dora", "lora-te") else 1e-3
    trained = replace(STEPS[word], steps=25, learning_rate=rate).apply(model, run)

    after = benign_losses(trained, latents, states, seed=0)
    assert sum(b > a for b, a in zip(before, after, strict=True)) >= 3
    assert sum(after) < sum(before)


@every_step
def test_a_spec_is_a_value_with_a_stable_key(word: str) -> None:
    """One key for equal specs; forbidden names and save points are not in it, every other setting is."""
    step = STEPS[word]

    assert replace(step) == step and hash(replace(step)) == hash(step)
    assert key("step", step) == KEYS[word]
    assert key("step", replace(step, save_at=(1,), data=replace(DATA, forbidden=()))) == KEYS[word]
    for other in ({"steps": 4}, {"batch": 5}, {"learning_rate": 1e-4}, {"seed": 1}):
        assert key("step", replace(step, **other)) != KEYS[word]


@pytest.mark.parametrize("word", FINETUNINGS)
def test_a_finetuning_tells_its_paper_and_its_fields(word: str) -> None:
    """The file's docstring names an arXiv number; every field has its docstring."""
    kind = FINETUNINGS[word]
    module = inspect.getmodule(kind)
    assert module is not None and module.__doc__ is not None
    source = inspect.getsource(kind) + inspect.getsource(FineTuning)

    assert re.search(r"arxiv\.org/abs/\d{4}\.\d{5}", module.__doc__)
    assert getattr(kind, "__final__", False)
    for field in fields(kind):
        assert re.search(rf'^    {field.name}: [^\n]*\n    """', source, re.MULTILINE), field.name


@pytest.mark.parametrize(
    "bad",
    [{"steps": 0}, {"batch": 1.5}, {"learning_rate": -1e-5}, {"seed": -1}, {"save_at": (4,)}, {"save_at": (2, 1)}],
)
@every_step
def test_settings_out_of_range_are_refused(word: str, bad: dict[str, Any]) -> None:
    """Each is a SpecError that names the class and the field."""
    with pytest.raises(SpecError, match=f"{type(STEPS[word]).__name__}.{next(iter(bad))} must be"):
        replace(STEPS[word], **bad)


@every_step
def test_divergence_is_a_build_error(model: StableDiffusion, word: str) -> None:
    """An absurd learning rate ends in a sentence that names the step."""
    with pytest.raises(BuildError, match="training diverged at step"):
        replace(STEPS[word], learning_rate=1e30).apply(model, tiny_run(model))


def test_images_and_their_latents_are_asked_for_once_per_base(model: StableDiffusion) -> None:
    """The latents' key holds the base and the probe, not the model that is fine-tuned nor the way it is."""
    asked: list[str] = []

    def cached(kind: str, spec: object, build: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        asked.append(key(kind, spec))
        return build()

    for word, parent in (("lora", "a"), ("full", "b")):
        STEPS[word].apply(model, tiny_run(model, cached=cached, parent_digest=parent))
    STEPS["full"].apply(model, tiny_run(model, cached=cached, base_digest="other"))

    assert asked[0] == asked[1] != asked[2]


def test_velocity_models_learn_velocity(load: Load) -> None:
    """The loss of a v-model compares with v, not with the noise."""
    model = load("v2")
    data = examples(model, tiny_run(model), DATA)

    loss = next(denoising_losses(model, data, batch=2, generator=torch.Generator().manual_seed(3)))

    generator = torch.Generator().manual_seed(3)
    rows = torch.randperm(6, generator=generator)[:2]
    t = torch.randint(1000, (2,), generator=generator)
    noise, fresh = (torch.randn((2, 4, 8, 8), generator=generator) for _ in range(2))
    x_0 = data.mean[rows] + data.deviation[rows] * fresh
    noisy = model.scheduler.add_noise(x_0, noise, t)
    said = moves.predict(model, noisy, t, data.states[data.text[rows]])
    expected = ((said - model.scheduler.get_velocity(x_0, noise, t)) ** 2).mean()
    torch.testing.assert_close(loss, expected)


def test_specs_are_made_without_torch() -> None:
    """Collection makes specs in every worker; torch and peft are imported when tensors are first needed."""
    code = (
        "import sys\n"
        "from resurgence_harness.specs import Probe, Prompt\n"
        "from resurgence_harness.finetuning import FINETUNINGS, BenignSet\n"
        "data = BenignSet(probe=Probe(prompts=(Prompt(text='a b', concept='b'),), seeds=(1,)), forbidden=('c d',))\n"
        "[kind(data=data) for kind in FINETUNINGS.values()]\n"
        "assert not {'torch', 'diffusers', 'transformers', 'peft', 'pytest'} & set(sys.modules)"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
