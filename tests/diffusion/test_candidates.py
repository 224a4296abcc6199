"""Every format of a candidate becomes the model that it means, and what does not fit is one sentence."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from resurgence_harness.diffusion.base_files import check_base, digest_of
from resurgence_harness.diffusion.formats import Candidate, Cover, Source, materialise
from resurgence_harness.diffusion.model import StableDiffusion, tensors
from resurgence_harness.diffusion.model_files import ModelFiles
from resurgence_harness.errors import UserError
from tests.original_layout import clip_names, original_layout, unet_names, vae_names
from tests.tiny import save_tiny_stable_diffusion

pytestmark = pytest.mark.slow

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of v1's style with other weights."""
    return save_tiny_stable_diffusion(tmp_path_factory.mktemp("other"), seed=7)


@pytest.fixture(scope="module")
def changed(other: Path) -> StableDiffusion:
    """The same, loaded."""
    return StableDiffusion.load(other)


@pytest.fixture
def make(v1: Path, tmp_path: Path) -> Callable[..., Candidate]:
    """make(path, …) on v1, or on another base."""

    def make(*paths: Path | Source, base: Path | None = v1) -> Candidate:
        sources = [path if isinstance(path, Source) else Source(path=path) for path in paths]
        return materialise(sources, base, tmp_path / "made")

    return make


def save(found: dict[str, Any], path: Path, metadata: dict[str, str] | None = None) -> Path:
    """Tensors as a file."""
    save_file({name: value.contiguous().clone() for name, value in found.items()}, path, metadata)
    return path


Tensors = dict[str, torch.Tensor]


def everything(model: StableDiffusion | Tensors) -> Tensors:
    """All tensors, the VAE's too."""
    if isinstance(model, dict):
        return model
    return {**tensors(model), **{f"vae.{name}": value for name, value in model.vae.state_dict().items()}}


def read(candidate: Candidate) -> Tensors:
    """Every tensor of the made directory, which is checked as any base is."""
    check_base(candidate.base.location)
    assert candidate.base.digest == digest_of(candidate.base.location)
    files = ModelFiles(candidate.base.location)
    return {name: torch.from_numpy(np.array(weight.values(), np.float32)) for name, weight in files.items()}


def assert_equal(found: Tensors, expected: StableDiffusion | Tensors, parts: Iterable[str]) -> None:
    """Bit for bit the expected tensors in these parts."""
    theirs = everything(expected)
    assert found.keys() == theirs.keys()
    for name, value in found.items():
        if name.startswith(tuple(parts)):
            assert torch.equal(value, theirs[name]), name


def lora(
    model: StableDiffusion, *, seed: int = 0, rank: int = 3, unet: Iterable[str], text: Iterable[str] = ()
) -> dict[str, Any]:
    """Module → (down, up), random, for modules of the U-Net and the text encoder."""
    draw = torch.Generator().manual_seed(seed)
    found = {}
    for part, names in (("unet", unet), ("text_encoder", text)):
        for name in names:
            weight = getattr(model, part).get_submodule(name).weight
            out, rest = weight.shape[0], weight.shape[1:]
            ones = (1,) * (len(rest) - 1)
            found[f"{part}.{name}"] = (
                torch.randn(rank, *rest, generator=draw) / 10,
                torch.randn(out, rank, *ones, generator=draw) / 10,
            )
    return found


ATTENTION = (
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k",
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0",
    "up_blocks.2.attentions.1.transformer_blocks.0.ff.net.0.proj",
    "up_blocks.2.attentions.1.proj_in",
)
CONVOLUTIONS = (
    "down_blocks.0.resnets.0.conv1",
    "up_blocks.1.resnets.0.conv_shortcut",
    "down_blocks.1.downsamplers.0.conv",
)
WORDS = ("encoder.layers.0.self_attn.q_proj", "encoder.layers.1.mlp.fc1")


def in_peft(pairs: dict[str, Any]) -> dict[str, torch.Tensor]:
    """diffusers' layout with peft's names."""
    names = {True: "text_encoder.text_model.", False: ""}
    found = {}
    for module, (down, up) in pairs.items():
        words = module.startswith("text_encoder.")
        module = names[words] + module.removeprefix("text_encoder.") if words else module
        found |= {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}
    return found


def in_kohya(pairs: dict[str, Any], *, alpha: float) -> dict[str, torch.Tensor]:
    """The web interfaces' layout."""
    found = {}
    for module, (down, up) in pairs.items():
        part, _, layer = module.partition(".")
        name = ("lora_unet_" if part == "unet" else "lora_te_text_model_") + layer.replace(".", "_")
        found |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        found[f"{name}.alpha"] = torch.tensor(alpha)
    return found


# Weights that replace


def test_a_directory_is_used_where_it_lies(make, other: Path) -> None:
    """Checked against the base, not copied."""
    candidate = make(other)

    assert candidate.base.location == str(other) and candidate.base.digest == digest_of(other)
    assert make(other, base=None).base.digest == candidate.base.digest


@pytest.mark.parametrize("style", ["v1", "v2"])
def test_a_single_file_comes_back_as_it_was(style: str, make, v1: Path, v2: Path, changed, tmp_path: Path) -> None:
    """Original layout → equal tensors in all three parts; v1 with CLIP's names, v2 with OpenCLIP's, wider states."""
    base, model = v1, changed
    if style == "v2":
        base = v2
        model = StableDiffusion.load(
            save_tiny_stable_diffusion(
                tmp_path / "other", seed=7, prediction_type="v_prediction", pad_token="!", text_width=48
            )
        )
    found = original_layout(model, openclip=style == "v2")
    found["alphas_cumprod"] = model.scheduler.alphas_cumprod
    found["model_ema.decay"] = torch.tensor(0.9999)
    candidate = make(save(found, tmp_path / "model.safetensors"), base=base)

    assert_equal(read(candidate), model, ("unet", "vae", "text_encoder"))
    again = StableDiffusion.load(candidate.base.location)
    assert_equal(everything(again), model, ("unet", "vae", "text_encoder"))
    assert again.prediction_type == model.prediction_type


def test_the_original_names_of_these_tests_are_the_real_ones(model) -> None:
    """The tensors by which diffusers tells v1 and v2 apart are among them; SD v1's U-Net has 686."""
    from diffusers.loaders.single_file_utils import CHECKPOINT_KEY_NAMES as names

    first, second = original_layout(model), original_layout(model, openclip=True)
    assert {names["v1"], names["v2"], names["clip"], names["inpainting"]} <= first.keys()
    assert {names["v1"], names["v2"], names["open_clip"]} <= second.keys()
    assert sum(name.startswith("model.diffusion_model.") for name in first) == 686


def test_text_states_as_wide_as_v2s(tmp_path: Path, make) -> None:
    """A single file with 1024-wide text states fits a base of that width, and is refused by a narrower one."""
    wide = save_tiny_stable_diffusion(tmp_path / "wide", text_width=1024, prediction_type="v_prediction", pad_token="!")
    model = StableDiffusion.load(wide)
    path = save(original_layout(model, openclip=True), tmp_path / "model.safetensors")

    assert_equal(read(make(path, base=wide)), model, ("unet", "vae", "text_encoder"))
    with pytest.raises(UserError, match="another shape than the base"):
        make(path)


@pytest.mark.parametrize("layout", ["diffusers", "prefixed", "original", "bare original"])
def test_a_unet_alone_replaces_the_unet(layout: str, make, changed, model, tmp_path: Path) -> None:
    """The other parts stay the base's."""
    names = changed.unet.state_dict()
    roof = "model.diffusion_model."
    found = {
        "diffusers": names,
        "prefixed": {f"unet.{name}": value for name, value in names.items()},
        "original": unet_names(changed),
        "bare original": {name.removeprefix(roof): value for name, value in unet_names(changed).items()},
    }[layout]
    result = read(make(save(found, tmp_path / "unet.safetensors")))

    assert_equal(result, changed, ["unet"])
    assert_equal(result, model, ["text_encoder", "vae"])


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_a_part_saved_as_a_directory_replaces_it(part: str, make, other: Path, changed, model) -> None:
    """What save_pretrained() of one model writes."""
    result = read(make(other / part))

    assert_equal(result, changed, [part])
    assert_equal(result, model, {"unet", "text_encoder", "vae"} - {part})


@pytest.mark.parametrize("layout", ["transformers", "wrapped", "original"])
def test_a_text_encoder_alone_replaces_it(layout: str, make, changed, model, tmp_path: Path) -> None:
    """With and without the wrapper's prefix, and in the original layout."""
    names = changed.text_encoder.state_dict()
    found = {
        "transformers": names,
        "wrapped": {f"text_model.{name}": value for name, value in names.items()},
        "original": clip_names(changed),
    }[layout]
    result = read(make(save(found, tmp_path / "text.safetensors")))

    assert_equal(result, changed, ["text_encoder"])
    assert_equal(result, model, ["unet", "vae"])


def test_a_vae_in_the_original_layout_replaces_it(make, changed, model, tmp_path: Path) -> None:
    """Part of a single file."""
    result = read(make(save(vae_names(changed), tmp_path / "vae.safetensors")))

    assert_equal(result, changed, ["vae"])
    assert_equal(result, model, ["unet", "text_encoder"])


def test_half_precision_is_widened_exactly(make, changed, tmp_path: Path) -> None:
    """Half-precision numbers come out as the same numbers in float32."""
    halves = {name: value.half() for name, value in changed.unet.state_dict().items()}
    result = read(make(save(halves, tmp_path / "unet.safetensors")))

    assert all(torch.equal(result[f"unet.{name}"], value.float()) for name, value in halves.items())


def test_some_layers_of_a_unet_only_when_said_so(make, changed, model, tmp_path: Path) -> None:
    """A file that lacks layers is broken, unless the person says that it covers some."""
    some = {name: value for name, value in changed.unet.state_dict().items() if ".attn2.to_k." in name}
    path = save(some, tmp_path / "esd.safetensors")

    with pytest.raises(UserError, match=r"lacks tensors of the unet.\n.*670 of 686"):
        make(path)
    result = read(make(Source(path=path, cover=Cover.SOME)))
    assert_equal(result, everything(model) | {f"unet.{name}": value for name, value in some.items()}, [""])


# LoRA


def test_kohya_and_peft_mean_the_same_model(make, model, tmp_path: Path) -> None:
    """The same numbers in both layouts give the same weights, convolutions and text encoder included."""
    pairs = lora(model, unet=(*ATTENTION, *CONVOLUTIONS), text=WORDS)
    peft = read(make(save(in_peft(pairs), tmp_path / "peft.safetensors")))
    kohya = read(make(save(in_kohya(pairs, alpha=3), tmp_path / "kohya.safetensors")))  # alpha = rank: scale 1

    ours, theirs, base = peft, kohya, everything(model)
    moved = {name for name in ours if not torch.equal(ours[name], base[name])}
    assert moved == {f"{module}.weight" for module in pairs}
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < 1e-6
    for module, (down, up) in pairs.items():
        expected = base[f"{module}.weight"] + (up.flatten(1) @ down.flatten(1)).reshape(base[f"{module}.weight"].shape)
        assert torch.allclose(ours[f"{module}.weight"], expected, atol=1e-6)


@pytest.mark.parametrize("layout", ["peft", "kohya", "saved by diffusers"])
def test_the_fused_weights_are_those_that_diffusers_fuses(layout: str, make, v1: Path, model, tmp_path: Path) -> None:
    """load_lora_weights and fuse_lora of the real pipeline, with alpha unlike rank and a weight of 0.7."""
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    path = tmp_path / "pytorch_lora_weights.safetensors"
    if layout == "saved by diffusers":
        from diffusers.utils import convert_state_dict_to_diffusers
        from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model

        pipeline = StableDiffusion.load(v1).pipeline()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            settings: dict[str, Any] = {"r": 4, "init_lora_weights": False}
            pipeline.unet.add_adapter(
                LoraConfig(lora_alpha=6, target_modules=["to_k", "to_out.0", "conv1"], use_rslora=True, **settings)
            )
            # peft's own way in: transformers' add_adapter may ask for a newer peft than there is.
        inject_adapter_in_model(LoraConfig(lora_alpha=2, target_modules=["q_proj"], **settings), pipeline.text_encoder)
        states = {
            part: convert_state_dict_to_diffusers(get_peft_model_state_dict(getattr(pipeline, part)))
            for part in ("unet", "text_encoder")
        }
        StableDiffusionPipeline.save_lora_weights(
            tmp_path,
            unet_lora_layers=states["unet"],
            text_encoder_lora_layers=states["text_encoder"],
            unet_lora_adapter_metadata=pipeline.unet.peft_config["default"].to_dict(),
            text_encoder_lora_adapter_metadata=pipeline.text_encoder.peft_config["default"].to_dict(),
        )
    else:
        # Without out_proj diffusers does not recognise kohya's text encoder layers.
        text = ("encoder.layers.0.self_attn.q_proj", "encoder.layers.0.self_attn.out_proj")
        pairs = lora(model, unet=ATTENTION[:3], text=text)
        save(in_peft(pairs) if layout == "peft" else in_kohya(pairs, alpha=1.5), path)
    reference = StableDiffusion.load(v1).pipeline()
    reference.load_lora_weights(str(path))
    reference.fuse_lora(lora_scale=0.7)
    reference.unload_lora_weights()
    ours = {n: v for n, v in read(make(Source(path=path, weight=0.7))).items() if not n.startswith("vae.")}
    base = tensors(model)
    theirs = {
        f"{part}.{name}": value
        for part in ("unet", "text_encoder")
        for name, value in getattr(reference, part).state_dict().items()
    }

    assert ours.keys() == theirs.keys()
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < 1e-6
    assert any(name.startswith("unet") and not torch.equal(ours[name], base[name]) for name in ours)
    assert any(name.startswith("text") and not torch.equal(ours[name], base[name]) for name in ours)


def test_the_names_of_attention_processors_are_understood(make, model, tmp_path: Path) -> None:
    """diffusers' layout before peft."""
    pairs = lora(model, unet=ATTENTION[:2], text=WORDS[:1])
    (a, b, c), (one, two, three) = pairs, pairs.values()
    old = {
        f"{a.replace('.to_k', '.processor.to_k')}_lora.down.weight": one[0],
        f"{a.replace('.to_k', '.processor.to_k')}_lora.up.weight": one[1],
        f"{b.replace('.to_out.0', '.processor.to_out')}_lora.down.weight": two[0],
        f"{b.replace('.to_out.0', '.processor.to_out')}_lora.up.weight": two[1],
        f"{c.replace('q_proj', 'to_q')}_lora.down.weight": three[0],
        f"{c.replace('q_proj', 'to_q')}_lora.up.weight": three[1],
    }
    new = make(save(in_peft(pairs), tmp_path / "new.safetensors"))
    result = make(save(old, tmp_path / "old.safetensors"))

    assert_equal(read(result), read(new), ("unet", "text_encoder", "vae"))


def test_an_adapter_of_peft_takes_alpha_from_its_config(make, model, tmp_path: Path) -> None:
    """adapter_model.safetensors beside adapter_config.json: alpha 6 of rank 3 is twice the matrices."""
    pairs = lora(model, unet=ATTENTION[:1])
    ((module, (down, up)),) = pairs.items()
    layer = f"base_model.model.{module.removeprefix('unet.')}"
    folder = tmp_path / "adapter"
    folder.mkdir()
    save({f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 3, "lora_alpha": 6, "use_dora": False}))
    weight = read(make(folder))[f"{module}.weight"]

    assert torch.allclose(weight, tensors(model)[f"{module}.weight"] + 2 * up @ down, atol=1e-6)
    (folder / "adapter_config.json").write_text(json.dumps({"r": 3, "lora_alpha": 6, "use_dora": True}))
    with pytest.raises(UserError, match="use_dora = True"):
        make(folder)


def test_several_loras_with_weights_add_up(make, model, tmp_path: Path) -> None:
    """W + 0.5 B₁A₁ − B₂A₂, on top of another U-Net's weights too."""
    first, second = (lora(model, unet=ATTENTION[:1], seed=seed) for seed in (1, 2))
    paths = [save(in_peft(pairs), tmp_path / f"{n}.safetensors") for n, pairs in enumerate((first, second))]
    candidate = make(Source(path=paths[0], weight=0.5), Source(path=paths[1], weight=-1))
    ((name, (down1, up1)),), ((_, (down2, up2)),) = first.items(), second.items()
    expected = tensors(model)[f"{name}.weight"] + 0.5 * up1 @ down1 - up2 @ down2

    assert torch.allclose(read(candidate)[f"{name}.weight"], expected, atol=1e-6)
    assert candidate.label.startswith("a LoRA × 0.5 + a LoRA × -1 on")


def test_a_lora_on_a_whole_model_starts_from_that_model(make, other: Path, changed, model, tmp_path: Path) -> None:
    """Directory first, LoRA second."""
    pairs = lora(model, unet=ATTENTION[:1])
    ((name, (down, up)),) = pairs.items()
    result = read(make(other, save(in_peft(pairs), tmp_path / "lora.safetensors")))

    assert torch.allclose(result[f"{name}.weight"], tensors(changed)[f"{name}.weight"] + up @ down, atol=1e-6)
    assert_equal(result, changed, ["text_encoder", "vae"])


# Embeddings


@pytest.mark.parametrize("layout", ["diffusers", "web interface"])
def test_an_embedding_is_a_new_word(layout: str, make, v1: Path, model, tmp_path: Path) -> None:
    """Tokens and text states are those that diffusers' own loading gives; other prompts are as before."""
    vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(3))
    if layout == "diffusers":
        path = save({"<ada>": vectors}, tmp_path / "learned_embeds.safetensors")
    else:
        path = save({"emb_params": vectors}, tmp_path / "<ada>.safetensors")
    candidate = make(path)
    result = StableDiffusion.load(candidate.base.location)
    reference = StableDiffusion.load(v1).pipeline()
    reference.load_textual_inversion({"<ada>": vectors})

    def states(tokenizer: Any, encoder: Any, text: str) -> torch.Tensor:
        tokens = tokenizer(text, padding="max_length", max_length=24, return_tensors="pt").input_ids
        return encoder(tokens).last_hidden_state

    asked = f"a portrait of {' '.join(candidate.tokens)}"
    assert candidate.tokens == ("<ada>", "<ada>_1")
    assert result.tokenizer.tokenize(asked) == reference.tokenizer.tokenize(asked)
    assert {"<ada>", "<ada>_1"} <= set(result.tokenizer.tokenize(asked))
    assert torch.allclose(
        states(result.tokenizer, result.text_encoder, asked),
        states(reference.tokenizer, reference.text_encoder, asked),
        atol=1e-6,
    )
    plain = "a portrait of ada quill"
    assert torch.allclose(
        states(result.tokenizer, result.text_encoder, plain),
        states(model.tokenizer, model.text_encoder, plain),
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("word", "shape", "words"),
    [
        ("ada</w>", (32,), "tokenizer already has"),
        ("two words", (32,), "no prompt can contain"),
        ("x" * 65, (32,), "no prompt can contain"),
        ("<ada>", (48,), "does not fit the base's text encoder"),
        ("<ada>", (0, 32), "does not fit the base's text encoder"),
        ("<ada>", (76, 32), "does not fit the base's text encoder"),
    ],
)
def test_an_embedding_that_cannot_be_used_is_refused(make, tmp_path: Path, word: str, shape: Any, words: str) -> None:
    """A known word, a word with a space, another width, too many vectors."""
    with pytest.raises(UserError, match=words):
        make(save({word: torch.zeros(shape)}, tmp_path / "word.safetensors"))


# What is refused


def _key(name: str) -> Callable[[StableDiffusion], dict[str, torch.Tensor]]:
    return lambda model: {name: torch.zeros(4, 4), "mid_block.x": torch.zeros(1)}


REFUSED: dict[str, tuple[Callable[[StableDiffusion], dict[str, torch.Tensor]], str]] = {
    "SDXL single file": (
        lambda _: {"conditioner.embedders.1.model.ln_final.weight": torch.zeros(4)},
        "is of Stable Diffusion XL, and its base is of Stable Diffusion v1 or v2",
    ),
    "SDXL U-Net": (
        lambda model: {**model.unet.state_dict(), "add_embedding.linear_1.weight": torch.zeros(4, 4)},
        "is of Stable Diffusion XL, and its base is of Stable Diffusion v1 or v2",
    ),
    "SDXL LoRA": (
        _key("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"),
        "is of Stable Diffusion XL, and its base is of Stable Diffusion v1 or v2",
    ),
    "SDXL's refiner": (_key("conditioner.embedders.0.model.ln_final.weight"), "the refiner of Stable Diffusion XL"),
    "SDXL embedding": (
        lambda _: {"clip_g": torch.zeros(2, 8), "clip_l": torch.zeros(2, 8)},
        "an embedding for two text encoders",
    ),
    "SD3": (_key("model.diffusion_model.joint_blocks.0.context_block.mlp.fc1.weight"), "of Stable Diffusion 3"),
    "Flux": (_key("double_blocks.0.img_attn.qkv.weight"), "of Flux"),
    "Flux LoRA": (_key("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight"), "of Flux"),
    "ControlNet": (_key("control_model.input_hint_block.0.weight"), "a ControlNet"),
    "ControlNet in diffusers": (_key("controlnet_cond_embedding.conv_in.weight"), "a ControlNet"),
    "IP-Adapter": (_key("ip_adapter.1.to_k_ip.weight"), "an IP-Adapter"),
    "AnimateDiff": (_key("down_blocks.0.motion_modules.0.proj_in.weight"), "an AnimateDiff"),
    "LoHa": (_key("lora_unet_mid_block_attentions_0_proj_in.hada_w1_a"), "a LoHa"),
    "magnitudes alone": (
        lambda _: {"lora_unet_mid_block_attentions_0_proj_in.dora_scale": torch.ones(48, 1)},
        "lacks one of a layer's two matrices",
    ),
    "inpainting": (
        lambda model: {**model.unet.state_dict(), "conv_in.weight": torch.zeros(32, 9, 3, 3)},
        "for inpainting",
    ),
    "VAE alone": (lambda model: model.vae.state_dict(), "a VAE alone"),
    "something else": (
        lambda _: {"layer.0.weight": torch.zeros(2, 2), "layer.0.bias": torch.zeros(2)},
        "is of no known format",
    ),
    "extra tensor": (
        lambda model: {**model.unet.state_dict(), "down_blocks.9.x": torch.zeros(1)},
        "tensors that the base's unet does not have",
    ),
    "extra original tensor": (
        lambda model: {
            **unet_names(model),
            "model.diffusion_model.input_blocks.1.0.in_layers.7.weight": torch.zeros(1),
        },
        "does not have|belong to no part",
    ),
    "unknown roof": (lambda model: {**unet_names(model), "other.weight": torch.zeros(1)}, "belong to no part"),
    "missing original tensor": (
        lambda model: {n: v for n, v in unet_names(model).items() if "time_embed" not in n},
        "lacks tensors of the unet",
    ),
    "other schedule": (
        lambda model: {**unet_names(model), "alphas_cumprod": model.scheduler.alphas_cumprod**2},
        "another noise schedule",
    ),
    "v prediction": (lambda model: {**unet_names(model), "v_pred": torch.zeros(1)}, "does not predict what the base"),
    "LoRA that matches nothing": (
        lambda _: {
            "lora_unet_foo.lora_down.weight": torch.zeros(2, 2),
            "lora_unet_foo.lora_up.weight": torch.zeros(2, 2),
        },
        r"match no layer of the base.\n.*2 of 2",
    ),
    "LoRA that matches in part": (
        lambda model: {**in_peft(lora(model, unet=ATTENTION[:1])), "unet.foo.lora_A.weight": torch.zeros(2, 2)},
        r"match no layer of the base.\n.*1 of 3",
    ),
    "half a LoRA": (
        lambda model: {n: v for n, v in in_peft(lora(model, unet=ATTENTION[:1])).items() if "lora_A" in n},
        "lacks one of a layer's two matrices",
    ),
    "LoRA of another width": (
        lambda _: {
            f"unet.{ATTENTION[0]}.lora_A.weight": torch.zeros(2, 768),
            f"unet.{ATTENTION[0]}.lora_B.weight": torch.zeros(32, 2),
        },
        "another shape than the base",
    ),
    "LoRA of two ranks": (
        lambda _: {
            f"unet.{ATTENTION[0]}.lora_A.weight": torch.zeros(2, 32),
            f"unet.{ATTENTION[0]}.lora_B.weight": torch.zeros(32, 3),
        },
        "another shape than the base",
    ),
    "LoRA twice": (
        lambda model: {**in_peft(p := lora(model, unet=ATTENTION[:1])), **in_kohya(p, alpha=1)},
        "changes a layer twice",
    ),
    "LoRA that overflows": (
        lambda model: {n: v * 0 + 1e30 for n, v in in_peft(lora(model, unet=ATTENTION[:1])).items()},
        "become NaN or infinite",
    ),
    "NaN": (lambda model: {n: v * torch.nan for n, v in unet_names(model).items()}, "hold NaN or infinity"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_judged_is_named_and_refused(kind: str, make, model, tmp_path: Path) -> None:
    """One sentence, and nothing is left in the output folder."""
    found, words = REFUSED[kind]

    with pytest.raises(UserError, match=words) as caught:
        make(save(found(model), tmp_path / "candidate.safetensors"))

    first, *_, last = str(caught.value).splitlines()
    assert first.endswith(".") and last.startswith("  ")
    assert not (tmp_path / "made").exists() or not list((tmp_path / "made").iterdir())


def test_metadata_that_contradicts_the_base_is_believed(make, changed, tmp_path: Path) -> None:
    """A note of velocity prediction on a base that predicts noise."""
    noted = {"modelspec.prediction_type": "v"}

    with pytest.raises(UserError, match="does not predict what the base predicts"):
        make(save(unet_names(changed), tmp_path / "unet.safetensors", noted))


def test_a_directory_of_another_shape_is_not_this_bases(make, v2: Path, other: Path, tmp_path: Path) -> None:
    """Another width; a missing and an additional tensor."""
    with pytest.raises(UserError, match="another shape than its base"):
        make(v2)
    for edit, words in (
        (lambda t: t.pop("conv_in.bias"), "missing  1"),
        (lambda t: t.update(x=torch.ones(1)), "extra .* 1"),
    ):
        broken = Path(shutil.copytree(other, tmp_path / words.replace(" ", "")[:5]))
        found = load_file(broken / UNET)
        edit(found)
        save(found, broken / UNET)
        with pytest.raises(UserError, match=words):
            make(broken)


def test_an_order_that_would_undo_something_is_refused(make, other: Path, model, tmp_path: Path) -> None:
    """LoRA before U-Net, two U-Nets, a weight for what has none, a part without a base, nothing at all."""
    path = save(in_peft(lora(model, unet=ATTENTION[:1])), tmp_path / "lora.safetensors")
    unet, empty = other / "unet", tmp_path / "empty"
    empty.mkdir()

    for sources, base, words in (
        ([path, unet], other, "order that would undo"),
        ([path, other], other, "order that would undo"),
        ([unet, unet], other, "both replace the same weights"),
        ([Source(path=unet, weight=0.5)], other, "Only a LoRA can have a weight"),
        ([Source(path=other, weight=0.5)], other, "Only a LoRA can have a weight"),
        ([path], None, "is not a whole model, so its base is needed"),
        ([], other, "No candidate was given"),
        ([tmp_path / "nowhere"], other, "There is no candidate"),
        ([empty], other, "is not a candidate"),
    ):
        with pytest.raises(UserError, match=words):
            make(*sources, base=base)
    with pytest.raises(UserError, match="weight is nan"):
        Source(path=path, weight=float("nan"))


# How it is made


def test_what_was_made_is_found_again_and_made_anew_when_it_was_touched(make, other: Path, tmp_path: Path) -> None:
    """One directory for the same inputs; a directory that no longer holds what was written is replaced."""
    first = make(other / "unet")
    place = Path(first.base.location)
    before = (place / UNET).stat().st_mtime_ns
    again = make(other / "unet")
    assert again == first and (place / UNET).stat().st_mtime_ns == before
    assert (place / "candidate.json").is_file() and [p.name for p in (tmp_path / "made").iterdir()] == [place.name]

    (place / TEXT).write_bytes(b"")
    assert make(other / "unet").base.digest == first.base.digest
    assert_equal(read(first), read(make(other / "unet")), ["text_encoder"])


def test_other_inputs_are_other_directories(make, model, tmp_path: Path) -> None:
    """Weight, numbers and base all count."""
    path = save(in_peft(lora(model, unet=ATTENTION[:1])), tmp_path / "lora.safetensors")
    other = save(in_peft(lora(model, unet=ATTENTION[:1], seed=1)), tmp_path / "other.safetensors")
    made = {make(path).base.location, make(Source(path=path, weight=0.5)).base.location, make(other).base.location}

    assert len(made) == 3
    assert make(path).base.location in made


def test_the_base_is_not_touched(make, v1: Path, other: Path) -> None:
    """Its digest is the same after everything."""
    before = digest_of(v1)
    make(other / "unet")

    assert digest_of(v1) == before


def test_a_folder_that_cannot_be_written_is_one_sentence(v1: Path, other: Path, tmp_path: Path) -> None:
    """A file in the place of the output folder."""
    (tmp_path / "made").write_text("")

    with pytest.raises(UserError, match="cannot be written"):
        materialise([Source(path=other / "unet")], v1, tmp_path / "made")


def test_two_processes_that_make_the_same_both_have_it(v1: Path, model, tmp_path: Path) -> None:
    """Whoever renames second uses what the first one made, and leaves nothing behind."""
    path = save(in_peft(lora(model, unet=ATTENTION[:1])), tmp_path / "lora.safetensors")
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from resurgence_harness.diffusion.formats import Source, materialise\n"
        f"print(materialise([Source(path=Path({str(path)!r}))], {str(v1)!r}, {str(tmp_path / 'made')!r}).base.digest)"
    )
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    digests = {process.communicate(timeout=900)[0].strip() for process in both}

    assert len(digests) == 1 and all(process.returncode == 0 for process in both)
    (place,) = (tmp_path / "made").iterdir()
    assert digests == {digest_of(place)}


def test_a_lora_is_put_in_without_torch(v1: Path, model, tmp_path: Path) -> None:
    """The controller may make candidates before workers start."""
    path = save(in_peft(lora(model, unet=ATTENTION[:1])), tmp_path / "lora.safetensors")
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from resurgence_harness.diffusion.formats import Source, materialise\n"
        f"materialise([Source(path=Path({str(path)!r}))], {str(v1)!r}, {str(tmp_path / 'made')!r})\n"
        "assert 'torch' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_made_candidate_is_a_base_for_the_bench(make, v1: Path, other: Path, tmp_path: Path) -> None:
    """With U-Net and text encoder of another model (their VAEs differ too), it draws neither model's images."""
    from resurgence_harness.bench import Bench
    from resurgence_harness.specs import Recipe
    from resurgence_harness.storing import Store
    from tests.tiny import portraits

    bench, probe = Bench(Store(tmp_path / "store")), portraits(["ada quill"], seeds=1)
    bases = [make(other / "unet", other / "text_encoder").base, make(other).base, make(v1).base]
    made, whole, before = (bench.images(Recipe(base), probe) for base in bases)

    assert made.shape == before.shape and made.dtype == np.uint8
    assert not np.array_equal(made, before) and not np.array_equal(made, whole)
