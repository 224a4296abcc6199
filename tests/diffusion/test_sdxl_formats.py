"""Formats of Stable Diffusion XL: single files, LoRAs of both text encoders, U-Nets, v-prediction children."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from resurgence_harness.diffusion.differences import settings_difference
from resurgence_harness.diffusion.formats import Candidate, Source, materialise
from resurgence_harness.diffusion.formats.as_parent import as_parent
from resurgence_harness.diffusion.formats.lora_keys import original_name
from resurgence_harness.diffusion.lineage import lineage
from resurgence_harness.diffusion.model import StableDiffusion, tensors
from resurgence_harness.diffusion.model_files import ModelFiles
from resurgence_harness.diffusion.trainer import write_model
from resurgence_harness.errors import UserError
from tests.original_layout import _unet, original_layout, original_layout_xl
from tests.tiny import save_tiny_stable_diffusion, save_tiny_stable_diffusion_xl

Make = Callable[..., Candidate]
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SDXL."""
    return save_tiny_stable_diffusion_xl(tmp_path_factory.mktemp("xl") / "base")


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusion:
    """Another one, of the same shapes."""
    return StableDiffusion.load(save_tiny_stable_diffusion_xl(tmp_path_factory.mktemp("xl") / "child", seed=5))


@pytest.fixture(scope="module")
def v1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SD v1."""
    return save_tiny_stable_diffusion(tmp_path_factory.mktemp("v1") / "base")


@pytest.fixture
def make(base: Path, tmp_path: Path) -> Make:
    """The candidate of some files on the tiny SDXL."""

    def made(*paths: Path | Source, on: Path | None = base) -> Candidate:
        sources = [one if isinstance(one, Source) else Source(path=one) for one in paths]
        return materialise(sources, on, tmp_path / "made")

    return made


def saved(found: Tensors, path: Path, metadata: dict[str, str] | None = None) -> Path:
    """The tensors as a file."""
    save_file({name: value.contiguous().clone() for name, value in found.items()}, path, metadata)
    return path


def everything(model: StableDiffusion) -> Tensors:
    """All tensors of U-Net, text encoders and VAE."""
    return {**tensors(model), **{f"vae.{name}": value for name, value in model.vae.state_dict().items()}}


def loaded(candidate: Candidate) -> StableDiffusion:
    """The candidate, with the bytes that were described."""
    return StableDiffusion.load(candidate.base.location, digest=candidate.base.digest)


def assert_same(found: Tensors, expected: Tensors) -> None:
    """Every tensor, bit for bit."""
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


def test_a_directory_is_used_where_it_lies(make: Make, child: StableDiffusion, tmp_path: Path) -> None:
    """And written again by this package, it is the same model."""
    write_model(child, tmp_path / "written")
    found = make(tmp_path / "written")
    assert Path(found.base.location) == tmp_path / "written"
    assert_same(everything(loaded(found)), everything(child))


def test_a_single_file_is_what_diffusers_reads(make: Make, base: Path, child: StableDiffusion, tmp_path: Path) -> None:
    """Tensor by tensor that of from_single_file, and of the model that was written."""
    from diffusers import StableDiffusionXLPipeline

    path = saved(original_layout_xl(child), tmp_path / "child.safetensors")
    found = everything(loaded(make(path)))
    assert_same(found, everything(child))
    pipeline = StableDiffusionXLPipeline.from_single_file(str(path), config=str(base), local_files_only=True)
    theirs = {
        f"{part}.{name}": value
        for part in ("unet", "vae", "text_encoder", "text_encoder_2")
        for name, value in getattr(pipeline, part).state_dict().items()
    }
    assert_same(found, {name: value.float() for name, value in theirs.items()})


def test_a_single_file_without_vae_has_its_parents(
    make: Make, base: Path, child: StableDiffusion, tmp_path: Path
) -> None:
    """A remark names what is missing."""
    names = original_layout_xl(child)
    kept = {name: value for name, value in names.items() if not name.startswith("first_stage_model.")}
    found = make(saved(kept, tmp_path / "child.safetensors"))
    parent = everything(StableDiffusion.load(base))
    read = everything(loaded(found))
    assert all(torch.equal(value, parent[name]) for name, value in read.items() if name.startswith("vae."))
    assert not torch.equal(read["unet.conv_in.weight"], parent["unet.conv_in.weight"])
    assert any("no VAE" in note for note in found.notes) or not found.notes


def test_a_unet_alone_replaces_the_unet(make: Make, child: StableDiffusion, tmp_path: Path) -> None:
    """In diffusers' layout and in the original one."""
    plain = saved(dict(child.unet.state_dict()), tmp_path / "unet.safetensors")
    names = {
        name.removeprefix("model.diffusion_model."): value
        for name, value in original_layout_xl(child).items()
        if name.startswith("model.diffusion_model.")
    }
    original = saved(names, tmp_path / "original.safetensors")
    for path in (plain, original):
        found = loaded(make(path)).unet.state_dict()
        assert all(torch.equal(found[name], value) for name, value in child.unet.state_dict().items())


@pytest.mark.parametrize("part", ["text_encoder", "text_encoder_2"])
def test_a_text_encoder_alone_replaces_it(part: str, make: Make, child: StableDiffusion, tmp_path: Path) -> None:
    """Which one it is, its projection tells."""
    path = saved(dict(getattr(child, part).state_dict()), tmp_path / "encoder.safetensors")
    found = loaded(make(path))
    assert all(torch.equal(getattr(found, part).state_dict()[name], value) for name, value in _state(child, part))
    other = {"text_encoder": "text_encoder_2", "text_encoder_2": "text_encoder"}[part]
    assert not all(torch.equal(getattr(found, other).state_dict()[name], value) for name, value in _state(child, other))


def _state(model: StableDiffusion, part: str) -> list[tuple[str, torch.Tensor]]:
    return list(getattr(model, part).state_dict().items())


LAYERS = {
    "unet": (
        "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k",
        "mid_block.attentions.0.transformer_blocks.2.attn1.to_out.0",
        "up_blocks.0.attentions.2.proj_in",
        "up_blocks.1.attentions.1.transformer_blocks.0.ff.net.0.proj",
    ),
    # Without out_proj diffusers does not recognise kohya's text encoder layers.
    "text_encoder": (
        "encoder.layers.1.self_attn.q_proj",
        "encoder.layers.1.self_attn.out_proj",
        "encoder.layers.0.mlp.fc1",
    ),
    "text_encoder_2": (
        "text_model.encoder.layers.1.self_attn.v_proj",
        "text_model.encoder.layers.1.self_attn.out_proj",
        "text_model.encoder.layers.2.mlp.fc2",
    ),
}


def pairs(model: StableDiffusion, *, rank: int = 2, seed: int = 3) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Layer → random (down, up) of a LoRA."""
    generator, known, found = torch.Generator().manual_seed(seed), tensors(model), {}
    for part, layers in LAYERS.items():
        for layer in layers:
            out, inside = known[f"{part}.{layer}.weight"].shape
            found[f"{part}.{layer}"] = (
                torch.randn(rank, inside, generator=generator),
                torch.randn(out, rank, generator=generator),
            )
    return found


def in_kohya(found: dict[str, tuple[torch.Tensor, torch.Tensor]], *, original: bool, alpha: float = 1.0) -> Tensors:
    """lora_unet_…, lora_te1_…, lora_te2_…; the U-Net's layers by diffusers' names or the original ones."""
    written: Tensors = {}
    for name, (down, up) in found.items():
        part, _, layer = name.partition(".")
        if part == "unet":
            key = f"lora_unet_{original_name(layer, 2) if original else layer}".replace(".", "_")
        elif part == "text_encoder":
            key = f"lora_te1_text_model_{layer}".replace(".", "_")
        else:
            key = f"lora_te2_{layer}".replace(".", "_")
        written |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(alpha)}
    return written


def in_diffusers(found: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> Tensors:
    """unet.….lora_A.weight, text_encoder_2.text_model.….lora_A.weight."""
    written: Tensors = {}
    for name, (down, up) in found.items():
        part, _, layer = name.partition(".")
        layer = f"text_model.{layer}" if part == "text_encoder" else layer
        written |= {f"{part}.{layer}.lora_A.weight": down, f"{part}.{layer}.lora_B.weight": up}
    return written


@pytest.mark.parametrize("layout", ["kohya", "kohya, original names", "diffusers"])
def test_a_lora_gives_the_weights_that_diffusers_gives(layout: str, make: Make, base: Path, tmp_path: Path) -> None:
    """Of U-Net and both text encoders, as load_lora_weights and fuse_lora change them."""
    model = StableDiffusion.load(base)
    found = pairs(model)
    written = in_diffusers(found) if layout == "diffusers" else in_kohya(found, original="original" in layout)
    path = saved(written, tmp_path / "lora.safetensors")
    ours = tensors(loaded(make(path)))
    pipeline = StableDiffusion.load(base).pipeline()
    pipeline.load_lora_weights(str(path))
    pipeline.fuse_lora(components=["unet", "text_encoder", "text_encoder_2"])
    pipeline.unload_lora_weights()
    before = tensors(model)
    assert {name for name, value in ours.items() if not torch.equal(value, before[name])} == {
        f"{name}.weight" for name in found
    }
    theirs = {
        f"{part}.{name}": value for part in LAYERS for name, value in getattr(pipeline, part).state_dict().items()
    }
    assert ours.keys() == theirs.keys()
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < 1e-5


def test_two_loras_add_up_by_their_weights(make: Make, base: Path, tmp_path: Path) -> None:
    """On a single file, as a release engineer gives them."""
    model = StableDiffusion.load(base)
    one, two = pairs(model, seed=1), pairs(model, seed=2)
    single = saved(original_layout_xl(model), tmp_path / "whole.safetensors")
    first = saved(in_kohya(one, original=True, alpha=2.0), tmp_path / "one.safetensors")
    second = saved(in_diffusers(two), tmp_path / "two.safetensors")
    found = tensors(loaded(make(single, Source(path=first, weight=0.5), Source(path=second, weight=-0.25))))
    before = tensors(model)
    for name in one:
        delta = 0.5 * one[name][1] @ one[name][0] - 0.25 * two[name][1] @ two[name][0]
        assert torch.allclose(found[f"{name}.weight"], before[f"{name}.weight"] + delta, atol=1e-5)


def test_the_original_names_are_those_of_the_original_layout(base: Path) -> None:
    """Of every layer of the U-Net that a LoRA can change."""
    model = StableDiffusion.load(base)
    plain = {place for place, kind in enumerate(model.unet.config.up_block_types) if kind == "UpBlock2D"}
    layers = {name.rpartition(".")[0] for name, value in model.unet.state_dict().items() if value.ndim >= 2}
    checked = {layer: original_name(layer, 2) for layer in layers if original_name(layer, 2)}
    assert checked == {layer: _unet(f"{layer}.weight", plain).removesuffix(".weight") for layer in checked}
    assert layers - checked.keys() == {"up_blocks.0.upsamplers.0.conv", "up_blocks.1.upsamplers.0.conv"}


@pytest.mark.parametrize(
    ("markers", "metadata", "expected"),
    [
        (("v_pred",), {}, {"prediction_type": "v_prediction"}),
        (
            ("v_pred", "ztsnr"),
            {},
            {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
        ),
        ((), {"modelspec.prediction_type": "v"}, {"prediction_type": "v_prediction"}),
        ((), {}, {}),
    ],
)
def test_a_child_is_drawn_with_the_schedule_that_it_states(
    markers: tuple[str, ...],
    metadata: dict[str, str],
    expected: dict[str, Any],
    make: Make,
    base: Path,
    child: StableDiffusion,
    tmp_path: Path,
) -> None:
    """By a tensor or metadata; the difference from the parent is reported."""
    names = {**original_layout_xl(child), **{name: torch.tensor([]) for name in markers}}
    found = make(saved(names, tmp_path / "child.safetensors", metadata))
    config = json.loads((Path(found.base.location) / "scheduler/scheduler_config.json").read_text())
    assert {name: config.get(name) for name in expected} == expected
    differs = settings_difference(found.base.location, base)
    assert {phrase.split()[1] for phrase in differs if phrase.startswith("scheduler:")} == expected.keys()
    if expected:
        assert any("its own noise schedule" in note for note in found.notes)
        assert loaded(found).prediction.name == "v_prediction"


def test_a_unet_that_predicts_velocity_needs_its_own_scheduler(
    make: Make, child: StableDiffusion, tmp_path: Path
) -> None:
    """Alone, in diffusers' layout, it has none."""
    path = saved(dict(child.unet.state_dict()), tmp_path / "unet.safetensors", {"modelspec.prediction_type": "v"})
    with pytest.raises(UserError, match="does not predict what the base predicts"):
        make(path)


def test_as_its_parent_is_asked(base: Path, child: StableDiffusion, tmp_path: Path) -> None:
    """U-Net and both text encoders of the child, everything else of its parent."""
    write_model(child, tmp_path / "child")
    mine, parent = ModelFiles(tmp_path / "child"), ModelFiles(base)
    found = StableDiffusion.load(as_parent(mine, parent, tmp_path / "out").location)
    assert_same(tensors(found), tensors(child))
    other = everything(StableDiffusion.load(base))
    assert all(torch.equal(value, other[f"vae.{name}"]) for name, value in found.vae.state_dict().items())
    assert lineage(mine, base=parent).comparisons["candidate", "base"].unmatched == ()


def _without(names: Tensors, start: str) -> Tensors:
    return {name: value for name, value in names.items() if not name.startswith(start)}


def test_files_of_the_other_family_are_refused_in_a_sentence(
    make: Make, base: Path, v1: Path, child: StableDiffusion, tmp_path: Path
) -> None:
    """In both directions, and by the names that tell it."""
    old = StableDiffusion.load(v1)
    xl_unet = saved(dict(child.unet.state_dict()), tmp_path / "xl.safetensors")
    old_unet = saved(dict(old.unet.state_dict()), tmp_path / "old.safetensors")
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    down, up = torch.zeros(2, 32), torch.zeros(32, 2)
    old_lora = saved({f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up}, tmp_path / "lora.safetensors")
    xl_lora = saved(in_kohya(pairs(child), original=True), tmp_path / "xl-lora.safetensors")
    old_file = saved(original_layout(old), tmp_path / "old-file.safetensors")
    for path in (old_unet, old_lora, old_file):
        with pytest.raises(UserError, match=r"is of Stable Diffusion v1 or v2, and its base is of Stable Diffusion XL"):
            make(path)
    for path in (xl_unet, xl_lora, saved(original_layout_xl(child), tmp_path / "xl-file.safetensors")):
        with pytest.raises(UserError, match=r"is of Stable Diffusion XL, and its base is of Stable Diffusion v1 or v2"):
            make(path, on=v1)


def test_what_draws_from_more_than_a_text_is_refused_by_name(
    make: Make, child: StableDiffusion, tmp_path: Path
) -> None:
    """The refiner, inpainting U-Nets and ControlNets, as single files and as parts."""
    names = original_layout_xl(child)
    refiner = {name.replace("embedders.1.", "embedders.0."): value for name, value in names.items()}
    refiner = _without(refiner, "conditioner.embedders.0.transformer.")
    state = dict(child.unet.state_dict())
    wide = {**state, "conv_in.weight": torch.zeros(384, 4, 3, 3)}
    inpainting = {**names, "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(32, 9, 3, 3)}
    control = {**state, "controlnet_cond_embedding.conv_in.weight": torch.zeros(16, 3, 3, 3)}
    for found, words in (
        (refiner, "is the refiner of Stable Diffusion XL"),
        (wide, "is the refiner of Stable Diffusion XL"),
        (inpainting, "is for inpainting"),
        (control, "is a ControlNet"),
        ({"clip_g": torch.zeros(2, 32), "clip_l": torch.zeros(2, 24)}, "is an embedding for two text encoders"),
    ):
        with pytest.raises(UserError, match=words):
            make(saved(found, tmp_path / "odd.safetensors"))


def test_an_embedding_of_one_text_encoder_is_refused(make: Make, tmp_path: Path) -> None:
    """It would fit the first text encoder's width."""
    with pytest.raises(UserError, match="for one text encoder, and the base has two"):
        make(saved({"emb_params": torch.zeros(1, 24)}, tmp_path / "word.safetensors"))


def _changed(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


ODD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no second text encoder": (
        lambda folder: (folder / "text_encoder_2/config.json").unlink(),
        "text_encoder_2/config.json is missing",
    ),
    "its weights": (
        lambda folder: (folder / "text_encoder_2/model.safetensors").unlink(),
        "no weights in text_encoder_2/",
    ),
    "null in the index": (
        lambda folder: _changed(folder, "model_index.json", text_encoder_2=[None, None]),
        "has a text_encoder_2 of another class",
    ),
    "pooled width": (
        lambda folder: _changed(folder, "unet/config.json", projection_class_embeddings_input_dim=100),
        "unet and the text_encoder_2 .* do not belong together",
    ),
    "sizes that do not fit": (
        lambda folder: _changed(folder, "unet/config.json", addition_time_embed_dim=12),
        "has a setting that no Stable Diffusion has",
    ),
    "a width of sizes": (
        lambda folder: _changed(folder, "unet/config.json", addition_time_embed_dim=6),
        "do not belong together",
    ),
    "a VAE of sixteen channels": (
        lambda folder: _changed(folder, "vae/config.json", latent_channels=16),
        "The unet and the vae .* do not belong together",
    ),
    "a VAE of SD": (
        lambda folder: _changed(folder, "vae/config.json", scaling_factor=0.18215),
        "The vae .* is of another family than its unet",
    ),
    "a U-Net of SD": (
        lambda folder: _changed(
            folder,
            "unet/config.json",
            addition_embed_type=None,
            addition_time_embed_dim=None,
            projection_class_embeddings_input_dim=None,
        ),
        "is of another family than its model_index.json says",
    ),
    "an inpainting pipeline": (
        lambda folder: _changed(folder, "model_index.json", _class_name="StableDiffusionXLInpaintPipeline"),
        "is not a Stable Diffusion",
    ),
    "an empty text that is neither": (
        lambda folder: _changed(folder, "model_index.json", force_zeros_for_empty_prompt="yes"),
        "has a setting that no Stable Diffusion has",
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_a_directory_that_does_not_fit_together_is_refused(kind: str, make: Make, tmp_path: Path) -> None:
    """In one sentence, before anything is built."""
    folder = save_tiny_stable_diffusion_xl(tmp_path / "odd")
    change, words = ODD[kind]
    change(folder)
    with pytest.raises(UserError, match=words):
        make(folder)
