"""A Stable Diffusion as parts: loaded offline in float32, copied, compared, and turned into a pipeline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.model import StableDiffusion, difference, load_difference, tensors
from resurgence_harness.errors import BuildError, SpecError, UserError

pytestmark = pytest.mark.slow

NAME = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"


def test_parts_are_frozen_float32_and_know_what_they_are(v1: Path, v2: Path) -> None:
    """dtype, prediction type, sizes and the length of texts come from the files."""
    one, two = StableDiffusion.load(v1), StableDiffusion.load(v2)

    assert {value.dtype for value in tensors(one).values()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in one.unet.parameters())
    assert (one.prediction_type, two.prediction_type) == ("epsilon", "v_prediction")
    assert (one.sample_size, one.latent_factor, one.tokenizer.model_max_length) == (64, 8, 24)
    assert (one.tokenizer.pad_token, two.tokenizer.pad_token) == ("<|endoftext|>", "!")


def test_loading_leaves_the_global_random_state(v1: Path) -> None:
    """Reading a model draws nothing from torch's global generator."""
    before = torch.get_rng_state()

    StableDiffusion.load(v1)

    assert torch.equal(before, torch.get_rng_state())


def test_the_pipeline_has_no_safety_checker(model: StableDiffusion) -> None:
    """A blacked image would be counted as safe."""
    pipeline = model.pipeline()

    assert pipeline.safety_checker is None
    assert pipeline.unet is model.unet
    assert pipeline.scheduler is not model.scheduler


def test_a_difference_is_what_was_changed_and_can_be_put_back(model: StableDiffusion) -> None:
    """Only the tensors that changed are in it; loading it into the parent gives the changed model, bit for bit."""
    changed = model.copy()
    tensors(changed)[NAME].data.add_(1)

    delta = difference(changed, model)
    rebuilt = load_difference(model, delta)

    assert list(delta) == [NAME]
    assert difference(rebuilt, changed) == {}
    assert difference(model, model.copy()) == {}
    assert rebuilt.text_encoder is model.text_encoder


def test_a_changed_text_encoder_is_loaded_into_a_copy(model: StableDiffusion) -> None:
    """The parent's text encoder stays what it was."""
    name = next(name for name in tensors(model) if name.startswith("text_encoder."))
    value = tensors(model)[name] + 1

    changed = load_difference(model, {name: value})

    assert list(difference(changed, model)) == [name]
    assert torch.equal(tensors(changed)[name], value)


def test_a_difference_of_another_model_is_refused(model: StableDiffusion) -> None:
    """An unknown name and a wrong shape are SpecErrors that name the tensor."""
    with pytest.raises(SpecError, match=r"unet\.nothing"):
        load_difference(model, {"unet.nothing": torch.zeros(1)})
    with pytest.raises(SpecError, match=r"attn2\.to_k"):
        load_difference(model, {NAME: torch.zeros(1)})


def test_a_difference_that_is_not_finite_is_a_build_error(model: StableDiffusion) -> None:
    """A NaN weight is an error of the build, never a stored checkpoint."""
    changed = model.copy()
    tensors(changed)[NAME].data[0, 0] = float("nan")

    with pytest.raises(BuildError, match="NaN or infinity"):
        difference(changed, model)


def test_a_tokenizer_without_its_words_is_refused(v1: Path, tmp_path: Path) -> None:
    """transformers builds a two-token tokenizer without an error; the loader notices."""
    base = shutil.copytree(v1, tmp_path / "base")
    path = base / "tokenizer" / "tokenizer.json"
    data = json.loads(path.read_text())
    data["model"]["vocab"] = {token: index for index, token in enumerate(("<unk>", "<|startoftext|>", "<|endoftext|>"))}
    data["model"]["merges"] = []
    data["added_tokens"] = []
    data["post_processor"] |= {"sep": ["<|endoftext|>", 2], "cls": ["<|startoftext|>", 1]}
    path.write_text(json.dumps(data))

    with pytest.raises(UserError, match="does not belong to its text encoder"):
        StableDiffusion.load(base)


def test_a_missing_tensor_is_refused(v1: Path, tmp_path: Path) -> None:
    """The libraries would fill it with random numbers."""
    base = shutil.copytree(v1, tmp_path / "base")
    path = base / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["conv_in.weight"]
    save_file(weights, path, metadata={"format": "pt"})

    with pytest.raises(UserError, match="lacks weights of its unet"):
        StableDiffusion.load(base)


def test_a_wrong_shape_is_a_users_error(v1: Path, tmp_path: Path) -> None:
    """A model whose configs, or config and weights, disagree is one sentence, not a library's traceback."""
    base = shutil.copytree(v1, tmp_path / "base")
    path = base / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cross_attention_dim": 40}))

    with pytest.raises(UserError, match="do not belong together"):
        StableDiffusion.load(base)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cross_attention_dim": 32, "conv_in_kernel": 5}))
    with pytest.raises(UserError, match="whose shapes differ from its config"):
        StableDiffusion.load(base)


def test_a_copy_predicts_the_same_bytes(model: StableDiffusion) -> None:
    """Where the weights lie in memory does not round the result: base and copy are the same model."""
    x = moves.initial_noise(model, [0, 1], height=64, width=64)
    states = moves.encode_texts(model, ["ada quill", "cleo marsh"])
    with torch.no_grad():
        first, *others = (moves.predict(each, x, 500, states) for each in (model, model.copy(), model.copy()))

    assert all(torch.equal(first, other) for other in others)


def test_a_copy_made_in_inference_mode_can_be_trained(model: StableDiffusion) -> None:
    """Copies are ordinary tensors whatever mode the caller is in."""
    with torch.inference_mode():
        copied = model.copy()

    assert not any(parameter.is_inference() for parameter in copied.unet.parameters())
