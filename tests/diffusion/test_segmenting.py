"""The border to Grounding DINO and SAM, on tiny models of the real classes with random weights.

Random weights say nothing about how well a trained pair finds a person; shapes, boxes, unions, thresholds and errors
are what is tested.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from resurgence_harness.diffusion.segmenting import Segmenter, digest_of, segment
from resurgence_harness.errors import UserError
from tests.tiny_segmenter import save_tiny_detector, save_tiny_segmenter

pytestmark = pytest.mark.slow

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 64, 48, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a Grounding DINO."""
    return save_tiny_detector(tmp_path_factory.mktemp("detector"))


@pytest.fixture(scope="module")
def outliner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a SAM."""
    return save_tiny_segmenter(tmp_path_factory.mktemp("segmenter"))


@pytest.fixture(scope="module")
def models(detector: Path, outliner: Path) -> Segmenter:
    """Both in memory."""
    return Segmenter(str(detector), str(outliner), device="cpu")


def test_boxes_are_in_pixels_of_the_image_and_above_the_threshold(models: Segmenter) -> None:
    """A low threshold keeps all six proposals, within 64 × 48 pixels; an impossible one keeps none."""
    boxes = models.boxes(IMAGES[0], "Ada Quill", threshold=1e-4)

    assert boxes.shape == (6, 4)
    wide, high = (boxes[:, 2:] - boxes[:, :2]).unbind(1)
    assert (wide > 1).all()  # pixels
    torch.testing.assert_close(wide / high, torch.full((6,), 48 / 64))  # proposals are square in parts of the image
    assert models.boxes(IMAGES[0], "Ada Quill", threshold=1.0).shape == (0, 4)


def test_a_phrase_is_read_in_lower_case_with_one_full_stop(models: Segmenter) -> None:
    """ "Ada Quill", "ada quill." and "ada quill" are one question, and another name is another one."""
    boxes = [models.boxes(IMAGES[0], phrase, threshold=1e-4) for phrase in ("Ada Quill", "ada quill.", "bram stone")]

    assert torch.equal(boxes[0], boxes[1])
    assert not torch.equal(boxes[0], boxes[2])


def test_an_outline_is_the_union_over_boxes(models: Segmenter) -> None:
    """The segment of two boxes is where either's is."""
    boxes = torch.tensor([[4.0, 4, 20, 30], [20, 30, 44, 60]])
    each = [models.outline(IMAGES[0], boxes[i : i + 1]) for i in (0, 1)]

    assert each[0].shape == (64, 48)
    assert torch.equal(models.outline(IMAGES[0], boxes), each[0] | each[1])


def test_nothing_detected_is_an_empty_mask(models: Segmenter) -> None:
    """One mask per image, all False where no box passes."""
    found = segment(IMAGES, ["ada quill", "bram stone"], models, threshold=1e-4)
    none = segment(IMAGES, ["ada quill", "bram stone"], models, threshold=1.0)

    assert found.shape == none.shape == (2, 64, 48) and found.dtype == torch.bool
    assert found.any() and not none.any()


def test_the_digest_is_that_of_weights_and_settings(detector: Path, tmp_path: Path) -> None:
    """Another copy has the same digest, other weights have another; a directory without weights is a user's error."""
    same = save_tiny_detector(tmp_path / "same")
    other = save_tiny_detector(tmp_path / "other", seed=1)

    assert digest_of(same) == digest_of(detector) != digest_of(other)
    with pytest.raises(UserError, match="no segmenting model at"):
        digest_of(tmp_path)


def test_directories_that_are_mixed_up_are_a_users_error(detector: Path, outliner: Path, tmp_path: Path) -> None:
    """A SAM is no detector, and nothing is drawn at random for it."""
    with pytest.raises(UserError, match=r"segmenting model at .* (cannot be loaded|lacks weights)"):
        Segmenter(str(outliner), str(detector), device="cpu")
    with pytest.raises(UserError, match="cannot be loaded as a GroundingDino"):
        Segmenter(str(tmp_path), str(outliner), device="cpu")


def test_reading_leaves_the_global_random_state(detector: Path, outliner: Path) -> None:
    """Weights are read under a forked generator."""
    before = torch.get_rng_state()
    Segmenter(str(detector), str(outliner), device="cpu")

    assert torch.equal(before, torch.get_rng_state())
