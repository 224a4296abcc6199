"""The microworld's weights: a Stable Diffusion in diffusers' layout, float16, every file pinned by sha256."""

from __future__ import annotations

import hashlib
from pathlib import Path

PINS = {
    "model_index.json": "165dab73fb2ca0d3319610c6c3ff16b502c2e0a9b58e5ef612d9f04bd6a98886",
    "scheduler/scheduler_config.json": "28d1a009dfa466938be057413130d37105fb555c44c7c403af4cbdb4c3194f5c",
    "text_encoder/config.json": "6d3a6d6b6eac0952780ff6ab0f5f8aeb32d4e8c0c9f9efa22a69ab19f2b1b924",
    "text_encoder/model.safetensors": "a5417a1ebf235d66ed1b40e7800ff7c5cf49aea3ee8bd598167f0ca3058b064d",
    "tokenizer/tokenizer.json": "9f343db3fc84e17d96d74598d8fbfbe2f87e9cac6f1983aa91c39240452a246d",
    "tokenizer/tokenizer_config.json": "a6fc177fda1ce5b1b85cb84cb2a865060302ea7ef425cc316201a3b1296541ba",
    "unet/config.json": "f59c08716efb6b61c312cc2227750a41b4a2a5a38a28e761c0e0122c9c839d54",
    "unet/diffusion_pytorch_model.safetensors": "95b12ec8f1d71a1fac5f3de2279ba3fd0713d828ef3ae7416f73e40c50520d43",
    "vae/config.json": "e3d0aa7ffb785e8da1029ace29413f4133737df4dc580f402efa03cae53da72b",
    "vae/diffusion_pytorch_model.safetensors": "b2c92dc710f08aebef0310ae48e1e4eb5c86040106de102f7af0860e586e4201",
}
"""sha256 of every file."""


def directory() -> Path:
    """Where the embedded base model lies; load it with `StableDiffusionPipeline.from_pretrained`."""
    return Path(__file__).parent


def altered() -> list[str]:
    """The files that are missing or are not the pinned ones; empty if all is well."""
    found = {}
    for name in PINS:
        path = directory() / name
        found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
    return [name for name, digest in found.items() if digest != PINS[name]]
