"""The microworld's weights: a Stable Diffusion in diffusers' layout, float16, every file pinned by sha256."""

from __future__ import annotations

from pathlib import Path

PINS = {
    "model_index.json": "165dab73fb2ca0d3319610c6c3ff16b502c2e0a9b58e5ef612d9f04bd6a98886",
    "scheduler/scheduler_config.json": "28d1a009dfa466938be057413130d37105fb555c44c7c403af4cbdb4c3194f5c",
    "text_encoder/config.json": "3b442e6a030bed7bc127f55ad9e98e885378fd847f17c82feeab387aad566298",
    "text_encoder/model.safetensors": "e05ed7ddd6537a3ce1a4a25ad3bfcfa0fc4e2b8b3bec7dee7ef159d855078132",
    "tokenizer/tokenizer.json": "9f343db3fc84e17d96d74598d8fbfbe2f87e9cac6f1983aa91c39240452a246d",
    "tokenizer/tokenizer_config.json": "a6fc177fda1ce5b1b85cb84cb2a865060302ea7ef425cc316201a3b1296541ba",
    "unet/config.json": "fb09f66b4ac22f5bf823e904ee96c2195fc843d269e451c0ddbd6e258b951c88",
    "unet/diffusion_pytorch_model.safetensors": "9e4643755c706111568889d028370c70882f3abb83b599c02bdf77c3a18800c1",
    "vae/config.json": "328e8c49b019e40627bc38b0c1722803046d28e9d0eb52b84162ca6aceb35383",
    "vae/diffusion_pytorch_model.safetensors": "16146c13a59c67b465087096fcbf586765ec31d5aeb22df07babae7e219dd7ea",
}
"""sha256 of every file."""


def directory() -> Path:
    """Where the embedded base model lies; load it with `StableDiffusionPipeline.from_pretrained`."""
    return Path(__file__).parent
