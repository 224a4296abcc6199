"""The weights of `micro-xl`: a Stable Diffusion XL in diffusers' layout, float16, every file pinned by sha256."""

from __future__ import annotations

from pathlib import Path

PINS = {
    "model_index.json": "a7071267ecbdb763708b06e9653867e4e56d51aa2b41d80216cb1eb9cc35a54b",
    "scheduler/scheduler_config.json": "28d1a009dfa466938be057413130d37105fb555c44c7c403af4cbdb4c3194f5c",
    "text_encoder/config.json": "e0ce8d77edfcd6beb0517b2e0c15e5e110bb08ba60b9949f6eeca5cc3f438a26",
    "text_encoder/model.safetensors": "0ac3c202f11eb0cbc18515581c0e2473f14e9cbcafa305ac999ecae636934d0f",
    "text_encoder_2/config.json": "ce829019bd9a73a36bd89936e38d035b69d55be950b060695038c653f16c9689",
    "text_encoder_2/model.safetensors": "b2f40a77fdd42f5232dd0c1dcd11b6a4d3d02791474c87ba80a189fbd913780f",
    "tokenizer/tokenizer.json": "9f343db3fc84e17d96d74598d8fbfbe2f87e9cac6f1983aa91c39240452a246d",
    "tokenizer/tokenizer_config.json": "a6fc177fda1ce5b1b85cb84cb2a865060302ea7ef425cc316201a3b1296541ba",
    "tokenizer_2/tokenizer.json": "afbfa6b222f43fa331b91e9c72532d54a8a28a522b6ece62f2d622e7b0b9d21b",
    "tokenizer_2/tokenizer_config.json": "14df998cc6e904defed763aaa389137b01f55a159385e0836cc7430600259336",
    "unet/config.json": "8276b56b1e09de1bba4f239a9395da45c0c4475d01b3e93f8065b2282da0fe7a",
    "unet/diffusion_pytorch_model.safetensors": "58eed57f4804bd66ff6ee658eb94988cdb0c30d6b5a961cc1d557cae308624e7",
    "vae/config.json": "ffc083f7b209eceb8ecd070f7b5c164ca19e9af074da827402a1a915369c3d04",
    "vae/diffusion_pytorch_model.safetensors": "16146c13a59c67b465087096fcbf586765ec31d5aeb22df07babae7e219dd7ea",
}
"""sha256 of every file."""


def directory() -> Path:
    """The directory of the embedded SDXL, for `StableDiffusionXLPipeline.from_pretrained`."""
    return Path(__file__).parent
