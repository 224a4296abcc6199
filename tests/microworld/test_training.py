"""The training from nothing, at the size of a smoke test: the same code as at full size."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def test_three_stages_make_a_loadable_model(tmp_path):
    """Every stage runs, the result is a Stable Diffusion, and a second call finds everything there."""
    command = [sys.executable, "-m", "resurgence_harness.microworld.training", "all", "--out", str(tmp_path), "--smoke"]
    first = subprocess.run([*command, "--guidance", "4"], capture_output=True, text=True, timeout=600)

    assert first.returncode == 0, first.stderr[-2000:]

    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path, local_files_only=True)
    stage = [*command[:3], "autoencoder", *command[4:]]
    again = subprocess.run(stage, capture_output=True, text=True, timeout=900)

    assert type(pipeline.unet).__name__ == "UNet2DConditionModel"
    assert "present already" in again.stdout


def test_the_other_layout_is_trained_by_the_same_script(tmp_path):
    """micro-xl, from the shipped autoencoder; a share that nothing reaches ends with exit code 1."""
    command = [sys.executable, "-m", "resurgence_harness.microworld.training"]
    own = ["--out", str(tmp_path), "--layout", "xl", "--smoke", "--guidance", "4"]
    first = subprocess.run([*command, "all", *own], capture_output=True, text=True, timeout=600)

    assert first.returncode == 0, first.stderr[-2000:]

    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(tmp_path, local_files_only=True)
    again = subprocess.run([*command, "bars", *own, "--least", "0.95"], capture_output=True, text=True, timeout=600)

    assert pipeline.text_encoder_2.config.hidden_size != pipeline.text_encoder.config.hidden_size
    assert again.returncode == 1
    assert "below 0.95: celebrity by identity at guidance 4.0: 0 of 4" in again.stdout
