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
from resurgence_harness.diffusion.parameters import CrossAttention, NonCrossAttention, StrictKeyValue
from resurgence_harness.errors import SpecError, UserError
from resurgence_harness.specs import Concept, Probe, Prompt
from resurgence_harness.storing.keys import key
from resurgence_harness.unlearning import (
    ESD,
    MACE,
    METHODS,
    SDD,
    SHS,
    UCE,
    Ascend,
    EraseDiff,
    FixedWeight,
    Guided,
    LastSubjectToken,
    NoProjection,
    SalUn,
    StudentOutput,
    TextReplaced,
    TruncatedNormal,
    Unlearning,
    Unmasked,
    WholeImage,
    by_name,
)
from resurgence_harness.unlearning.mace import ScaledTwice
from resurgence_harness.unlearning.mace_lora import SquaredFrobeniusNorm, UniformTimesteps
from tests.tiny import portraits, tiny_run

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
PICTURES: dict[str, Any] = {
    "forget": portraits(concept.name for concept in ERASED),
    "retain": portraits(concept.name for concept in KEPT),
}
"""What a method that learns from images is given beside the concepts."""
DRAWN: dict[str, Any] = {"concepts": ERASED, **PICTURES, "iterations": 3, "batch": 2, "learning_rate": 1e-4}
AVERAGED: dict[str, Any] = {**SHORT, "iterations_per_concept": 0, "refresh": 2, "ema": 0.9}
MASKED: dict[str, Any] = {
    "concepts": ERASED,
    "preserve": KEPT,
    "forget": PICTURES["forget"],
    "templates": ("{}", "a portrait of {}", "{} at event"),
    "iterations": 2,
    "learning_rate": 1e-2,
}
CUT: dict[str, Any] = {**DRAWN, "trim_batches": 2, "sparsity": 0.9}
STEPS: dict[str, Unlearning] = {
    "uce": UCE(concepts=ERASED, preserve=KEPT),
    "uce-last-token": UCE(concepts=ERASED, preserve=KEPT, tokens=LastSubjectToken()),
    "esd": ESD(**SHORT),
    "esd-key-value": ESD(**SHORT, subset=StrictKeyValue()),
    "esd-non-cross-attention": ESD(**SHORT, subset=NonCrossAttention()),
    "sdd": SDD(**AVERAGED),
    "sdd-student": SDD(**AVERAGED, output=StudentOutput()),
    "erasediff": EraseDiff(**DRAWN),
    "erasediff-fixed": EraseDiff(**DRAWN, weight=FixedWeight()),
    "erasediff-non-cross-attention": EraseDiff(**DRAWN, subset=NonCrossAttention()),
    "mace": MACE(**MASKED),
    "mace-as-their-code": MACE(
        **MASKED,
        scaling=ScaledTwice(),
        train_preserve_scale=1e-4,
        penalty=SquaredFrobeniusNorm(),
        timesteps=UniformTimesteps(),
        masks=WholeImage(),
        general=("a photo", "a public event"),
    ),
    "salun": SalUn(**DRAWN),
    "salun-cross-attention": SalUn(**DRAWN, subset=CrossAttention(), pseudo=TextReplaced()),
    "salun-unmasked": SalUn(**DRAWN, mask=Unmasked()),
    "shs": SHS(**CUT),
    "shs-cross-attention": SHS(**CUT, subset=CrossAttention()),
    "shs-ascend": SHS(**CUT, repair=Ascend(), saliency=Guided(), redraw=TruncatedNormal(), projection=NoProjection()),
}
"""Every method, briefly."""
KEYS = {
    "mace": "b46d97a4fe7f8f648319e8a821a5b52c6560728ebff3c24549d57a9244fd8c90",
    "uce": "dc773242af91cdaf0c84c987413f7f4b25a4f24a7dc96c910f66bf2511e04782",
    "esd": "f8413af814bc66a0843997e936384b40bb4c80027ddb4d33bc402a135ede7a8c",
    "sdd": "78f5c010212767c28b2fd3f50a5d92c0696e41387c978e12b85972474d7a6c69",
    "salun": "2bd0926a02c26f459025d53f88090e53de28c37b3932d6b1108fd14f240c5996",
    "shs": "655215fd687ffc98cffac8096b141b72577df0f1064619b0dcdcbe9d5b79c7bb",
}
"""Keys of some specs. A changed key makes every stored checkpoint of the method unfindable: change it knowingly."""


def _of(step: Any, *concepts: Concept) -> Any:
    """The same step for other concepts, and with images of these where it learns from images."""
    pictures = {"forget": portraits(concept.name for concept in concepts)} if hasattr(step, "forget") else {}
    return replace(step, concepts=concepts, **pictures)


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
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in changed.unet.parameters())


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
    assert key("step", _of(step, ERASED[0])) != key("step", step)
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
        _of(step, ERASED[0], Concept(name="Ada Quill", kind="a celebrity"))


@every_step
def test_a_name_the_tokenizer_cannot_represent_is_a_users_error(model: StableDiffusion, word: str) -> None:
    """The name is in the sentence; nothing is trained on <unk>."""
    step = _of(STEPS[word], Concept(name="Žofie quill", kind="a celebrity"))

    with pytest.raises(UserError, match=r"cannot represent .*Žofie quill"):
        step.apply(model, tiny_run(model))


def having(field: str) -> pytest.MarkDecorator:
    """The methods that have this field."""
    return pytest.mark.parametrize("method", [m for m in METHODS if field in {one.name for one in fields(m)}])  # type: ignore[arg-type]


@having("forget")
def test_forget_images_are_of_the_erased_concepts(method: Any) -> None:
    """Every concept has forget images, and no other has."""
    step: Any = next(step for step in STEPS.values() if type(step) is method)
    with pytest.raises(SpecError, match='no forget images of "dov ferris"'):
        replace(step, forget=portraits(["ada quill"]))
    with pytest.raises(SpecError, match='asked for "bram quill", which is not erased'):
        replace(step, forget=portraits(["ada quill", "dov ferris", "bram quill"]))


@having("retain")
def test_no_retain_image_is_asked_for_an_erased_name(method: Any) -> None:
    """In any case, and anywhere in the prompt; shared single names are none."""
    spec: dict[str, Any] = {"concepts": ERASED, **PICTURES}
    for retain in (portraits(["ada quill"]), portraits(["bram quill"], template="{} at an event of Ada  Quill")):
        with pytest.raises(SpecError, match='retain images are asked for the erased "ada quill"'):
            method(**spec | {"retain": retain})
    method(**spec | {"retain": portraits(["ada stone", "bram quill"])})


@having("pseudo")
def test_a_pseudo_prompt_does_not_ask_for_what_is_erased(method: Any) -> None:
    """It replaces the name or its synonym; without an anchor, without a place for it, or with a name in it: refused."""
    synonym = replace(ERASED[0], synonyms=("the Lady",))
    spec: dict[str, Any] = {"concepts": (synonym, ERASED[1]), **PICTURES}
    lady = Probe(
        prompts=(Prompt(text="a sketch of The Lady", concept="ada quill"), *PICTURES["forget"].prompts[1:]), seeds=(1,)
    )

    assert method(**spec | {"forget": lady})._pseudo_texts() == ("a sketch of a celebrity", "a portrait of a celebrity")
    assert set(method(**spec, anchor="an oil painting", pseudo=TextReplaced())._pseudo_texts()) == {"an oil painting"}
    with pytest.raises(SpecError, match='does not know what "ada quill" shall be taken for'):
        method(**spec | {"concepts": (replace(ERASED[0], kind=""), ERASED[1])})
    with pytest.raises(SpecError, match='nothing to replace in the forget prompt "a portrait"'):
        method(**spec | {"forget": portraits(["ada quill", "dov ferris"], template="a portrait")})
    for anchor in ("the LADY", "dov ferris"):
        with pytest.raises(SpecError, match="still asks for the erased"):
            method(**spec, anchor=anchor)


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
        "from resurgence_harness.specs import Concept\n"
        "from resurgence_harness.unlearning import ESD, MACE, SDD, SHS, UCE, EraseDiff, SalUn\n"
        "from tests.tiny import portraits\n"
        "import resurgence_harness.diffusion.model, resurgence_harness.diffusion.moves, resurgence_harness.sampling\n"
        "c = (Concept(name='a b', kind='a person'),)\n"
        "UCE(concepts=c); ESD(concepts=c); SDD(concepts=c); MACE(concepts=c, forget=portraits(['a b']))\n"
        "for m in (SalUn, SHS, EraseDiff): m(concepts=c, forget=portraits(['a b']), retain=portraits(['a c']))\n"
        "assert not {'torch', 'diffusers', 'transformers', 'peft', 'pytest'} & set(sys.modules)"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
