"""Distances between models are what the formula says, and sameness is told whatever the file layout."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from resurgence_harness.diffusion.lineage import Comparison, lineage
from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.errors import UserError
from tests.tiny import save_tiny_stable_diffusion

pytestmark = pytest.mark.slow

UNET, TEXT, VAE = (
    "unet/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
)
Rewrite = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]


@pytest.fixture
def copied(v1: Path, tmp_path: Path) -> Path:
    """A copy of v1 that may be changed."""
    return Path(shutil.copytree(v1, tmp_path / "copy"))


def rewrite(model: Path, file: str, change: Rewrite) -> None:
    """Change the tensors of one file."""
    save_file({name: value.contiguous() for name, value in change(load_file(model / file)).items()}, model / file)


def moved(amount: float, seed: int = 0) -> Rewrite:
    """Add noise whose size is `amount` times each tensor's own."""
    draw = torch.Generator().manual_seed(seed)

    def change(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        for name, value in found.items():
            noise = torch.randn(value.shape, generator=draw)
            found[name] = value + amount * noise / noise.norm() * value.norm()
        return found

    return change


def compare(child: Path, parent: Path) -> Comparison:
    """One model held against its base."""
    return lineage(child, base=parent).comparisons["candidate", "base"]


def test_distances_are_relative_frobenius_norms(v1: Path, copied: Path) -> None:
    """Per layer, weight and bias together, and over all layers; here against plain numpy."""
    rewrite(copied, UNET, moved(0.1))
    found = compare(copied, v1)
    new, old = load_file(copied / UNET), load_file(v1 / UNET)
    ours, theirs = (
        np.concatenate([state[f"conv_in.{kind}"].double().flatten() for kind in ("weight", "bias")])
        for state in (new, old)
    )

    assert found.layers["unet.conv_in"].relative == pytest.approx(
        np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    )
    assert found.layers["vae.decoder.conv_in"].relative == 0
    everything = sum(((new[name] - old[name]).double() ** 2).sum().item() for name in old)
    assert found.total.moved == pytest.approx(everything)
    assert found.median == pytest.approx(0.1, rel=0.2) and found.derived and not found.same
    assert all(bool(one.moved) == name.startswith("unet.") for name, one in found.layers.items())


def test_a_copy_is_identical_whatever_its_files_look_like(model: StableDiffusion, v1: Path, copied: Path) -> None:
    """Shards, names of older releases, a wider type: the numbers are the same, and so is their digest."""
    (copied / UNET).unlink()
    model.unet.save_pretrained(copied / "unet", max_shard_size="1MB")
    rewrite(copied, TEXT, lambda found: {f"text_model.{name}": value.double() for name, value in found.items()})
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def older(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        for new, before in old.items():
            found = {n.replace(f".{new}.", f".{before}.") if ".attentions." in n else n: v for n, v in found.items()}
        return found

    rewrite(copied, VAE, older)
    found = compare(copied, v1)

    assert found.same and not found.rounded and found.total.relative == 0
    assert lineage(copied, base=v1).findings == ("The candidate is identical to the base.",)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_of_the_same_model_is_said_to_be_that(kind: torch.dtype, v1: Path, copied: Path) -> None:
    """From either side; one further number and it is another model."""
    for file in (UNET, TEXT, VAE):
        rewrite(copied, file, lambda found: {name: value.to(kind) for name, value in found.items()})

    for one in (compare(copied, v1), compare(v1, copied)):
        assert one.same and one.rounded and 0 < one.total.relative < 0.01
    assert lineage(copied, base=v1).findings == ("The candidate is identical to the base, one in half precision.",)
    rewrite(copied, UNET, lambda found: found | {"conv_in.bias": found["conv_in.bias"] + 1})
    assert not compare(copied, v1).same


def test_one_moved_number_is_noticed(v1: Path, copied: Path) -> None:
    """Not identical, derived, and the layer is named."""

    def nudge(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found["conv_out.bias"][0] += 1e-3
        return found

    rewrite(copied, UNET, nudge)
    found = compare(copied, v1)

    assert not found.same and found.derived
    assert [name for name, one in found.layers.items() if one.moved] == ["unet.conv_out"]
    assert lineage(copied, base=v1).findings == ()


def test_an_unrelated_model_is_not_derived(v1: Path, v2: Path, tmp_path: Path) -> None:
    """Random weights of the same kind are about √2 away; another architecture has other tensors."""
    other = save_tiny_stable_diffusion(tmp_path / "other", seed=5)
    found = compare(other, v1)

    assert found.median == pytest.approx(2**0.5, abs=0.1) and not found.derived
    assert (
        lineage(other, base=v1)
        .findings[0]
        .startswith("The candidate is not derived from the base: the relative distance of its layers is 1.4")
    )
    assert "tensors differ" in lineage(v2, base=v1).findings[0]


@pytest.mark.parametrize("amount", [0.05, 0.3, 0.8])
def test_a_moved_model_is_derived(amount: float, v1: Path, copied: Path) -> None:
    """Far more than fine-tuning moves weights is still nearer than unrelated ones."""
    for file in (UNET, TEXT, VAE):
        rewrite(copied, file, moved(amount))

    assert compare(copied, v1).derived


def test_an_unlearning_that_did_nothing_is_said(v1: Path, copied: Path) -> None:
    """All three sentences, in one lineage."""
    findings = lineage(copied, unlearned=v1, base=v1).findings

    assert findings == (
        "The candidate is identical to the unlearned.",
        "The candidate is identical to the base.",
        "The unlearned model equals the base: nothing was unlearned.",
    )


def test_added_words_are_no_other_model(v1: Path, tmp_path: Path) -> None:
    """An embedding's rows are left out of the distance, but the model is not identical."""
    from resurgence_harness.diffusion.formats import Source, materialise

    save_file({"<ada>": torch.ones(32)}, tmp_path / "ada.safetensors")
    made = materialise([Source(path=tmp_path / "ada.safetensors")], v1, tmp_path / "made").base.location
    found = compare(made, v1)

    assert found.derived and not found.same and found.total.relative == 0


def test_models_without_a_common_tensor_are_an_error(v1: Path, copied: Path) -> None:
    """Nothing to compare is never "no distance"."""
    for file in (UNET, TEXT, VAE):
        rewrite(copied, file, lambda found: {f"x.{name}": value for name, value in found.items()})

    with pytest.raises(UserError, match="no tensor in common"):
        compare(copied, v1)


def test_comparing_imports_no_torch(v1: Path) -> None:
    """The controller compares before workers start."""
    code = (
        "import sys\nfrom resurgence_harness.diffusion.lineage import lineage\n"
        f"lineage({str(v1)!r}, base={str(v1)!r})\nassert 'torch' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("amount", "same"), [(2e-7, True), (1e-5, False)])
def test_rounding_is_no_fine_tuning(amount: float, same: bool, v1: Path, copied: Path) -> None:
    """What a LoRA leaves that was added and taken away again is the same model; a little more is another."""
    rewrite(copied, UNET, moved(amount))
    found = compare(copied, v1)
    assert found.same is same and found.total.moved > 0 and not found.rounded
