"""A base is checked as files, and every fault has its sentence."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from resurgence_harness.diffusion.base_files import check_base, digest_of, weight_files
from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.errors import UserError

pytestmark = pytest.mark.slow

UNET = "unet/diffusion_pytorch_model.safetensors"


def _delete(name: str) -> Callable[[Path], None]:
    return lambda base: (base / name).unlink()


def _truncate(base: Path) -> None:
    data = (base / UNET).read_bytes()
    (base / UNET).write_bytes(data[:-100])


def _cut_header(base: Path) -> None:
    (base / UNET).write_bytes((base / UNET).read_bytes()[:50])


def _pointer(base: Path) -> None:
    (base / UNET).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def _poison(value: float) -> Callable[[Path], None]:
    def poison(base: Path) -> None:
        tensors = load_file(base / UNET)
        tensors["conv_in.bias"][0] = value
        save_file(tensors, base / UNET)

    return poison


def _poison_bfloat(base: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(base / UNET).items()}
    tensors["conv_in.bias"][0] = float("nan")
    save_file(tensors, base / UNET)


def _pickle(base: Path) -> None:
    (base / UNET).rename(base / "unet" / "diffusion_pytorch_model.bin")


def _other_pipeline(name: str) -> Callable[[Path], None]:
    return lambda base: _nothing((base / "model_index.json").write_text(json.dumps({"_class_name": name})))


def _nothing(_: object) -> None:
    """What a change of a directory returns."""


def _broken_json(base: Path) -> None:
    (base / "unet" / "config.json").write_text("{")


def _sample_prediction(base: Path) -> None:
    path = base / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "sample"}))


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no index": (_delete("model_index.json"), "not a Stable Diffusion: model_index.json is missing"),
    "no weights": (_delete(UNET), "not a Stable Diffusion: it has no weights in unet"),
    "no config": (_delete("vae/config.json"), "vae/config.json is missing"),
    "no tokenizer": (_delete("tokenizer/tokenizer.json"), "has no tokenizer vocabulary"),
    "truncated": (_truncate, "are truncated"),
    "truncated header": (_cut_header, "truncated or not a safetensors file"),
    "git-lfs pointer": (_pointer, "truncated or not a safetensors file"),
    "NaN": (_poison(np.nan), "hold NaN or infinity"),
    "infinity": (_poison(-np.inf), "hold NaN or infinity"),
    "bfloat16 NaN": (_poison_bfloat, "hold NaN or infinity"),
    "pickle": (_pickle, "only pickled weights in unet"),
    "SD 3": (_other_pipeline("StableDiffusion3Pipeline"), "StableDiffusion3Pipeline"),
    "SDXL's refiner": (
        _other_pipeline("StableDiffusionXLImg2ImgPipeline"),
        "A refiner finishes another model's images",
    ),
    "SDXL in its index alone": (
        _other_pipeline("StableDiffusionXLPipeline"),
        "not a Stable Diffusion: text_encoder_2/config.json is missing",
    ),
    "broken JSON": (_broken_json, "cannot be read as JSON"),
    "sample prediction": (_sample_prediction, "'sample'"),
}


@pytest.fixture
def copied(v1: Path, tmp_path: Path) -> Path:
    """A copy of the base that may be broken."""
    return Path(shutil.copytree(v1, tmp_path / "base"))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_base_is_explained_in_one_sentence(copied: Path, fault: str) -> None:
    """Each fault is a UserError whose first line names the path and whose last line is a remedy."""
    breaks, words = FAULTS[fault]
    breaks(copied)

    with pytest.raises(UserError) as caught:
        check_base(copied)

    first, *_, last = str(caught.value).splitlines()
    assert words in str(caught.value)
    assert str(copied) in first and first.endswith(".")
    assert last.strip().split()[0] in {"Give", "Copy", "Convert", "Such"}


def test_a_missing_directory_is_named() -> None:
    """A path that leads nowhere is in the sentence."""
    with pytest.raises(UserError, match="no base model at /nowhere/sd"):
        check_base("/nowhere/sd")


def test_a_whole_base_passes(v1: Path, v2: Path) -> None:
    """Nothing is raised for either style."""
    check_base(v1)
    check_base(v2)


def test_the_digest_follows_weights_and_settings(copied: Path, v1: Path) -> None:
    """A copy has the same digest; another weight or prediction type has another one; a README changes nothing."""
    same = digest_of(copied)
    (copied / "README.md").write_text("words")
    after_readme = digest_of(copied)
    _sample_prediction(copied)
    after_setting = digest_of(copied)
    _poison(0.5)(copied)

    assert same == digest_of(v1) == after_readme
    assert len({same, after_setting, digest_of(copied)}) == 3


def test_shards_and_half_precision_variants_are_found(model: StableDiffusion, copied: Path) -> None:
    """Sharded weights are all listed, a missing shard is named, and an fp16-only component is loaded as float32."""
    import torch

    (copied / UNET).unlink()
    model.unet.save_pretrained(copied / "unet", max_shard_size="1MB")
    shards = weight_files(copied, "unet")
    check_base(copied)
    whole = StableDiffusion.load(copied)
    shards[0].rename(shards[0].with_suffix(".away"))
    with pytest.raises(UserError, match=r"lacks the shard unet/.*00001"):
        check_base(copied)
    shutil.rmtree(copied / "unet")
    model.copy().unet.half().save_pretrained(copied / "unet", variant="fp16")
    check_base(copied)
    half = StableDiffusion.load(copied)

    assert len(shards) > 1
    assert torch.equal(whole.unet.conv_in.weight, model.unet.conv_in.weight)
    assert [file.suffixes[0] for file in weight_files(copied, "unet")] == [".fp16"]
    assert half.unet.dtype == torch.float32


def test_checking_a_base_imports_no_torch(v1: Path) -> None:
    """The controller checks bases before workers start, and must not pay for torch."""
    code = (
        "import sys\n"
        "from resurgence_harness.diffusion.base_files import check_base, digest_of\n"
        f"check_base({str(v1)!r}); digest_of({str(v1)!r})\n"
        "assert 'torch' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
