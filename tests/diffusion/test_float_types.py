"""Types of numbers: every float is widened exactly, an index of places is no weight, and what is quantised is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from resurgence_harness.diffusion.base_files import check_base
from resurgence_harness.diffusion.formats import Source, check_same_shape, recognise
from resurgence_harness.diffusion.formats.contract import Format
from resurgence_harness.diffusion.model_files import ModelFiles
from resurgence_harness.diffusion.tensor_files import check_finite, read_header
from resurgence_harness.errors import UserError
from tests.original_layout import clip_names
from tests.tiny import save_tiny_stable_diffusion

pytestmark = pytest.mark.slow

TEXT = "text_encoder/model.safetensors"
EIGHT = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}


def changes(path: Path, base: Path) -> dict[str, np.ndarray]:
    """New weights by name."""
    found = recognise(Source(path=path))
    assert isinstance(found, Format)
    return {name: edit.apply(np.zeros(1)) for name, edit in found.changes(ModelFiles(base)).items()}


@pytest.mark.parametrize("dtype", EIGHT)
def test_every_eight_bit_float_is_torchs(dtype: str, tmp_path: Path) -> None:
    """All 256 bit patterns, subnormal numbers, infinities and NaN among them."""
    bits = torch.arange(256, dtype=torch.uint8).view(EIGHT[dtype])
    save_file({"a": bits}, tmp_path / "a.safetensors")
    file = read_header(tmp_path / "a.safetensors")

    assert file.entries["a"].dtype == dtype
    np.testing.assert_array_equal(file.values("a"), bits.float().numpy())
    with pytest.raises(UserError, match="NaN or infinity"):
        check_finite(file)


@pytest.mark.parametrize("dtype", [*EIGHT.values(), torch.bfloat16, torch.float16, torch.float64])
def test_a_unet_in_any_float_is_the_same_numbers_in_float32(dtype: Any, v1: Path, model: Any, tmp_path: Path) -> None:
    """A candidate in fewer or more bits."""
    state = {name: value.to(dtype) for name, value in model.unet.state_dict().items()}
    save_file(state, tmp_path / "unet.safetensors")

    found = changes(tmp_path / "unet.safetensors", v1)
    assert all(np.array_equal(found[f"unet.{name}"], value.float().numpy()) for name, value in state.items())


@pytest.mark.parametrize("value", [1e300, -1e39, 3.5e38])
def test_what_is_finite_in_float64_alone_is_not_finite(value: float, tmp_path: Path) -> None:
    """It becomes infinite in float32, in which everything is drawn."""
    save_file({"conv_in.weight": torch.tensor([value], dtype=torch.float64)}, tmp_path / "a.safetensors")

    with pytest.raises(UserError, match="NaN or infinity"):
        check_finite(read_header(tmp_path / "a.safetensors"))


PLACES = {
    "int64": torch.arange(24)[None],
    "float32": torch.arange(24.0)[None],
    "float16": torch.arange(24.0)[None].half(),
    "bfloat16": torch.arange(24.0).bfloat16(),
    "int32": torch.arange(24, dtype=torch.int32),
}


@pytest.mark.parametrize("dtype", PLACES)
@pytest.mark.parametrize("layout", ["component", "wrapped", "original"])
def test_an_index_of_places_is_no_weight(dtype: str, layout: str, v1: Path, model: Any, tmp_path: Path) -> None:
    """Whole or float, as old text encoders stored it; in a file of its own and in the original layout."""
    state = dict(model.text_encoder.state_dict()) | {"embeddings.position_ids": PLACES[dtype]}
    if layout == "wrapped":
        state = {f"text_model.{name}": value for name, value in state.items()}
    if layout == "original":
        roof = "cond_stage_model.transformer.text_model.embeddings.position_ids"
        state = clip_names(model) | {roof: PLACES[dtype]}
    save_file(state, tmp_path / "text.safetensors")

    found = changes(tmp_path / "text.safetensors", v1)
    assert len(found) == len(model.text_encoder.state_dict()) and not any("position_ids" in name for name in found)


@pytest.mark.parametrize(
    "places", [torch.arange(24.0).flip(0), torch.arange(24) + 1, torch.zeros(0), torch.ones(24) > 0]
)
@pytest.mark.parametrize("where", ["file", "directory"])
def test_an_index_that_does_not_count_is_refused(places: Any, where: str, v1: Path, tmp_path: Path) -> None:
    """Other places would be another text encoder in programs that read them."""
    model = save_tiny_stable_diffusion(tmp_path / "model") if where == "directory" else tmp_path
    state = load_file(v1 / TEXT) | {"text_model.embeddings.position_ids": places}
    target = model / TEXT if where == "directory" else tmp_path / "text.safetensors"
    save_file(state, target)

    with pytest.raises(UserError, match="position_ids other than"):
        check_base(model) if where == "directory" else recognise(Source(path=target))


def test_a_directory_with_a_float_index_is_taken(v1: Path, tmp_path: Path) -> None:
    """As any other, with and without a base to hold it against; it is loaded, too."""
    from resurgence_harness.diffusion.model import StableDiffusion

    model = save_tiny_stable_diffusion(tmp_path / "model")
    save_file(load_file(model / TEXT) | {"text_model.embeddings.position_ids": torch.arange(24.0)[None]}, model / TEXT)

    check_base(model)
    check_same_shape(model, v1)
    assert StableDiffusion.load(model).text_encoder is not None


def _header(dtype: str) -> bytes:
    text = json.dumps({"a": {"dtype": dtype, "shape": [4], "data_offsets": [0, 4]}}).encode()
    return len(text).to_bytes(8, "little") + text + b"\0" * 4


NAMED: dict[str, tuple[bytes | dict[str, Any], str]] = {
    **{
        dtype: (_header(dtype), f"a type that cannot be judged here.\n.*{dtype}")
        for dtype in ("F8_E8M0", "F8_E5M2FNUZ", "F4", "F6_E2M3", "C64")
    },
    "GGUF": (b"GGUF\x03\0\0\0" + b"\0" * 64, "a GGUF file"),
    "NF4": ({"conv_in.weight.quant_state.bitsandbytes__nf4": torch.zeros(4, dtype=torch.uint8)}, "is quantised"),
    "eight bits of bitsandbytes": ({"mid_block.a.SCB": torch.zeros(4)}, "is quantised"),
    "GPTQ": ({"mid_block.a.qweight": torch.zeros(4, dtype=torch.int32)}, "is quantised"),
    "scaled float8": (
        {"conv_in.weight": torch.zeros(4).to(torch.float8_e4m3fn), "scaled_fp8": torch.zeros(2)},
        "quantised",
    ),
    "integers": (
        {f"down_blocks.0.{n}.weight": torch.zeros(4, dtype=torch.int8) for n in range(3)},
        "are integers, so they are quantised",
    ),
    "integers in the original layout": (
        {f"model.diffusion_model.{n}.weight": torch.zeros(4, dtype=torch.uint8) for n in range(3)},
        "are integers, so they are quantised",
    ),
}


@pytest.mark.parametrize("kind", NAMED)
def test_what_is_quantised_is_named(kind: str, v1: Path, tmp_path: Path) -> None:
    """One sentence that says which, not that the file is broken."""
    content, words = NAMED[kind]
    path = tmp_path / "a.safetensors"
    path.write_bytes(content) if isinstance(content, bytes) else save_file(content, path)

    with pytest.raises(UserError, match=words):
        changes(path, v1)


def test_a_component_with_a_quantisation_in_its_config_is_named(tmp_path: Path) -> None:
    """Before its weights are looked at."""
    (tmp_path / "config.json").write_text(
        json.dumps({"_class_name": "UNet2DConditionModel", "quantization_config": {"load_in_4bit": True}})
    )

    with pytest.raises(UserError, match="is quantised"):
        recognise(Source(path=tmp_path))
