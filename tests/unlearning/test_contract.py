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

from resurgence_harness import presets
from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.diffusion.parameters import CrossAttention, NonCrossAttention, StrictKeyValue
from resurgence_harness.errors import SpecError, UserError
from resurgence_harness.specs import Concept, Probe, Prompt
from resurgence_harness.storing.keys import key
from resurgence_harness.testing import check_unlearning
from resurgence_harness.testing.steps import check_step
from resurgence_harness.unlearning import (
    ESD,
    MACE,
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
)
from resurgence_harness.unlearning.mace import ScaledTwice
from resurgence_harness.unlearning.mace_lora import SquaredFrobeniusNorm, UniformTimesteps
from tests.tiny import portraits, tiny_run

pytestmark = pytest.mark.slow

Load = Callable[[str], StableDiffusion]
METHODS = tuple(dict.fromkeys(method.step for method in presets.METHODS.values()))

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
    "uce": "dc773242af91cdaf0c84c987413f7f4b25a4f24a7dc96c910f66bf2511e04782",
    "uce-last-token": "726537906102f14b3fb579d5e8cbd16e98ed1f9d5e55b49f9fe4f93061d5239e",
    "esd": "f8413af814bc66a0843997e936384b40bb4c80027ddb4d33bc402a135ede7a8c",
    "esd-key-value": "b606c03b2ce1f476a4486538e09da91d83667b689199166f9af111c21e7b572f",
    "esd-non-cross-attention": "47db4f241e0a3a0ac7f28b53bb347ab1283772d7627655279746b88fa2d19107",
    "sdd": "78f5c010212767c28b2fd3f50a5d92c0696e41387c978e12b85972474d7a6c69",
    "sdd-student": "2477767fec89118acd135436ba646c41deb1f9cc050b427cb7096653543fef9c",
    "erasediff": "3285345e8f6893018bf33e18b1ede424ad7e3d7140304cce7a74d7f4cdc5fbda",
    "erasediff-fixed": "7d857f60657eebffe7506d1cb60926c3193d584f5bf478bd883952d33bd4d6d1",
    "erasediff-non-cross-attention": "931c53bfabdefd4df7dd48ec29cb86ec4b29b50dc66c010f76a8648e52e537ef",
    "mace": "b46d97a4fe7f8f648319e8a821a5b52c6560728ebff3c24549d57a9244fd8c90",
    "mace-as-their-code": "efa028665060c977051a31f07c18b598fe31bd1a19b8a3689e6fd60651785719",
    "salun": "2bd0926a02c26f459025d53f88090e53de28c37b3932d6b1108fd14f240c5996",
    "salun-cross-attention": "5ac8e135add02c3be7c341aee5463a1b5db9f79c8cf04d15e3267d91f6cc69e2",
    "salun-unmasked": "5a301888494fc021e1c5401348df4942b18ae46d13d086fd95fad4268bc942a9",
    "shs": "655215fd687ffc98cffac8096b141b72577df0f1064619b0dcdcbe9d5b79c7bb",
    "shs-cross-attention": "4045a40590870872ce2ccd7a06aa4c12e6fd6adb424b330280da18edf510e2df",
    "shs-ascend": "133c6ff2b941e5bad55d1ca9a9828d6477fbea25eb3f85427573f45fa20139a0",
}
"""The key of every row above. A changed one makes stored checkpoints of the method unfindable: change it knowingly."""


def _of(step: Any, *concepts: Concept) -> Any:
    """The same step for other concepts, and with images of these where it learns from images."""
    pictures = {"forget": portraits(concept.name for concept in concepts)} if hasattr(step, "forget") else {}
    return replace(step, concepts=concepts, **pictures)


every_step = pytest.mark.parametrize("word", STEPS)


def test_every_method_has_a_row() -> None:
    """A method that is exported is tested here."""
    assert {type(step) for step in STEPS.values()} == set(METHODS)


@every_step
def test_a_method_keeps_the_contract(model: StableDiffusion, word: str) -> None:
    """The same bytes twice, only declared tensors, surroundings and grad mode left alone, a key of every field."""
    check_unlearning(STEPS[word], model, run=tiny_run)


@pytest.mark.parametrize("style", ["v2", "xl"])
@every_step
def test_it_does_on_velocity_models_and_the_other_family(load: Load, word: str, style: str) -> None:
    """What every step promises."""
    check_step(STEPS[word], load(style), run=tiny_run)


@every_step
def test_the_key_of_a_spec_is_the_one_it_had(word: str) -> None:
    """For every row; another concept makes another key."""
    step: Any = STEPS[word]

    assert key("step", step) == KEYS.get(word), f'Add to KEYS in this file: "{word}": "{key("step", step)}"'
    assert key("step", _of(step, ERASED[0])) != KEYS[word]
    assert KEYS.keys() == STEPS.keys() and len(set(KEYS.values())) == len(KEYS)


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
    with pytest.raises(SpecError, match='"Ada Quill" twice in its erase set'):
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
    with pytest.raises(SpecError, match='a prompt for "bram quill", which is not erased'):
        replace(step, forget=portraits(["ada quill", "dov ferris", "bram quill"]))


@having("retain")
def test_no_retain_image_is_asked_for_an_erased_name(method: Any) -> None:
    """In any case, and anywhere in the prompt; shared single names are none."""
    spec: dict[str, Any] = {"concepts": ERASED, **PICTURES}
    for retain in (portraits(["ada quill"]), portraits(["bram quill"], template="{} at an event of Ada  Quill")):
        with pytest.raises(SpecError, match='retain set has a prompt for the erased "ada quill"'):
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
    with pytest.raises(SpecError, match='has no anchor for "ada quill"'):
        method(**spec | {"concepts": (replace(ERASED[0], kind=""), ERASED[1])})
    with pytest.raises(SpecError, match='nothing to replace in the forget prompt "a portrait"'):
        method(**spec | {"forget": portraits(["ada quill", "dov ferris"], template="a portrait")})
    for anchor in ("the LADY", "dov ferris"):
        with pytest.raises(SpecError, match="still names the erased"):
            method(**spec, anchor=anchor)


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
