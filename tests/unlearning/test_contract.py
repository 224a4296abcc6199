"""What every unlearning method promises, asked of all of them on both styles of model. A new method is one more row."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
import torch

from resurgence_harness.diffusion.model import StableDiffusion, difference, tensors
from resurgence_harness.diffusion.parameters import NonCrossAttention, StrictKeyValue
from resurgence_harness.errors import SpecError, UserError
from resurgence_harness.specs import Concept, Probe, Prompt, Sampler
from resurgence_harness.storing.keys import key
from resurgence_harness.unlearning import ESD, MACE, METHODS, UCE, LastSubjectToken, Unlearning, by_name
from resurgence_harness.unlearning.mace import ScaledTwice
from resurgence_harness.unlearning.mace_lora import SquaredFrobeniusNorm, UniformTimesteps
from resurgence_harness.unlearning.masks import WholeImage
from tests.tiny import tiny_run

Load = Callable[[str], StableDiffusion]

ERASED = tuple(Concept(name=name, kind="a celebrity") for name in ("ada quill", "dov ferris"))
KEPT = tuple(Concept(name=name, kind="a celebrity") for name in ("bram quill", "cleo marsh"))
SHORT: dict[str, Any] = {
    "concepts": ERASED,
    "iterations": 3,
    "batch": 4,
    "learning_rate": 1e-3,
    "trajectories": 2,
    "trajectory_steps": 3,
}


def asking_for(concepts: tuple[Concept, ...]) -> Probe:
    """Images of some concepts, drawn briefly."""
    prompts = tuple(Prompt(text=f"a portrait of {one.name}", concept=one.name) for one in concepts)
    return Probe(prompts=prompts, seeds=(1, 2), sampler=Sampler(steps=2))


BRIEF: dict[str, Any] = {
    "concepts": ERASED,
    "preserve": KEPT,
    "forget": asking_for(ERASED),
    "templates": ("{}", "a portrait of {}", "{} at event"),
    "iterations": 2,
    "learning_rate": 1e-2,
}
STEPS: dict[str, Unlearning] = {
    "uce": UCE(concepts=ERASED, preserve=KEPT),
    "uce-last-token": UCE(concepts=ERASED, preserve=KEPT, tokens=LastSubjectToken()),
    "esd": ESD(**SHORT),
    "esd-key-value": ESD(**SHORT, subset=StrictKeyValue()),
    "esd-non-cross-attention": ESD(**SHORT, subset=NonCrossAttention()),
    "mace": MACE(**BRIEF),
    "mace-as-their-code": MACE(
        **BRIEF,
        scaling=ScaledTwice(),
        train_preserve_scale=1e-4,
        penalty=SquaredFrobeniusNorm(),
        timesteps=UniformTimesteps(),
        masks=WholeImage(),
        general=("a photo", "a public event"),
    ),
}
"""Every method, briefly."""
KEYS = {
    "mace": "fabf544d448927414ad97171546b5f31c63aa5f516efb692b77b419e618aff3c",
    "uce": "bfa15e7b427abbc601869d1140d6584d607fbf451d4ee2f485909fb983326f8a",
    "esd": "f8413af814bc66a0843997e936384b40bb4c80027ddb4d33bc402a135ede7a8c",
}
"""Keys of two specs. A changed key makes every stored checkpoint of the method unfindable: change it knowingly."""


def erasing(step: Any, concepts: tuple[Concept, ...]) -> Any:
    """The same step for other concepts, with forget images of theirs where it learns from some."""
    return replace(step, concepts=concepts, **({"forget": asking_for(concepts)} if hasattr(step, "forget") else {}))


every_step = pytest.mark.parametrize("word", STEPS)
both_styles = pytest.mark.parametrize("style", ["v1", "v2"])


def test_every_method_has_a_row() -> None:
    """A method that is exported is tested here."""
    assert {type(step) for step in STEPS.values()} == set(METHODS)


@both_styles
@every_step
def test_the_same_spec_gives_the_same_bytes(load: Load, style: str, word: str) -> None:
    """Twice on the CPU at one thread count, whatever the global random state is."""
    model = load(style)

    first = difference(STEPS[word].apply(model, tiny_run(model)), model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        second = difference(STEPS[word].apply(model, tiny_run(model)), model)

    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@both_styles
@every_step
def test_only_the_declared_tensors_move_and_at_least_one_does(load: Load, style: str, word: str) -> None:
    """What moved is within `moves`; text encoder, VAE and everything else are bit for bit the input's."""
    model = load(style)

    changed = STEPS[word].apply(model, tiny_run(model))

    moved = difference(changed, model)
    assert moved
    assert all(STEPS[word].moves.selects(name) for name in moved)
    assert changed.vae is model.vae and changed.text_encoder is model.text_encoder
    assert {value.dtype for value in tensors(changed).values()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in changed.unet.parameters())


@every_step
def test_the_surroundings_are_left_as_they_were(model: StableDiffusion, word: str) -> None:
    """Input model, global RNG, grad mode, default dtype and diffusers' classes are untouched."""
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

    weights = {name: value.clone() for name, value in tensors(model).items()}
    processors = {name: type(processor) for name, processor in model.unet.attn_processors.items()}
    classes = [dict(vars(StableDiffusionPipeline)), dict(vars(UNet2DConditionModel))]
    random = torch.get_rng_state()
    with torch.no_grad():
        STEPS[word].apply(model, tiny_run(model))
        grad = torch.is_grad_enabled()

    assert all(torch.equal(value, weights[name]) for name, value in tensors(model).items())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.unet.parameters())
    assert {name: type(processor) for name, processor in model.unet.attn_processors.items()} == processors
    assert not model.unet.training
    assert torch.equal(random, torch.get_rng_state())
    assert not grad and torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32
    assert [dict(vars(StableDiffusionPipeline)), dict(vars(UNet2DConditionModel))] == classes


@every_step
def test_the_callers_grad_mode_does_not_matter(model: StableDiffusion, word: str) -> None:
    """Under inference mode the same bytes come out, and they can be trained further."""
    plain = STEPS[word].apply(model, tiny_run(model))
    with torch.inference_mode():
        inside = STEPS[word].apply(model, tiny_run(model))

    assert difference(inside, plain) == {}
    assert not any(parameter.is_inference() for parameter in inside.unet.parameters())


@every_step
def test_a_spec_is_a_value_with_a_stable_key(word: str) -> None:
    """Equal specs are equal, hashable and have one key; another setting has another key."""
    step: Any = STEPS[word]

    assert replace(step) == step and hash(replace(step)) == hash(step)
    assert key("step", replace(step)) == key("step", step)
    assert key("step", erasing(step, ERASED[:1])) != key("step", step)
    assert key("step", step) == KEYS.get(word, key("step", step))


@pytest.mark.parametrize("method", METHODS)
def test_a_method_tells_its_paper_and_its_fields(method: type[Unlearning]) -> None:
    """The file's docstring names the arXiv number, the notation and the departures; every field has its docstring."""
    module = inspect.getmodule(method)
    assert module is not None and module.__doc__ is not None
    source = inspect.getsource(method)

    assert re.search(r"arxiv\.org/abs/\d{4}\.\d{5}", module.__doc__)
    assert "Notation" in module.__doc__ and "Departures" in module.__doc__
    assert is_dataclass(method) and getattr(method, "__final__", False)
    for field in fields(method):
        assert re.search(rf'^    {field.name}: [^\n]*\n    """', source, re.MULTILINE), field.name


@pytest.mark.parametrize("method", METHODS)
def test_contradictory_sets_are_refused(method: type[Unlearning]) -> None:
    """Nothing to erase, a concept twice (in any case) and words both erased and preserved are SpecErrors."""
    step: Any = next(step for step in STEPS.values() if type(step) is method)
    with pytest.raises(SpecError, match="nothing to erase"):
        replace(step, concepts=())
    with pytest.raises(SpecError, match='erase "Ada Quill" twice'):
        erasing(step, (ERASED[0], Concept(name="Ada Quill", kind="a celebrity")))


@every_step
def test_a_name_the_tokenizer_cannot_represent_is_a_users_error(model: StableDiffusion, word: str) -> None:
    """The name is in the sentence; nothing is trained on <unk>."""
    step = erasing(STEPS[word], (Concept(name="Žofie quill", kind="a celebrity"),))

    with pytest.raises(UserError, match=r"cannot represent .*Žofie quill"):
        step.apply(model, tiny_run(model))


def test_an_unknown_method_is_a_users_error() -> None:
    """The sentence lists the methods there are."""
    assert by_name("uce") is UCE
    with pytest.raises(UserError, match='no unlearning method "ecu"') as caught:
        by_name("ecu")

    assert ", ".join(method.name for method in METHODS) in str(caught.value)


def test_specs_are_made_without_torch() -> None:
    """Collection makes specs in every worker; torch and diffusers are imported when tensors are first needed."""
    code = (
        "import sys\n"
        "from resurgence_harness.specs import Concept, Probe, Prompt\n"
        "from resurgence_harness.unlearning import ESD, MACE, UCE\n"
        "import resurgence_harness.diffusion.model, resurgence_harness.diffusion.moves, resurgence_harness.sampling\n"
        "c = (Concept(name='a b', kind='a person'),)\n"
        "p = Probe(prompts=(Prompt(text='a b', concept='a b'),), seeds=(1,))\n"
        "UCE(concepts=c); ESD(concepts=c); MACE(concepts=c, forget=p)\n"
        "assert not {'torch', 'diffusers', 'transformers', 'peft', 'pytest'} & set(sys.modules)"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
