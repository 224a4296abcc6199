"""What is drawn is what is compared and attested: a candidate's settings against its parent's, and its files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from resurgence_harness.diffusion.base_files import check_base
from resurgence_harness.diffusion.differences import settings_difference
from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.diffusion.model_files import ModelFiles
from resurgence_harness.errors import UserError
from resurgence_harness.gate.models import Models, prepare
from tests.tiny import save_tiny_stable_diffusion

pytestmark = pytest.mark.slow

UNET, VAE = (f"{part}/diffusion_pytorch_model.safetensors" for part in ("unet", "vae"))
TEXT = "text_encoder/model.safetensors"
SCHEDULER, WORDS = "scheduler/scheduler_config.json", "tokenizer/tokenizer.json"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base."""
    return save_tiny_stable_diffusion(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture
def tuned(base: Path, tmp_path: Path) -> Path:
    """The base with a U-Net that was trained a little."""
    model = Path(shutil.copytree(base, tmp_path / "tuned"))
    rewrite(model / UNET, lambda name, value: value + np.float32(1e-3))
    return model


def rewrite(file: Path, new: Callable[[str, Any], Any]) -> None:
    """Change the numbers of a weight file."""
    save_file({name: new(name, value) for name, value in load_file(file).items()}, file, {"format": "pt"})


def change(model: Path, file: str, **values: Any) -> None:
    """Set keys of a JSON file of the model."""
    found = json.loads((model / file).read_text(encoding="utf-8"))
    (model / file).write_text(json.dumps(found | values), encoding="utf-8")


def exchange(model: Path) -> None:
    """Exchange the numbers of two words."""
    found = json.loads((model / WORDS).read_text(encoding="utf-8"))
    vocab = found["model"]["vocab"]
    vocab["ada</w>"], vocab["dov</w>"] = vocab["dov</w>"], vocab["ada</w>"]
    (model / WORDS).write_text(json.dumps(found), encoding="utf-8")


def add(model: Path) -> None:
    """One more word, with a row."""
    rewrite(
        model / TEXT,
        lambda name, value: np.concatenate([value, value[:1] * 3]) if "token_embedding" in name else value,
    )
    size = json.loads((model / "text_encoder/config.json").read_text())["vocab_size"]
    change(model, "text_encoder/config.json", vocab_size=size + 1)
    (model / "tokenizer/added_tokens.json").write_text(json.dumps({"<styx>": size}))


DIFFERENCES: dict[str, tuple[Callable[[Path], object], str]] = {
    "words exchanged": (exchange, "tokenizer: 2 tokens have other ids"),
    "a word added": (add, "tokenizer: 1 added tokens, '<styx>'"),
    "a shorter text": (
        lambda m: change(m, "tokenizer/tokenizer_config.json", model_max_length=8),
        "tokenizer: it reads 8 tokens, the parent's 24",
    ),
    "another padding": (
        lambda m: change(m, "tokenizer/tokenizer_config.json", pad_token="!"),
        "tokenizer: pad_token",
    ),
    "another end of noise": (lambda m: change(m, SCHEDULER, beta_end=0.02), "scheduler: beta_end is 0.02"),
    "velocity": (lambda m: change(m, SCHEDULER, prediction_type="v_prediction"), "scheduler: prediction_type"),
    "other steps": (lambda m: change(m, SCHEDULER, timestep_spacing="trailing"), "scheduler: timestep_spacing"),
    "an activation": (lambda m: change(m, "text_encoder/config.json", hidden_act="gelu"), "text_encoder: hidden_act"),
    "other heads": (lambda m: change(m, "unet/config.json", attention_head_dim=2), "unet: attention_head_dim"),
    "another scale": (lambda m: change(m, "vae/config.json", scaling_factor=0.5), "vae: scaling_factor is 0.5"),
    "another shift": (lambda m: change(m, "vae/config.json", shift_factor=0.1), "vae: shift_factor"),
    "another VAE": (lambda m: rewrite(m / VAE, lambda name, value: value * np.float32(1.01)), "vae: "),
}


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_a_difference_is_said_and_the_parents_settings_are_put_in_its_place(
    base: Path, tuned: Path, tmp_path: Path, difference: str
) -> None:
    """The second model has the candidate's U-Net and text encoder, and nothing else that differs."""
    alter, words = DIFFERENCES[difference]
    alter(tuned)
    own = ModelFiles(tuned)

    found = prepare(["tuned"], unlearned=None, base=str(base), folder=tmp_path, store=tmp_path / "store")

    others = [one for one in found.differences if not one.startswith(words)]
    assert len(others) < len(found.differences)
    assert all(one.startswith("tokenizer: 1 added tokens") for one in others)  # some releases add a padding token
    assert found.differences and found.as_parent is not None
    second = Path(found.as_parent.base.location)
    assert check_base(second).digest == found.as_parent.base.digest
    assert settings_difference(second, base) == ()
    made = ModelFiles(second)
    for name, weight in made.items():
        values = own[name].values() if not name.startswith("vae.") else ModelFiles(base)[name].values()
        assert np.array_equal(weight.values(), values[: len(weight.values())])
    StableDiffusion.load(second, digest=found.as_parent.base.digest)
    again = Models.read(json.loads(json.dumps(found.plain())))
    assert (again.differences, again.as_parent) == (found.differences, found.as_parent)


IDLE: dict[str, Callable[[Path], object]] = {
    "nothing": lambda m: None,
    "provenance": lambda m: (
        change(m, "unet/config.json", _diffusers_version="0.1.0", _name_or_path="elsewhere"),
        change(m, "text_encoder/config.json", transformers_version="4.20.0", torch_dtype="float16"),
    ),
    "another scheduler's class": lambda m: change(m, SCHEDULER, _class_name="PNDMScheduler", skip_prk_steps=True),
    "clipping, which is always off": lambda m: change(m, SCHEDULER, clip_sample=True),
    "half precision": lambda m: rewrite(m / VAE, lambda name, value: value.astype(np.float16)),
    "dropout": lambda m: change(m, "text_encoder/config.json", attention_dropout=0.1),
}


@pytest.mark.parametrize("idle", IDLE)
def test_what_cannot_change_an_image_is_no_difference(base: Path, tuned: Path, idle: str) -> None:
    """Provenance, and settings that drawing does not read."""
    IDLE[idle](tuned)

    assert settings_difference(tuned, base) == ()


def test_without_a_parent_nothing_is_compared(tuned: Path, tmp_path: Path) -> None:
    """And every file that can change an image is attested."""
    found = prepare(["tuned"], unlearned=None, base=None, folder=tmp_path, store=tmp_path / "store")

    assert (found.differences, found.as_parent) == ((), None)
    assert found.files == check_base(tuned).hashes and WORDS in found.files and SCHEDULER in found.files


def test_a_lora_attests_its_settings_and_keeps_the_words_of_its_base(base: Path, tuned: Path, tmp_path: Path) -> None:
    """adapter_config.json is a subject; a word that the model added is still there under a LoRA."""
    add(tuned)
    layer = "base_model.model.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    (tmp_path / "lora").mkdir()
    pair = {f"{layer}.lora_A.weight": np.ones((1, 32), "f4"), f"{layer}.lora_B.weight": np.ones((48, 1), "f4")}
    save_file(pair, tmp_path / "lora/adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 1, "lora_alpha": 1}
    (tmp_path / "lora/adapter_config.json").write_text(json.dumps(settings))

    found = prepare(["tuned", "lora"], unlearned=None, base=str(base), folder=tmp_path, store=tmp_path / "store")

    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer/added_tokens.json", UNET} <= set(found.files)
    assert found.differences == ("tokenizer: 1 added tokens, '<styx>'",)
    tokenizer = StableDiffusion.load(found.candidate.base.location).tokenizer
    assert "<styx>" in tokenizer.tokenize("a photo of <styx>")


def test_a_component_with_a_setting_of_its_own_is_refused(base: Path, tuned: Path, tmp_path: Path) -> None:
    """Its weights would be drawn with the base's setting."""
    change(tuned, "text_encoder/config.json", hidden_act="gelu")

    with pytest.raises(UserError, match="a setting that differs from the base's"):
        prepare(["tuned/text_encoder"], unlearned=None, base=str(base), folder=tmp_path, store=tmp_path / "store")
