"""Models that somebody else unlearned: read in every format, compared with the base, applied as a step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from resurgence_harness.diffusion.formats import Cover
from resurgence_harness.diffusion.model import StableDiffusion, tensors
from resurgence_harness.diffusion.run import Run
from resurgence_harness.errors import SpecError, UserError
from resurgence_harness.given_models import check_names, named, read_unlearned
from resurgence_harness.planning import checkpoint_key
from resurgence_harness.presets import METHODS
from resurgence_harness.selection import resolve_base
from resurgence_harness.specs import Concept, Recipe
from resurgence_harness.unlearning import Given, GivenModel
from tests.tiny import save_tiny_stable_diffusion
from tests.two_models import load, model, v1, v2, xl

pytestmark = pytest.mark.slow

__all__ = ["load", "model", "v1", "v2", "xl"]

UNET = "unet/diffusion_pytorch_model.safetensors"
NAMES = (Concept(name="cleo marsh", kind="a celebrity"),)


def changed(base: Path, part: str = UNET, *, by: float = 0.1) -> dict[str, torch.Tensor]:
    """The weights of one part with every matrix moved a little."""
    noise = torch.Generator().manual_seed(0)
    return {
        name: value + by * value.std() * torch.randn(value.shape, generator=noise) if value.ndim > 1 else value
        for name, value in load_file(base / part).items()
    }


def erased_directory(base: Path, folder: Path, *parts: str) -> Path:
    """A whole model in which these parts were moved."""
    shutil.copytree(base, folder)
    for part in parts:
        save_file(changed(base, part), folder / part)
    return folder


def lora_of(base: Path, file: Path) -> Path:
    """A LoRA of rank one on one layer, in peft's layout."""
    layer = next(name for name in load_file(base / UNET) if name.endswith("attn2.to_k.weight"))
    rows, columns = load_file(base / UNET)[layer].shape
    stem = f"unet.{layer.removesuffix('.weight')}"
    save_file({f"{stem}.lora_A.weight": torch.ones(1, columns), f"{stem}.lora_B.weight": torch.ones(rows, 1)}, file)
    return file


def read(base: Path, store: Path, *words: str, **other: Any) -> tuple[GivenModel, ...]:
    """The models of these words."""
    given = [named(word) for word in words]
    return read_unlearned(given, base=resolve_base(str(base)), folder=store.parent, store=store, **other)


def applied(given: GivenModel, model: StableDiffusion) -> StableDiffusion:
    """The model after the step."""
    run = Run(base=model, base_digest="b", parent_digest="b")
    return Given(concepts=NAMES, model=given).apply(model, run)


def test_a_directory_and_its_unet_are_the_same_change(v1: Path, model: StableDiffusion, tmp_path: Path) -> None:
    """The weights are those of the file, bit for bit; the base is left as it was, and a path is no key."""
    whole = erased_directory(v1, tmp_path / "whole", UNET)
    save_file(changed(v1), tmp_path / "unet.safetensors")
    before = {name: value.clone() for name, value in tensors(model).items()}
    one, two = read(v1, tmp_path / "store", f"one={whole}", "two=unet.safetensors")
    assert "relative distance of its weights from the base 0.0" in one.description
    wanted = changed(v1)
    for given in (one, two):
        found = tensors(applied(given, model))
        assert all(torch.equal(found[f"unet.{name}"], value) for name, value in wanted.items())
    assert all(torch.equal(value, before[name]) for name, value in tensors(model).items())
    base, elsewhere = Recipe(resolve_base(str(v1))), GivenModel(digest=one.digest, name="x", location="elsewhere")
    keys = [checkpoint_key(base.then(Given(concepts=NAMES, model=each))) for each in (one, elsewhere, two)]
    assert keys[0] == keys[1] and (keys[2] == keys[0]) is (one.digest == two.digest)


def test_a_text_encoder_may_be_erased(v1: Path, model: StableDiffusion, tmp_path: Path) -> None:
    """Its weights are applied, too, and the base's text encoder is not touched."""
    part = "text_encoder/model.safetensors"
    (given,) = read(v1, tmp_path / "store", f"mine={erased_directory(v1, tmp_path / 'erased', part)}")
    found, base = tensors(applied(given, model)), tensors(model)
    moved = {name for name in found if not torch.equal(found[name], base[name])}
    assert moved and all(name.startswith("text_encoder.") for name in moved)


def test_a_lora_with_a_weight(v1: Path, model: StableDiffusion, tmp_path: Path) -> None:
    """Only its layer moves; another weight is another model."""
    lora_of(v1, tmp_path / "lora.safetensors")
    half, whole = read(v1, tmp_path / "store", "half=lora.safetensors=0.5", "whole=lora.safetensors")
    assert half.digest != whole.digest and "LoRA" in half.label
    found, base = tensors(applied(half, model)), tensors(model)
    (layer,) = [name for name in found if not torch.equal(found[name], base[name])]
    assert torch.allclose(found[layer] - base[layer], torch.full_like(base[layer], 0.5), atol=1e-5)


def test_some_layers_alone_need_to_be_allowed(v1: Path, tmp_path: Path) -> None:
    """As ESD's and UCE's own codes save them."""
    some = {name: value for name, value in changed(v1).items() if ".attn2.to_k." in name or ".attn2.to_v." in name}
    save_file(some, tmp_path / "some.safetensors")
    with pytest.raises(UserError):
        read(v1, tmp_path / "store", "mine=some.safetensors")
    (given,) = read(v1, tmp_path / "store", "mine=some.safetensors", cover=Cover.SOME)
    assert len(given.notes) > 1  # which layers are the base's


def stranger(base: Path, folder: Path) -> Path:
    """Other random weights."""
    return save_tiny_stable_diffusion(folder / "stranger", seed=1)


def family(base: Path, folder: Path) -> Path:
    """Wider text states, as of v2."""
    return save_tiny_stable_diffusion(folder / "family", text_width=48)


def tokenizer(base: Path, folder: Path) -> Path:
    """Two words have each other's ids."""
    made = erased_directory(base, folder / "tokenizer", UNET)
    for file in (made / "tokenizer").glob("*.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        vocabulary = content.get("model", {}).get("vocab") if file.name == "tokenizer.json" else content
        if file.name in ("vocab.json", "tokenizer.json") and vocabulary:
            one, two = [word for word in vocabulary if word.endswith("</w>")][-2:]
            vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
            file.write_text(json.dumps(content), encoding="utf-8")
    return made


def pickle(base: Path, folder: Path) -> Path:
    """A file that only runs as code."""
    torch.save({}, folder / "model.ckpt")
    return folder / "model.ckpt"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (stranger, "The unlearned model is not derived from the base: the relative distance of its layers is 1.4"),
        (lambda base, folder: base, "The unlearned model equals the base: nothing was unlearned."),
        (family, "has a tensor of another shape than its base"),
        (tokenizer, 'The unlearned model "mine" differs from the base in more than its U-Net and text encoder.'),
        (pickle, "model.ckpt"),
        (lambda base, folder: folder / "nothing", "There is no candidate at "),
    ],
    ids=["stranger", "base", "family", "tokenizer", "pickle", "missing"],
)
def test_what_cannot_be_compared_is_refused(
    make: Callable[[Path, Path], Path], sentence: str, v1: Path, tmp_path: Path
) -> None:
    """In one sentence, before anything is stored as finished."""
    with pytest.raises(UserError) as problem:
        read(v1, tmp_path / "store", f"mine={make(v1, tmp_path)}")
    assert sentence in str(problem.value).splitlines()[0]
    assert not [file for file in (tmp_path / "store").rglob("*") if "candidates" not in file.parts]


def test_a_model_that_was_changed_since_is_refused(v1: Path, model: StableDiffusion, tmp_path: Path) -> None:
    """Between the check and the build; and one without a digest, which would have any model's key."""
    whole = erased_directory(v1, tmp_path / "whole", UNET)
    (given,) = read(v1, tmp_path / "store", f"mine={whole}")
    save_file(changed(v1, by=0.2), whole / UNET)
    with pytest.raises(UserError, match='The unlearned model "mine" was changed while it was used'):
        applied(given, model)
    with pytest.raises(SpecError, match="no digest"):
        GivenModel(digest="")


@pytest.mark.parametrize("word", ["./mine", "=x", "mine=", "my model=x", "a/b=x", "mine", "é=x"])
def test_a_model_needs_a_plain_name(word: str) -> None:
    """It becomes part of node ids."""
    with pytest.raises(UserError, match="does not name an unlearned model"):
        named(word)


def test_names_are_used_once() -> None:
    """Neither twice, nor for a method."""
    with pytest.raises(UserError, match='Two unlearned models are called "mine"'):
        check_names([named("mine=a"), named("mine=b")], METHODS)
    with pytest.raises(UserError, match='A method is called "uce"'):
        check_names([named("uce=a")], METHODS)
