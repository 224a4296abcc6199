"""A fine-tuning on given images: the contract, captions that name an erased concept, and the held-out part."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.errors import SpecError
from resurgence_harness.finetuning import Full, GivenSet, LoRA, RandomFlip, benign_losses, read_folder
from resurgence_harness.finetuning.given import draws_for, given_examples, given_held_out
from resurgence_harness.storing.keys import canonical, key
from resurgence_harness.testing import check_finetuning
from tests.finetuning.pictures import captions_for, rows_of, write_folder, write_pictures, write_rows
from tests.tiny import tiny_run

pytestmark = pytest.mark.slow

KINDS = {"lora": LoRA, "full": Full}


@pytest.fixture
def data(tmp_path: Path) -> GivenSet:
    """Ten images of another size than the model's."""
    return GivenSet(folder=read_folder(write_folder(tmp_path / "data")), height=64, width=64, forbidden=("ada quill",))


@pytest.mark.parametrize("word", KINDS)
def test_a_finetuning_on_given_images_keeps_the_contract(model: StableDiffusion, data: GivenSet, word: str) -> None:
    """Repeatable, only declared tensors, a stable key, intermediate models as shorter runs make them."""
    check_finetuning(KINDS[word](data=data, steps=3, batch=4, learning_rate=1e-3), model, run=tiny_run)


def test_the_key_has_the_content_and_the_size(data: GivenSet, tmp_path: Path) -> None:
    """Never the path, the rows' places or the forbidden names."""
    assert canonical(data) == {
        "type": "given",
        "version": 1,
        "folder": {"type": "ImageFolder", "digest": data.folder.digest},
        "height": 64,
        "width": 64,
    }
    moved = read_folder(Path(shutil.copytree(data.folder.path, tmp_path / "moved")))
    step = LoRA(data=data, steps=3)
    assert key("step", replace(step, data=replace(data, folder=moved, forbidden=()))) == key("step", step)
    assert key("step", replace(step, data=replace(data, height=32, width=32))) != key("step", step)


@pytest.mark.parametrize(
    ("caption", "name"),
    [
        ("A portrait of Ada Quill", "ada quill"),
        ("'ADA  quill', at an event", "Ada Quill"),
        ("beyonce\u0301 in a photo", "Beyoncé"),
        ("a photo of \uff41\uff44\uff41 quill", "ada quill"),
        ("a photo of STRASSE", "straße"),
    ],
)
def test_captions_with_an_erased_name_are_refused_with_their_rows(tmp_path: Path, caption: str, name: str) -> None:
    """Whole words, case-folded, in any Unicode form; every row is listed."""
    names = write_pictures(tmp_path)
    captions = captions_for(names)
    captions[3] = captions[8] = caption
    write_rows(tmp_path, rows_of(names, captions))

    with pytest.raises(SpecError) as caught:
        GivenSet(folder=read_folder(tmp_path), height=64, width=64, forbidden=("dov ferris", name))

    message = str(caught.value)
    assert message.startswith(f'The fine-tuning data have a caption with the erased name "{name}".')
    assert f"metadata.jsonl, row 4 ({name}), metadata.jsonl, row 9 ({name})" in message


@pytest.mark.parametrize("caption", ["ada stone", "a quill of ada", "nevada quillon"])
def test_captions_may_share_single_words(tmp_path: Path, caption: str) -> None:
    """A first name, a last name, another order and longer words are no findings."""
    names = write_pictures(tmp_path)
    write_rows(tmp_path, rows_of(names, [caption] * len(names)))

    assert len(GivenSet(folder=read_folder(tmp_path), height=64, width=64, forbidden=("ada quill",))) == 6


@pytest.mark.parametrize("part", ["training", "held_out"])
def test_tokens_are_checked_too(model: StableDiffusion, tmp_path: Path, part: str) -> None:
    """A name that is no word of its own, but that the model reads as the same tokens, is found in both parts."""
    names = write_pictures(tmp_path)
    write_rows(tmp_path, rows_of(names))
    captions = captions_for(names)
    row = getattr(read_folder(tmp_path), part)[0]
    captions[names.index(row.name)] = "a portrait of xy"  # the tokens "x" and "y</w>"
    write_rows(tmp_path, rows_of(names, captions))
    data = GivenSet(folder=read_folder(tmp_path), height=64, width=64, forbidden=("y",))

    with pytest.raises(SpecError, match='erased name "y"'):
        given_examples(model, tiny_run(model), data)


def test_training_images_are_encoded_in_order_and_held_out_ones_never(model: StableDiffusion, data: GivenSet) -> None:
    """Row k is the latent of training image k with its own text; mirrored ones follow; the base encodes them once."""
    cached: list[Any] = []

    def keep(kind: str, spec: Any, build: Any) -> Any:
        cached.append(canonical(spec))
        return build()

    got = given_examples(model, tiny_run(model, cached=keep), data, mirrored=True)

    (images,) = data.images(data.folder.training)
    straight, mirrored = moves.latent_moments(model, images), moves.latent_moments(model, images[:, :, ::-1])
    texts = [row.caption for row in data.folder.training]
    assert torch.equal(got.mean, torch.cat([straight[0], mirrored[0]]))
    assert torch.equal(got.deviation, torch.cat([straight[1], mirrored[1]]))
    assert torch.equal(got.states[got.text].states, moves.encode_texts(model, [*texts, *texts]))
    assert [one["side"] for one in cached] == ["original", "mirrored"]
    assert all(one["data"]["folder"]["digest"] == data.folder.digest and one["base"] == "tiny" for one in cached)


def test_long_captions_are_truncated(model: StableDiffusion, tmp_path: Path) -> None:
    """As in diffusers' scripts; a drawn set's prompts never are."""
    names = write_pictures(tmp_path)
    write_rows(
        tmp_path, rows_of(names, [f"a photo of bram quill {'at the event ' * 20}{place}" for place in range(10)])
    )
    data = GivenSet(folder=read_folder(tmp_path), height=64, width=64)

    assert len(given_examples(model, tiny_run(model), data).states) == 6
    assert len(given_held_out(model, data)[1]) == 4


def test_training_lowers_the_loss_on_held_out_images(model: StableDiffusion, data: GivenSet) -> None:
    """The effect is measured on images that were not trained on, from as many predictions as for 100 drawn images."""
    latents, states = given_held_out(model, data)
    draws = draws_for(len(latents))
    assert (len(latents), draws, draws_for(100), draws_for(1000)) == (4, 100, 4, 4)
    before = benign_losses(model, latents, states, seed=0, draws=draws)
    facts: dict[str, Any] = {}

    step = Full(data=data, steps=12, batch=4, learning_rate=1e-3, flip=RandomFlip())
    trained = step.apply(model, tiny_run(model, record=facts.__setitem__))

    after = benign_losses(trained, latents, states, seed=0, draws=draws)
    assert all(b > a for b, a in zip(before, after, strict=True))
    assert facts["images"] == 6
    assert facts["given data"] == {"digest": data.folder.digest, "images": 10}
