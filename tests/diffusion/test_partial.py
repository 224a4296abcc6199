"""Files that hold less, or more, than a model: taken only when said so, and what is left out is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from resurgence_harness.diffusion.formats import Cover, Source, materialise
from resurgence_harness.errors import UserError
from resurgence_harness.gate.models import prepare
from resurgence_harness.gate.release_policy import ModelsEntry
from tests.original_layout import clip_names, openclip_names, unet_names

pytestmark = pytest.mark.slow


def save(found: dict[str, Any], path: Path) -> Path:
    """Tensors as a file."""
    save_file({name: value.contiguous().clone() for name, value in found.items()}, path)
    return path


def trained(model: Any) -> dict[str, Any]:
    """What ESD saves: the cross-attention."""
    return {name: value * 1.01 for name, value in model.unet.state_dict().items() if ".attn2.to_" in name}


def test_some_layers_with_the_option_and_what_is_not_covered_is_told(model: Any, v1: Path, tmp_path: Path) -> None:
    """As a candidate and as the unlearned model; the same file without the option says which option."""
    esd, tuned = trained(model), {name: value * 1.01 for name, value in trained(model).items()}
    save(esd, tmp_path / "esd-x.safetensors")
    save(tuned, tmp_path / "tuned.safetensors")
    given: dict[str, Any] = {"unlearned": "esd-x.safetensors", "base": str(v1), "folder": tmp_path}

    models = prepare(["tuned.safetensors"], store=tmp_path / "store", cover=Cover.SOME, **given)
    told = [note for note in models.notes if "covers" in note]
    assert [note.split()[0] for note in told] == ["esd-x.safetensors", "tuned.safetensors"]
    assert all(f"covers {len(esd)} of the 686 tensors of the unet" in note for note in told)
    assert all(f"the other {686 - len(esd)} are its parent's: " in note and "residual blocks" in note for note in told)
    counts = [int(word) for word in told[0].partition("parent's: ")[2].split() if word.isdecimal()]
    assert sum(counts) == 686 - len(esd)
    with pytest.raises(UserError, match="lacks tensors of the unet") as caught:
        prepare(["tuned.safetensors"], store=tmp_path / "store", **given)
    assert "give --partial" in str(caught.value).splitlines()[-1]


def test_the_option_is_in_the_help_and_in_the_policy() -> None:
    """What the refusal advises is there."""
    from typer.testing import CliRunner

    from resurgence_harness.cli.commands import app

    said = CliRunner().invoke(app, ["gate", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).stdout
    assert "--partial" in said and "some layers" in said
    assert ModelsEntry(partial=True).partial and not ModelsEntry().partial
    with pytest.raises(ValueError, match="bool"):
        ModelsEntry.model_validate({"partial": "yes"})


def test_a_whole_file_leaves_nothing_to_tell(model: Any, v1: Path, tmp_path: Path) -> None:
    """With the option, too."""
    path = save(model.unet.state_dict(), tmp_path / "unet.safetensors")

    assert materialise([Source(path=path, cover=Cover.SOME)], v1, tmp_path / "made").notes == ()


def averaged(model: Any) -> dict[str, Any]:
    """The copy that trainers keep: names without dots."""
    found = {f"model_ema.diffusion_model{name.removeprefix('model.diffusion_model').replace('.', '')}": value + 1
             for name, value in unet_names(model).items()}  # fmt: skip
    return found | {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(3)}


@pytest.mark.parametrize("beside", ["nothing", "text encoder", "VAE"])
def test_a_unet_that_is_only_an_average_is_refused(beside: str, model: Any, v1: Path, tmp_path: Path) -> None:
    """Else the parent's U-Net would be judged in its place."""
    from tests.original_layout import vae_names

    more = {"nothing": {}, "text encoder": clip_names(model), "VAE": vae_names(model)}[beside]
    path = save(averaged(model) | more, tmp_path / "a.safetensors")

    with pytest.raises(UserError, match="only as an averaged copy"):
        materialise([Source(path=path)], v1, tmp_path / "made")


def test_with_both_the_plain_weights_are_judged_and_it_is_told(model: Any, v1: Path, tmp_path: Path) -> None:
    """As diffusers takes them."""
    path = save(averaged(model) | unet_names(model), tmp_path / "a.safetensors")

    made = materialise([Source(path=path)], v1, tmp_path / "made")
    assert len(made.notes) == 1 and "averaged copy" in made.notes[0] and "plain weights" in made.notes[0]


TWICE = {
    "with and without the part": lambda model: {
        **model.unet.state_dict(),
        "unet.conv_in.bias": model.unet.state_dict()["conv_in.bias"] + 1,
    },
    "with and without text_model": lambda model: {
        **model.text_encoder.state_dict(),
        "text_model.final_layer_norm.bias": torch.ones(32),
    },
    "with the part and text_model": lambda model: {
        **model.text_encoder.state_dict(),
        "text_encoder.text_model.final_layer_norm.bias": torch.ones(32),
    },
    "two text encoders": lambda model: {**clip_names(model), **openclip_names(model)},
    "CLIP's with and without text_model": lambda model: {
        **clip_names(model),
        "cond_stage_model.transformer.final_layer_norm.bias": torch.ones(32),
    },
}


@pytest.mark.parametrize("kind", TWICE)
def test_two_tensors_for_one_weight_are_refused(kind: str, model: Any, v1: Path, tmp_path: Path) -> None:
    """Which one is meant is not for this package to choose."""
    path = save(TWICE[kind](model), tmp_path / "a.safetensors")

    with pytest.raises(UserError, match=r"two tensors for the same weight|two text encoders|belong to no part"):
        materialise([Source(path=path)], v1, tmp_path / "made")


def test_a_lora_in_the_hubs_cache(v1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By repository and commit, and by one of its files; what is not there comes with the command that fetches it."""
    from resurgence_harness.diffusion.hub import is_name, locate

    commit = "a" * 40
    folder = tmp_path / "models--who--style" / "snapshots" / commit
    (folder / "sub").mkdir(parents=True)
    save({"a": torch.ones(2)}, folder / "style.safetensors")
    save({"a": torch.ones(2)}, folder / "sub" / "other.safetensors")
    name = f"who/style@{commit}"

    assert is_name(f"{name}:style.safetensors", tmp_path)
    assert locate(name, cache=tmp_path).directory == folder
    assert locate(f"{name}:style.safetensors", cache=tmp_path).directory == folder / "style.safetensors"
    assert locate(f"{name}:sub/other.safetensors", cache=tmp_path).directory == folder / "sub/other.safetensors"
    for file in ("nowhere.safetensors", "../x", "/etc/passwd", "", "sub"):
        with pytest.raises(UserError, match="has no file") as caught:
            locate(f"{name}:{file}", cache=tmp_path)
        assert f"resurgence fetch who/style@{commit}:" in str(caught.value)
    (folder / "out.safetensors").symlink_to("/etc/hostname")
    with pytest.raises(UserError, match="leads outside"):
        locate(f"{name}:out.safetensors", cache=tmp_path)
