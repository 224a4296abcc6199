"""The weight audit measures what it says: w where the candidate is unlearned + w (base − unlearned)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from resurgence_harness.errors import UserError
from resurgence_harness.gate.audit import audit, figure
from tests.tiny import save_tiny_stable_diffusion

pytestmark = pytest.mark.slow

UNET = "unet/diffusion_pytorch_model.safetensors"
KEYS = ".attn2.to_k."


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that was unlearned."""
    return save_tiny_stable_diffusion(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def unlearned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base with its cross-attention keys changed at random."""
    draw = torch.Generator().manual_seed(0)
    return write(
        base,
        tmp_path_factory.mktemp("unlearned") / "model",
        lambda name, value: value + 0.1 * torch.randn(value.shape, generator=draw) if KEYS in name else value,
    )


def write(model: Path, place: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> Path:
    """A copy whose U-Net's tensors are changed."""
    shutil.copytree(model, place)
    save_file({name: change(name, value).contiguous() for name, value in load_file(model / UNET).items()}, place / UNET)
    return place


@pytest.mark.parametrize("w", [-0.5, 0.0, 0.25, 1.0])
def test_a_step_back_to_the_base_is_measured_exactly(w: float, base: Path, unlearned: Path, tmp_path: Path) -> None:
    """In all and in every layer that was erased, with cosine 1."""
    target = load_file(base / UNET)
    found = audit(
        write(unlearned, tmp_path / "candidate", lambda name, value: value + w * (target[name] - value)),
        unlearned=unlearned,
        base=base,
    )

    assert found.undone == pytest.approx(w, abs=1e-6)
    erased = {f"unet.{name.removesuffix('.weight')}" for name in target if KEYS in name}
    assert set(found.largest) == erased and len(erased) == 16
    assert all(found.layers[name].undone == pytest.approx(w, abs=1e-6) for name in erased)
    assert found.total.cosine == (pytest.approx(1 if w > 0 else -1) if w else None)


def test_a_movement_elsewhere_undoes_nothing(base: Path, unlearned: Path, tmp_path: Path) -> None:
    """Other layers do not count; random movement of the erased ones lies across the line, so its cosine is small."""
    draw = torch.Generator().manual_seed(1)
    away = audit(
        write(unlearned, tmp_path / "a", lambda name, value: value if KEYS in name else value + 0.01),
        unlearned=unlearned,
        base=base,
    )
    across = audit(
        write(
            unlearned,
            tmp_path / "b",
            lambda name, value: value + 0.1 * torch.randn(value.shape, generator=draw) if KEYS in name else value,
        ),
        unlearned=unlearned,
        base=base,
    )

    assert away.undone == 0 and away.total.cosine == 0 and away.total.moved > 0
    assert across.total.cosine is not None and abs(across.total.cosine) < 0.05
    assert abs(across.undone) < 0.05


def test_the_sums_match_plain_float64(base: Path, unlearned: Path, tmp_path: Path) -> None:
    """Numerator and denominator against one concatenated vector."""
    draw = torch.Generator().manual_seed(2)
    candidate = write(
        unlearned, tmp_path / "c", lambda _, value: value + 0.02 * torch.randn(value.shape, generator=draw)
    )
    c, u, b = (
        torch.cat([value.double().flatten() for _, value in sorted(load_file(model / UNET).items())])
        for model in (candidate, unlearned, base)
    )
    found = audit(candidate, unlearned=unlearned, base=base)

    assert found.total.inner == pytest.approx(((c - u) @ (b - u)).item())
    assert found.total.erased == pytest.approx(((b - u) @ (b - u)).item())
    assert found.total.moved == pytest.approx(((c - u) @ (c - u)).item())
    assert f"{round(100 * found.undone)}%" in found.description and "no verdict" in found.description


def test_without_an_erasure_there_is_nothing_to_audit(base: Path, unlearned: Path, tmp_path: Path) -> None:
    """Never 0 %, which would read as safe; nor for models of other shapes."""
    with pytest.raises(UserError, match="unlearned model equals the base"):
        audit(unlearned, unlearned=base, base=base)
    wider = save_tiny_stable_diffusion(tmp_path / "wide", text_width=48)
    with pytest.raises(UserError, match="another shape than its base"):
        audit(wider, unlearned=unlearned, base=base)


def test_the_figure_shows_the_most_erased_layers(base: Path, unlearned: Path, tmp_path: Path) -> None:
    """SVG and PNG, the same bytes each time, every erased layer named."""
    target = load_file(base / UNET)
    found = audit(
        write(unlearned, tmp_path / "candidate", lambda name, value: value + 0.3 * (target[name] - value)),
        unlearned=unlearned,
        base=base,
    )
    drawn = figure(found)

    assert drawn == figure(found) and drawn.startswith(b"<?xml")
    assert drawn.count(b"attn2.to_k") >= 16 and b"in all 30%" in drawn and b"advisory" in drawn
    assert figure(found, format="png").startswith(b"\x89PNG")
