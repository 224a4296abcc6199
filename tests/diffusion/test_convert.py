"""The command that a refused pickle is answered with converts it, exactly as it is printed, and runs nothing in it."""

from __future__ import annotations

import json
import os
import pickle
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from resurgence_harness.diffusion.base_files import check_base
from resurgence_harness.diffusion.convert import convert, main
from resurgence_harness.diffusion.formats import Source, recognise
from resurgence_harness.diffusion.tensor_files import conversion, read_header
from resurgence_harness.errors import UserError

pytestmark = pytest.mark.slow

UNET = {"model.diffusion_model.input_blocks.0.0.weight": torch.ones(320, 4, 3, 3)}
PAIR = {
    "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": torch.ones(2, 8),
    "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight": torch.ones(8, 2),
}


class Callback:
    """As Lightning's: a class of a package that is not there when the file is converted."""

    def __init__(self) -> None:
        self.best = 1


class ParameterDict(torch.nn.ParameterDict):
    """What old web interfaces stored vectors in."""


class Bomb:
    """Writes a marker where its pickle is believed."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (self.marker,)


CONVERTED: dict[str, tuple[Any, set[str], str]] = {
    "a state dict": (UNET, set(UNET), "single file"),
    "Lightning's": ({"state_dict": UNET, "epoch": 3, "optimizer_states": [{"a": torch.ones(3)}]}, set(UNET), "single"),
    "Lightning's, with a callback": (
        {"state_dict": UNET, "callbacks": {Callback: Callback(), "x": [Callback()]}},
        set(UNET),
        "single file",
    ),
    "under model": ({"model": UNET, "optimizer": {"state": {0: torch.ones(3)}}}, set(UNET), "single file"),
    "under a word of its own": ({"network": UNET, "step": 3}, set(UNET), "single file"),
    "beside a counter": ({"state_dict": UNET, "step": torch.tensor(3)}, set(UNET), "single file"),
    "a web interface's embedding": (
        {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.ones(2, 32)}, "name": "x", "step": None},
        {"emb_params"},
        "embedding",
    ),
    "an old web interface's embedding": (
        {"string_to_param": ParameterDict({"*": torch.nn.Parameter(torch.ones(2, 32))})},
        {"emb_params"},
        "embedding",
    ),
    "diffusers' embedding": ({"<ada>": torch.ones(32)}, {"<ada>"}, "embedding"),
    "a LoRA with a number for alpha": (
        {**PAIR, "lora_unet_mid_block_attentions_0_proj_in.alpha": 1.0, "note": "x"},
        {*PAIR, "lora_unet_mid_block_attentions_0_proj_in.alpha"},
        "a LoRA",
    ),
    "parameters, and views of one tensor": (
        {name: torch.nn.Parameter(torch.ones(8, 8)[:, :2] if "up" in name else torch.ones(4, 8)[:2]) for name in PAIR},
        set(PAIR),
        "a LoRA",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CONVERTED)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
def test_what_people_have_is_converted(kind: str, zipped: bool, tmp_path: Path) -> None:
    """The weights and nothing else, and the sentence says what they are."""
    content, names, words = CONVERTED[kind]
    torch.save(content, tmp_path / "x.ckpt", _use_new_zipfile_serialization=zipped)

    said = convert(tmp_path / "x.ckpt", tmp_path / "x.safetensors")

    found = load_file(tmp_path / "x.safetensors")
    assert set(found) == names and words in said
    assert all(value.abs().sum() > 0 for value in found.values())
    recognise(Source(path=tmp_path / "x.safetensors"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.ckpt", "x.safetensors"]


@pytest.mark.parametrize("name", ["-x.ckpt", "a b 'c'.pt", "größe $(touch no).bin", "model.safetensors", "--help.pth"])
def test_the_printed_command_runs_as_it_is_printed(name: str, tmp_path: Path) -> None:
    """Names that begin with a dash, with spaces, quotes and other letters, from the folder and from elsewhere."""
    torch.save({"state_dict": UNET, "callbacks": {Callback: 1}}, tmp_path / name)
    for path, folder in ((Path(name), tmp_path), (tmp_path / name, tmp_path.parent)):
        before = set(tmp_path.iterdir())
        here = Path.cwd()
        os.chdir(folder)
        try:
            with pytest.raises(UserError, match="is a pickle") as caught:
                read_header(path)
        finally:
            os.chdir(here)
        command = str(caught.value).splitlines()[-1].partition(": ")[2]
        assert command.startswith("python -c ")
        command = shlex.quote(sys.executable) + command.removeprefix("python")
        ran = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        (made,) = set(tmp_path.iterdir()) - before
        assert made.suffix == ".safetensors" and set(load_file(made)) == set(UNET) and made.name in ran.stdout
        made.unlink()


def test_a_directory_with_pickled_weights_is_converted(v1: Path, tmp_path: Path) -> None:
    """Every part, one of them in shards; the numbers are the same, and the result is a base."""
    old = Path(shutil.copytree(v1, tmp_path / "old model"))
    for part, stem, name in (
        ("unet", "diffusion_pytorch_model", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model", "diffusion_pytorch_model"),
        ("text_encoder", "model", "pytorch_model"),
    ):
        tensors = load_file(old / part / f"{stem}.safetensors")
        (old / part / f"{stem}.safetensors").unlink()
        if part != "unet":
            torch.save(tensors, old / part / f"{name}.bin")
            continue
        halves = [dict(list(tensors.items())[:300]), dict(list(tensors.items())[300:])]
        places = {}
        for number, half in enumerate(halves, 1):
            torch.save(half, old / part / f"{name}-0000{number}-of-00002.bin")
            places |= dict.fromkeys(half, f"{name}-0000{number}-of-00002.bin")
        (old / part / f"{name}.bin.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(UserError, match="only pickled weights") as caught:
        check_base(old)
    words = shlex.split(str(caught.value).splitlines()[-1].partition(": ")[2])

    main(words[3:])

    made = Path(words[4])
    check_base(made)
    for file in ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"):
        ours, theirs = load_file(made / f"{file}.safetensors"), load_file(v1 / f"{file}.safetensors")
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


NOT_CONVERTED: dict[str, tuple[Any, str]] = {
    "nothing": ({}, "holds no weights"),
    "a list": ([torch.ones(2)], "holds no weights"),
    "a number": (3, "holds no weights"),
    "an object": (Callback(), "holds no weights"),
    "two models": ({"unet": UNET, "vae": UNET}, "holds no weights that can be identified"),
    "embeddings of two words": (
        {"string_to_param": {"a": torch.ones(2, 8), "b": torch.ones(2, 8)}},
        "an embedding of 2 tokens",
    ),
    "something else": ({"layer.0": torch.ones(2, 2), "layer.1": torch.ones(2, 2)}, "is of no known format"),
    "a ControlNet": ({"control_model.a": torch.ones(2)}, "a ControlNet"),
    "NaN": ({name: value * torch.nan for name, value in UNET.items()}, "NaN or infinity"),
    "sparse": ({name: torch.ones(2, 2).to_sparse() for name in UNET}, "sparse"),
    "complex": ({name: torch.ones(2, 2, dtype=torch.complex64) for name in UNET}, "complex"),
}


@pytest.mark.parametrize("kind", NOT_CONVERTED)
def test_what_cannot_be_converted_leaves_nothing(kind: str, tmp_path: Path, capsys: Any) -> None:
    """Exit 4, one sentence, no file."""
    content, words = NOT_CONVERTED[kind]
    torch.save(content, tmp_path / "x.ckpt")

    with pytest.raises(SystemExit) as left:
        main([str(tmp_path / "x.ckpt"), str(tmp_path / "x.safetensors")])

    said = capsys.readouterr().err
    assert left.value.code == 4 and words in said and said.startswith("resurgence: ") and ".converting" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["x.ckpt"]


def test_nothing_in_the_file_runs(tmp_path: Path) -> None:
    """Bombs bare, in torch's zip and beside good weights, which are still had."""
    marker = tmp_path / "marker"
    torch.save({"state_dict": UNET, "callbacks": Bomb(str(marker))}, tmp_path / "beside.ckpt")
    convert(tmp_path / "beside.ckpt", tmp_path / "beside.safetensors")
    assert set(load_file(tmp_path / "beside.safetensors")) == set(UNET)
    for protocol in (0, 2, 5):
        (tmp_path / "bare.ckpt").write_bytes(pickle.dumps(Bomb(str(marker)), protocol=protocol))
        with pytest.raises(UserError):
            convert(tmp_path / "bare.ckpt", tmp_path / "bare.safetensors")
    dotted = b"\x80\x04\x8c\x05torch\x8c\x0bos.system.x\x93\x8c\x04echo\x85R."
    (tmp_path / "dotted.ckpt").write_bytes(dotted)
    with pytest.raises(UserError):
        convert(tmp_path / "dotted.ckpt", tmp_path / "dotted.safetensors")
    assert not marker.exists()
    pickle.loads(pickle.dumps(Bomb(str(marker))))
    assert marker.exists(), "the bombs prove nothing unless they go off where they are believed"


def test_a_zip_that_grows_is_refused(tmp_path: Path) -> None:
    """Before it is unpacked."""
    with zipfile.ZipFile(tmp_path / "x.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"\0" * 50_000_000)
        archive.writestr("x/version", "3\n")

    with pytest.raises(UserError, match="its contents have 50"):
        convert(tmp_path / "x.ckpt", tmp_path / "x.safetensors")


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    """A file that is there, a source that is not, another ending; the advice names a file that is free."""
    torch.save(UNET, tmp_path / "x.ckpt")
    (tmp_path / "x.safetensors").write_text("mine")

    for source, out, words in (
        ("x.ckpt", "x.safetensors", "already exists"),
        ("y.ckpt", "y.safetensors", "There is no checkpoint"),
        ("x.ckpt", "x.bin", "no safetensors file"),
        ("x.ckpt", "nowhere/x.safetensors", "cannot be written"),
    ):
        with pytest.raises(UserError, match=words):
            convert(tmp_path / source, tmp_path / out)
    assert (tmp_path / "x.safetensors").read_text() == "mine"
    assert conversion(tmp_path / "x.ckpt").endswith("x-converted.safetensors")
    convert(tmp_path / "x.ckpt", tmp_path / "x-converted.safetensors")
    with safe_open(tmp_path / "x-converted.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
