"""A LoRA's scale is the one that peft and diffusers take, in every layout and with every note, or it is refused."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from resurgence_harness.diffusion.formats import Source, materialise, recognise
from resurgence_harness.diffusion.formats.contract import Format
from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.diffusion.model_files import ModelFiles
from resurgence_harness.errors import UserError

pytestmark = pytest.mark.slow

KEYS, PROJECTION = "attn2.to_k", "proj_in"
K = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
Q = "encoder.layers.0.self_attn.q_proj"
MODULES = {"unet": [KEYS, "attn1.to_q", PROJECTION, "resnets.0.conv1"], "text_encoder": ["q_proj", "fc1"]}
PATTERNS = {
    "unet": [
        "attn2.to_k",
        "to_k",
        "^mid_block.attentions.0.proj_in",
        r".*\.conv1",
        "nowhere",
        "attentions.[01].proj_in",
    ],
    "text_encoder": ["q_proj", "self_attn.q_proj", r"^encoder\.layers\.0\.mlp\.fc1", "1.mlp.fc1"],
}


def merged(path: Path, base: Path, **how: Any) -> dict[str, torch.Tensor]:
    """The candidate's weights, by name, without writing them."""
    parent = ModelFiles(base)
    found = recognise(Source(path=path, **how))
    assert isinstance(found, Format)
    edits = found.changes(parent)
    values = {name: np.array(one.values(), np.float32) for name, one in parent.items()}
    return {n: torch.from_numpy(edits[n].apply(value) if n in edits else value) for n, value in values.items()}


def moved(found: dict[str, torch.Tensor], module: Any, part: str) -> float:
    """The largest distance from a module's weights."""
    state = module.state_dict()
    assert {f"{part}.{name}" for name in state} == {name for name in found if name.startswith(f"{part}.")}
    return max((found[f"{part}.{name}"] - value).abs().max().item() for name, value in state.items())


def trained(module: Any, config: Any, seed: int) -> Any:
    """A peft model whose matrices, and lengths, are not those it began with."""
    from peft import get_peft_model

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        model = get_peft_model(copy.deepcopy(module), config)
        with torch.no_grad():
            for name, value in model.named_parameters():
                if "lora_" in name:
                    value.add_(0.05 * torch.randn_like(value))
    return model


def written(model: Any, part: str, layout: str, folder: Path) -> Path:
    """The adapter as one of the libraries writes it."""
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
    from peft import get_peft_model_state_dict

    config = model.peft_config["default"]
    if layout == "peft":
        model.save_pretrained(folder)
        return folder
    state = {name.removeprefix("base_model.model."): value for name, value in get_peft_model_state_dict(model).items()}
    noted = {name: list(value) if isinstance(value, set) else value for name, value in config.to_dict().items()}
    if layout == "one network":  # as ModelMixin.save_lora_adapter()
        path = folder / "pytorch_lora_weights.safetensors"
        text = json.dumps(noted, indent=2, sort_keys=True)
        save_file({name: value.contiguous() for name, value in state.items()}, path, {"lora_adapter_metadata": text})
        return path
    if layout == "before transformers 5" and part == "text_encoder":
        state = {f"text_model.{name}": value for name, value in state.items()}
    StableDiffusionPipeline.save_lora_weights(
        folder, **{f"{part}_lora_layers": state, f"{part}_lora_adapter_metadata": config.to_dict()}
    )
    return folder / "pytorch_lora_weights.safetensors"


@st.composite
def adapters(draw: Any) -> dict[str, Any]:
    """A part, a layout, and peft's settings."""
    part = draw(st.sampled_from(sorted(MODULES)))
    patterns = st.sampled_from(PATTERNS[part])
    whole = st.integers(1, 6)
    return {
        "part": part,
        "layout": draw(st.sampled_from(["peft", "one network", "pipeline", "before transformers 5"])),
        "seed": draw(st.integers(0, 3)),
        "settings": {
            "r": draw(whole),
            "lora_alpha": draw(st.one_of(whole, st.floats(0.25, 9))),
            # Sorted: peft and diffusers write the names sorted, so an order of its own is lost when they save.
            "rank_pattern": dict(sorted(draw(st.dictionaries(patterns, whole, max_size=3)).items())),
            "alpha_pattern": dict(sorted(draw(st.dictionaries(patterns, st.integers(1, 12), max_size=3)).items())),
            "use_rslora": draw(st.booleans()),
            "use_dora": draw(st.booleans()),
            "init_lora_weights": draw(st.sampled_from([True, False, "gaussian"])),
        },
    }


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(adapter=adapters())
def test_any_adapter_becomes_the_weights_that_peft_merges(
    adapter: dict[str, Any], model: StableDiffusion, v1: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Alpha, rank, patterns, rank stabilisation and DoRA, linear layers and convolutions, in four layouts."""
    from peft import LoraConfig

    part, place = adapter["part"], tmp_path_factory.mktemp("adapter")
    config = LoraConfig(target_modules=MODULES[part], **adapter["settings"])
    peft = trained(getattr(model, part), config, adapter["seed"])
    if adapter["layout"] == "one network" and part == "text_encoder":
        adapter["layout"] = "pipeline"
    path = written(peft, part, adapter["layout"], place)
    try:
        found = merged(path, v1)
    except UserError as refused:  # an anchored pattern, beside keys with another beginning
        assert "different releases" in str(refused) and adapter["layout"] == "before transformers 5"
        return

    assert moved(found, getattr(model, part), part) > 1e-4
    assert moved(found, peft.merge_and_unload(), part) < 2e-5
    other = {"unet": "text_encoder", "text_encoder": "unet"}[part]
    assert moved(found, getattr(model, other), other) == 0


def test_what_save_lora_adapter_writes_is_what_diffusers_loads(
    model: StableDiffusion, v1: Path, tmp_path: Path
) -> None:
    """Settings without a part, at a scale of 4; diffusers' own load_lora_adapter and fuse_lora.

    Without use_safetensors=True diffusers 0.42 reads the tensors and not the settings, and takes a scale of 1.
    """
    from peft import LoraConfig

    config = LoraConfig(r=2, lora_alpha=8, target_modules=[KEYS], init_lora_weights=False)
    unet, again = copy.deepcopy(model.unet), copy.deepcopy(model.unet)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet.add_adapter(config)
    unet.save_lora_adapter(tmp_path)
    again.load_lora_adapter(str(tmp_path / "pytorch_lora_weights.safetensors"), prefix=None, use_safetensors=True)
    again.fuse_lora()
    again.unload_lora()
    found = merged(tmp_path / "pytorch_lora_weights.safetensors", v1)

    assert moved(found, model.unet, "unet") > 1e-2
    assert moved(found, again, "unet") < 1e-6


def pair(
    layer: str = f"unet.{K}", *, rank: int = 4, inside: int = 32, out: int = 48, kohya: bool = False
) -> dict[str, Any]:
    """Matrices of one layer."""
    down, up = ("lora_down", "lora_up") if kohya else ("lora_A", "lora_B")
    draw = torch.Generator().manual_seed(0)
    return {
        f"{layer}.{down}.weight": torch.randn(rank, inside, generator=draw),
        f"{layer}.{up}.weight": torch.randn(out, rank, generator=draw),
    }


KOHYA = "lora_unet_" + K.replace(".", "_")


def scale_of(tensors: dict[str, Any], notes: dict[str, str], base: Path, folder: Path, name: str = "lora") -> float:
    """By how much the product of the matrices was added."""
    path = folder / f"{name}.safetensors"
    save_file(tensors, path, notes)
    down, up = (
        (next(v for n, v in tensors.items() if role in n) for role in (("lora_A"), ("lora_B")))
        if any("lora_A" in n for n in tensors)
        else (next(v for n, v in tensors.items() if role in n) for role in ("lora_down", "lora_up"))
    )
    files = ModelFiles(base)
    found = merged(path, base)
    part = "text_encoder" if any("text" in n or "lora_te" in n for n in tensors) else "unet"
    layer = f"{part}.{Q if part == 'text_encoder' else K}.weight"
    change = found[layer] - torch.from_numpy(np.array(files[layer].values()))
    return float((change * (up @ down)).sum() / (up @ down).square().sum())


def noted(part: str = "unet", **values: Any) -> dict[str, str]:
    """Settings as a pipeline notes them; part "" for those of one network."""
    dot = f"{part}." if part else ""
    usual = {"r": 4, "lora_alpha": 4}
    return {"lora_adapter_metadata": json.dumps({f"{dot}{name}": value for name, value in (usual | values).items()})}


TEXT = f"text_encoder.text_model.{Q}"
SCALES: dict[str, tuple[dict[str, Any], dict[str, str], float]] = {
    "no settings": (pair(), {}, 1),
    "alpha": (pair(), noted(lora_alpha=8), 2),
    "rank-stabilised": (pair(), noted(lora_alpha=8, use_rslora=True), 4),
    "the first pattern counts": (pair(), noted(alpha_pattern={"attn2.to_k": 8, "to_k": 16}), 2),
    "the first pattern counts, the other way": (pair(), noted(alpha_pattern={"to_k": 16, "attn2.to_k": 8}), 4),
    "a pattern ends at a dot": (pair(), noted(alpha_pattern={"o_k": 16, "ttn2.to_k": 8}), 1),
    "a whole name": (pair(), noted(alpha_pattern={K: 12}), 3),
    "an anchored pattern": (pair(), noted(alpha_pattern={"^attn2.to_k": 16, f"^{K}": 8}), 2),
    "a regular expression": (pair(), noted(alpha_pattern={r".*attn\d\.to_[kv]": 8}), 2),
    "text_model. in pattern and key": (
        pair(TEXT, out=32),
        noted("text_encoder", alpha_pattern={f"text_model.{Q}": 16}),
        4,
    ),
    "text_model. in the key": (pair(TEXT, out=32), noted("text_encoder", alpha_pattern={Q: 16}), 4),
    "settings of the other part": (pair(), noted("text_encoder", lora_alpha=16), 1),
    "settings of one network": (pair(K), noted("", lora_alpha=8), 2),
    "peft's defaults": (pair(rank=8), {"lora_adapter_metadata": '{"unet.use_rslora": true}'}, 8**0.5),
    "initialisations that leave the base": (pair(), noted(init_lora_weights="eva", eva_config={"rho": 2.0}), 1),
    "settings that change nothing": (
        pair(),
        noted(
            lora_dropout=0.1,
            target_modules=["to_k"],
            layers_pattern=None,
            exclude_modules=["x"],
            bias="none",
            later=None,
        ),
        1,
    ),
    "kohya without alpha": (pair(KOHYA, kohya=True), {}, 1),
    "kohya": (pair(KOHYA, kohya=True) | {f"{KOHYA}.alpha": torch.tensor(2.0)}, {}, 0.5),
    "kohya's notes": (
        pair(KOHYA, kohya=True) | {f"{KOHYA}.alpha": torch.tensor(2.0)},
        {"ss_network_dim": "4", "ss_network_alpha": "2.0", "ss_network_module": "networks.lora"},
        0.5,
    ),
    "a file made smaller": (
        pair(KOHYA, kohya=True) | {f"{KOHYA}.alpha": torch.tensor(2.0)},
        {"ss_network_dim": "Dynamic", "ss_network_alpha": "None"},
        0.5,
    ),
    "alpha 0 in the notes": (
        pair(KOHYA, kohya=True) | {f"{KOHYA}.alpha": torch.tensor(4.0)},
        {"ss_network_dim": "4", "ss_network_alpha": "0"},
        1,
    ),
    "alpha twice, agreeing": (
        pair(KOHYA, kohya=True) | {f"{KOHYA}.alpha": torch.tensor(8.0)},
        noted(lora_alpha=8),
        2,
    ),
    "noise, as the base": (pair(), {"modelspec.prediction_type": "epsilon", "ss_v_parameterization": "False"}, 1),
    "of a trainer for v1": (pair(), {"ss_base_model_version": "sd_v1", "ss_zero_terminal_snr": "False"}, 1),
}


@pytest.mark.parametrize("kind", SCALES)
def test_the_scale_is(kind: str, v1: Path, tmp_path: Path) -> None:
    """What is noted decides, as peft reads it."""
    tensors, notes, scale = SCALES[kind]

    assert scale_of(tensors, notes, v1, tmp_path) == pytest.approx(scale, rel=1e-4)


REFUSED: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    **{
        f"{start} changes the base": (pair(), noted(init_lora_weights=start), "was trained on a changed base")
        for start in ("pissa", "pissa_niter_16", "olora", "OLoRA", "corda", "loftq", "lora_ga", "lora-ga", "new", 1, [])
    },
    **{
        f"{name} is on": (pair(), noted(**{name: value}), f"{name} = ")
        for name, value in {
            "fan_in_fan_out": True,
            "bias": "lora_only",
            "modules_to_save": ["conv_out"],
            "trainable_token_indices": [1],
            "lora_bias": True,
            "layer_replication": [[0, 1]],
            "use_qalora": True,
            "megatron_config": {"a": 1},
            "alora_invocation_tokens": [1],
            "target_parameters": ["x"],
            "use_bdlora": {"a": 1},
            "arrow_config": {"a": 1},
            "kasa_config": {"a": 1},
            "monteclora_config": {"a": 1},
            "velora_config": {"a": 1},
            "ensure_weight_tying": True,
            "peft_type": "LOHA",
            "a_later_setting": 1,
            "another_later_setting": False,
            "use_rslora": "yes",
            "use_dora": 1,
        }.items()
    },
    "use_dora without lengths": (pair(), noted(use_dora=True), "use_dora"),
    "lengths without use_dora": (pair() | {f"unet.{K}.lora_magnitude_vector": torch.ones(48)}, noted(), "use_dora"),
    "another rank": (pair(), noted(r=8), "do not fit its tensors"),
    "another rank by a pattern": (pair(), noted(rank_pattern={"to_k": 8}), "do not fit its tensors"),
    "no rank, and not peft's": (pair(), {"lora_adapter_metadata": '{"unet.lora_alpha": 4}'}, "do not fit its tensors"),
    **{
        f"alpha {alpha}": (pair(), noted(lora_alpha=alpha), "lora_alpha = ")
        for alpha in ("8", True, None, 0, float("nan"), float("inf"), 1e99, [8])
    },
    **{f"rank {rank}": (pair(), noted(r=rank), "r = ") for rank in (0, -4, 4.0, "4", True, None)},
    **{
        f"the pattern {pattern}": (pair(), noted(alpha_pattern={pattern: 8}), "alpha_pattern")
        for pattern in ("(a+)+$", "(.*)*", ".*.*.*x", "[", "(?=x)", "x{1,99}", "a" * 400, "((", "*")
    },
    "patterns as a list": (pair(), noted(alpha_pattern=[["to_k", 8]]), "alpha_pattern"),
    "alpha 0 by a pattern": (pair(), noted(alpha_pattern={"to_k": 0}), "lora_alpha"),
    "text_model. in the pattern alone": (
        pair(f"text_encoder.{Q}", out=32),
        noted("text_encoder", alpha_pattern={f"text_model.{Q}": 16}),
        "different things in different releases",
    ),
    "an unknown part": (pair(), noted("transformer"), "transformer.r = "),
    "settings of one network, keys with parts": (pair(), noted("", lora_alpha=8), "settings without a part"),
    "both kinds of settings": (
        pair(),
        {"lora_adapter_metadata": '{"unet.r": 4, "unet.lora_alpha": 4, "lora_alpha": 8}'},
        "lora_alpha = 8",
    ),
    "settings that are no object": (pair(), {"lora_adapter_metadata": "[4]"}, "not a JSON object"),
    "peft's names without settings": (pair(f"base_model.model.{K}"), {}, "lacks the settings"),
    "peft's named adapter without settings": (
        {name.replace(".weight", ".default.weight"): value for name, value in pair(K).items()},
        {},
        "lacks the settings",
    ),
    "two adapters": (
        {name.replace(".weight", ".one.weight"): value for name, value in pair(K).items()}
        | {n.replace(".weight", ".two.weight"): v for n, v in pair(K.replace("to_k", "to_v")).items()},
        noted(""),
        "several adapters",
    ),
    "a bias": (pair() | {f"unet.{K}.lora_B.bias": torch.ones(48)}, {}, "lora_bias"),
    "alpha of some layers": (
        pair(KOHYA, kohya=True)
        | {f"{KOHYA}.alpha": torch.tensor(2.0)}
        | pair(KOHYA.replace("to_k", "to_v"), kohya=True),
        {},
        "for 1 of 2 layers",
    ),
    "alpha 0": (pair(KOHYA, kohya=True) | {f"{KOHYA}.alpha": torch.tensor(0.0)}, {}, "alpha = 0"),
    "alpha twice, differing": (
        pair(KOHYA, kohya=True) | {f"{KOHYA}.alpha": torch.tensor(2.0)},
        noted(lora_alpha=8),
        ".alpha = 2 of rank 4",
    ),
    "kohya's other rank": (pair(KOHYA, kohya=True), {"ss_network_dim": "8"}, "contradicts its tensors"),
    "kohya's other alpha": (
        pair(KOHYA, kohya=True) | {f"{KOHYA}.alpha": torch.tensor(2.0)},
        {"ss_network_alpha": "1"},
        "contradicts its tensors",
    ),
    "kohya's lost alpha": (pair(KOHYA, kohya=True), {"ss_network_alpha": "1"}, "contradicts its tensors"),
    "another network": (pair(KOHYA, kohya=True), {"ss_network_module": "networks.oft"}, "another method"),
    "another algorithm": (
        pair(KOHYA, kohya=True),
        {"ss_network_module": "lycoris.kohya", "ss_network_args": '{"algo": "loha"}'},
        "another method",
    ),
    **{
        f"{name} = {value}": (pair(), {name: value}, "does not predict what the base predicts")
        for name, value in {
            "modelspec.prediction_type": "v",
            "prediction_type": "v_prediction",
            "ss_v_parameterization": "True",
            "ss_base_model_version": "sd_v2_v",
            "modelspec.architecture": "stable-diffusion-v2-768-v/lora",
            "ss_v_pred": "1",
            "ot_prediction_type": "sample",
            "parameterization": "v",
        }.items()
    },
    "notes that contradict one another": (
        pair(),
        {"modelspec.prediction_type": "epsilon", "ss_v_parameterization": "True"},
        "does not predict what the base predicts",
    ),
    "another schedule": (pair(), {"ss_zero_terminal_snr": "True"}, "another noise schedule"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_has_another_scale_or_none_is_one_sentence(kind: str, v1: Path, tmp_path: Path) -> None:
    """Named, with what to do."""
    tensors, notes, words = REFUSED[kind]

    with pytest.raises(UserError) as caught:
        scale_of(tensors, notes, v1, tmp_path)

    first, *_, last = str(caught.value).splitlines()
    assert words in str(caught.value) and first.endswith(".") and last.startswith("  ")


def test_a_lora_for_velocity_fits_a_base_for_velocity(v2: Path, tmp_path: Path) -> None:
    """And one for noise does not."""
    found = pair(inside=48)
    for note, fits in (("sd_v2_v", True), ("sd_v2", False)):
        save_file(found, tmp_path / "lora.safetensors", {"ss_base_model_version": note})
        if fits:
            merged(tmp_path / "lora.safetensors", v2)
        else:
            with pytest.raises(UserError, match="does not predict"):
                merged(tmp_path / "lora.safetensors", v2)


def test_settings_beside_a_file_are_its_own_or_nobodys(v1: Path, tmp_path: Path) -> None:
    """adapter_config.json is of adapter_model.safetensors; another LoRA in that folder keeps its own scale."""
    (tmp_path / "adapter_config.json").write_text('{"r": 4, "lora_alpha": 16, "peft_type": "LORA"}')

    assert scale_of(pair(), {}, v1, tmp_path, "style") == pytest.approx(1)
    (tmp_path / "style.safetensors").unlink()
    assert scale_of(pair(f"base_model.model.{K}"), {}, v1, tmp_path, "adapter_model") == pytest.approx(4)
    with pytest.raises(UserError, match="different settings for the same layers"):
        scale_of(pair(), noted(), v1, tmp_path, "adapter_model")
    with pytest.raises(UserError, match="lacks the settings"):
        scale_of(pair(f"base_model.model.{K}"), {}, v1, tmp_path, "renamed")
    (tmp_path / "adapter_config.json").unlink()
    (tmp_path / "adapter_config.json").symlink_to("/etc/hostname")
    with pytest.raises(UserError, match="leads outside"):
        scale_of(pair(f"base_model.model.{K}"), {}, v1, tmp_path, "adapter_model")


def test_pissa_that_peft_converted_is_taken(model: StableDiffusion, v1: Path, tmp_path: Path) -> None:
    """What the refusal advises: path_initial_model_for_weight_conversion writes an adapter for the base itself."""
    from peft import LoraConfig

    config = LoraConfig(r=4, lora_alpha=4, target_modules=[KEYS], init_lora_weights="pissa")
    peft = trained(model.unet, copy.deepcopy(config), 0)
    begun = trained(model.unet, copy.deepcopy(config), 0)
    begun.peft_config["default"].init_lora_weights = True
    start = {name: value for name, value in peft.state_dict().items() if "lora_" in name}
    with torch.no_grad():  # a little training, away from the start
        for name, value in peft.named_parameters():
            if "lora_" in name:
                value.add_(0.01)
    assert start
    begun.save_pretrained(tmp_path / "begun")
    peft.save_pretrained(tmp_path / "converted", path_initial_model_for_weight_conversion=str(tmp_path / "begun"))
    found = merged(tmp_path / "converted", v1)

    assert len(load_file(tmp_path / "converted" / "adapter_model.safetensors")) > 2
    assert moved(found, model.unet, "unet") > 1e-3


# DoRA


@pytest.mark.parametrize("name", [K, "down_blocks.0.resnets.0.conv1"])
@pytest.mark.parametrize("axis", ["output", "input"])
def test_a_dora_of_lycoris(name: str, axis: str, model: StableDiffusion, v1: Path, tmp_path: Path) -> None:
    """m · V / (‖V‖ + ε), lengths per output or per input, as apply_weight_decompose has it."""
    weight = model.unet.get_submodule(name).weight.detach()
    draw = torch.Generator().manual_seed(1)
    down = torch.randn(2, *weight.shape[1:], generator=draw) / 5
    up = torch.randn(weight.shape[0], 2, *(1,) * (weight.ndim - 2), generator=draw) / 5
    direction = weight + 0.5 * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
    kept = 0 if axis == "output" else 1
    shape = [1] * weight.ndim
    shape[kept] = weight.shape[kept]
    lengths = torch.rand(shape, generator=draw) + 0.5
    norm = torch.linalg.vector_norm(direction, dim=[a for a in range(weight.ndim) if a != kept], keepdim=True)
    expected = direction * lengths / (norm + torch.finfo(torch.float32).eps)
    layer = "lora_unet_" + name.replace(".", "_")
    tensors = {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up, f"{layer}.dora_scale": lengths}
    save_file(tensors | {f"{layer}.alpha": torch.tensor(1.0)}, tmp_path / "dora.safetensors")

    found = merged(tmp_path / "dora.safetensors", v1)
    assert torch.allclose(found[f"unet.{name}.weight"], expected, atol=1e-5)


def _dora(folder: Path, lengths: torch.Tensor, name: str = "dora") -> Path:
    save_file(pair(KOHYA, kohya=True) | {f"{KOHYA}.dora_scale": lengths}, folder / f"{name}.safetensors")
    return folder / f"{name}.safetensors"


def test_what_programs_disagree_about_in_a_dora_is_refused(v1: Path, tmp_path: Path) -> None:
    """A strength other than 1, a second LoRA on the layer in either order, lengths that fit neither axis."""
    dora, plain = _dora(tmp_path, torch.ones(48, 1)), tmp_path / "plain.safetensors"
    save_file(pair(), plain)

    for sources, words in (
        ([Source(path=dora, weight=0.5)], "a weight of a DoRA"),
        ([Source(path=dora), Source(path=plain)], "one of them is a DoRA"),
        ([Source(path=plain), Source(path=dora)], "one of them is a DoRA"),
        ([Source(path=_dora(tmp_path, torch.ones(48), "flat"))], "made"),
        ([Source(path=_dora(tmp_path, torch.ones(7, 1), "short"))], "magnitudes that do not fit"),
    ):
        if words == "made":  # one length per output, whether or not the axis of length 1 is written
            assert materialise(sources, v1, tmp_path / "made")
            continue
        with pytest.raises(UserError, match=words):
            materialise(sources, v1, tmp_path / "made")


def test_other_settings_are_another_candidate(v1: Path, tmp_path: Path) -> None:
    """The settings beside an adapter are among what it is made from."""
    save_file(pair(f"base_model.model.{K}"), tmp_path / "adapter_model.safetensors")
    made: list[Any] = []
    for alpha in (4, 8):
        (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": alpha}))
        made.append(materialise([Source(path=tmp_path)], v1, tmp_path / "made").base.digest)

    assert made[0] != made[1]
