"""A model is the bytes that were hashed, and bit for bit what the libraries' own loaders make of the same files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from resurgence_harness.diffusion.description import describe
from resurgence_harness.diffusion.loading import Exchanged
from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.errors import UserError
from resurgence_harness.microworld import weights

pytestmark = pytest.mark.slow

UNET, VAE = (f"{part}/diffusion_pytorch_model.safetensors" for part in ("unet", "vae"))
TEXT = "text_encoder/model.safetensors"
OLD = {"to_q": "query", "to_k": "key", "to_v": "value"}


def _rewritten(file: str, new: Callable[[str, torch.Tensor], tuple[str, torch.Tensor]]) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        found = dict(new(name, value.contiguous()) for name, value in load_file(model / file).items())
        save_file(found, model / file, metadata={"format": "pt"})

    return change


def _old_attention(name: str, value: torch.Tensor) -> tuple[str, torch.Tensor]:
    for new, old in OLD.items():
        name = name.replace(f".{new}.", f".{old}.") if ".attentions." in name else name
    return name.replace(".to_out.0.", ".proj_attn.") if ".attentions." in name else name, value


def _half(model: Path) -> None:
    for file, stem in ((UNET, "diffusion_pytorch_model"), (TEXT, "model")):
        _rewritten(file, lambda name, value: (name, value.half()))(model)
        (model / file).rename((model / file).with_name(f"{stem}.fp16.safetensors"))


def _shards(model: Path) -> None:
    found = load_file(model / UNET)
    places = {name: f"diffusion_pytorch_model-0000{1 + n % 3}-of-00003.safetensors" for n, name in enumerate(found)}
    for file in set(places.values()):
        part = {name: found[name].contiguous() for name in found if places[name] == file}
        save_file(part, model / "unet" / file, metadata={"format": "pt"})
    (model / UNET).unlink()
    (model / f"{UNET}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def _pair(model: Path) -> None:
    folder = model / "tokenizer"
    found = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(found["vocab"]))
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in found["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(pairs) + "\n")


FORMS: dict[str, Callable[[Path], object]] = {
    "as it is": lambda model: None,
    "half precision alone": _half,
    "brain floats": _rewritten(UNET, lambda name, value: (name, value.bfloat16())),
    "doubles": _rewritten(TEXT, lambda name, value: (name, value.double() * (1 + 1e-9))),
    "shards": _shards,
    "old names of the VAE": _rewritten(VAE, _old_attention),
    "old names of the text encoder": _rewritten(TEXT, lambda name, value: (f"text_model.{name}", value)),
    "numbered places": lambda model: save_file(
        load_file(model / TEXT) | {"embeddings.position_ids": torch.arange(24)[None]}, model / TEXT, {"format": "pt"}
    ),
    "vocab.json and merges.txt": _pair,
}


@pytest.mark.parametrize("form", FORMS)
def test_what_is_loaded_is_what_the_libraries_load(v1: Path, tmp_path: Path, form: str) -> None:
    """Every tensor, buffer and token, and the states of a text."""
    model = Path(shutil.copytree(v1, tmp_path / "model"))
    FORMS[form](model)

    _same_as_pretrained(model)


def test_the_embedded_base_is_what_the_libraries_load() -> None:
    """Half precision in the plain file."""
    _same_as_pretrained(weights.directory())


def _same_as_pretrained(model: Path) -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from transformers import CLIPTextModel, CLIPTokenizer

    ours = StableDiffusion.load(model, digest=describe(model).digest)
    half = {part: "fp16" if list((model / part).glob("*.fp16.*")) else None for part in ("unet", "text_encoder")}
    unet: Any = UNet2DConditionModel.from_pretrained(
        model, subfolder="unet", torch_dtype=torch.float32, variant=half["unet"]
    )
    vae: Any = AutoencoderKL.from_pretrained(model, subfolder="vae", torch_dtype=torch.float32)
    text: Any = CLIPTextModel.from_pretrained(
        model, subfolder="text_encoder", dtype=torch.float32, variant=half["text_encoder"]
    )
    tokenizer = CLIPTokenizer.from_pretrained(model, subfolder="tokenizer")
    scheduler: Any = DDIMScheduler.from_pretrained(model, subfolder="scheduler", clip_sample=False)

    for mine, theirs in ((ours.unet, unet), (ours.vae, vae), (ours.text_encoder, text)):
        one, other = (dict(each.state_dict()) | dict(each.named_buffers()) for each in (mine, theirs))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one)
        assert all(value.is_contiguous() and not value.requires_grad for value in mine.parameters())
        assert not mine.training
    words = ["a portrait of ada quill", "", "CLEO  marsh!"]
    length = ours.tokenizer.model_max_length
    tokens = tokenizer(words, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
    mine_tokens = ours.tokenizer(words, padding="max_length", truncation=True, return_tensors="pt").input_ids
    assert torch.equal(tokens, mine_tokens) and len(ours.tokenizer) == len(tokenizer)
    with torch.no_grad():
        assert torch.equal(ours.text_encoder(tokens)[0], text(tokens)[0])
    assert torch.equal(ours.scheduler.alphas_cumprod, scheduler.alphas_cumprod)
    provenance = {"_class_name", "_diffusers_version"}
    assert {name: ours.scheduler.config[name] for name in scheduler.config.keys() - provenance} == {
        name: scheduler.config[name] for name in scheduler.config.keys() - provenance
    }


@pytest.mark.parametrize(
    "file", [UNET, VAE, TEXT, "scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json"]
)
def test_files_exchanged_after_the_check_are_never_loaded(v1: Path, tmp_path: Path, file: str) -> None:
    """Another file of the same shape: a sentence, no model."""
    model = Path(shutil.copytree(v1, tmp_path / "model"))
    digest = describe(model).digest
    if file.endswith(".json"):
        (model / file).write_text((model / file).read_text() + " ")
    else:
        _rewritten(file, lambda name, value: (name, value + 1e-3))(model)

    with pytest.raises(Exchanged, match="not those that were checked"):
        StableDiffusion.load(model, digest=digest)


def test_files_exchanged_while_loading_are_never_loaded(
    v1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The description was made, the header was read, then the file became another: what was read is what is hashed."""
    from resurgence_harness.diffusion import loading

    model = Path(shutil.copytree(v1, tmp_path / "model"))
    digest = describe(model).digest
    empty = loading._empty

    def exchange(part: str, settings: Any) -> Any:
        if part == "unet":
            _rewritten(UNET, lambda name, value: (name, value + 1e-3))(model)
        return empty(part, settings)

    monkeypatch.setattr(loading, "_empty", exchange)
    with pytest.raises(UserError):
        StableDiffusion.load(model, digest=digest)


def test_the_bytes_that_were_described_are_those_of_small_files(
    v1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A config and a tokenizer that change after they were read change nothing: they are not opened again."""
    from resurgence_harness.diffusion import loading

    model = Path(shutil.copytree(v1, tmp_path / "model"))
    digest = describe(model).digest
    check = loading.check_settings

    def exchange(description: Any) -> Any:
        for name in ("unet/config.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer.json"):
            (model / name).write_text("{}")
        return check(description)

    monkeypatch.setattr(loading, "check_settings", exchange)
    loaded = StableDiffusion.load(model, digest=digest)

    assert loaded.prediction_type == "epsilon" and len(loaded.tokenizer) > 100
