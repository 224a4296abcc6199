"""CLIP embeddings of pictures and texts as unit vectors; the only file that uses open_clip.

    Clip(architecture="ViT-B-32-quickgelu", weights=Weights(file="clip-vit-b-32-openai.safetensors"))

The architecture is a name from `open_clip.list_models()`. *OpenAI's weights need the names that end in -quickgelu*; the
plain names use another activation, so OpenAI's weights load into them without an error but give worse answers. Plain
names are right for LAION's and DataComp's weights. Weights are a safetensors file provided by the user
(`open_clip_model.safetensors` of the published repositories), never a tag that open_clip would download.

*Departures from open_clip's own preprocessing:* pictures are scaled on the device and in one batch (bicubic with
antialiasing, in Pillow's two passes of 8 bits) instead of one by one in Pillow; levels differ by at most 1 of 255.
Everything is computed in float32. open_clip (MIT) is imported when the first picture is judged.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from resurgence_harness.errors import JudgeError, UserError, sentence
from resurgence_harness.judging.weights import Weights, read_tensors
from resurgence_harness.specs import not_in_key
from resurgence_harness.storing.keys import canonical_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import Tensor

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


class Embedder(Protocol):
    """An image embedding: `Clip`, or any object with these two members, around any model of timm or transformers."""

    @property
    def digest(self) -> str:
        """sha256 of everything that its vectors depend on."""

    def image_features(self, images: np.ndarray, device: str) -> Tensor:
        """One float32 vector [n, d] of length 1 for each image uint8 [n, h, w, 3]."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """An architecture of open_clip with weights from the user. Creating this value imports and reads nothing."""

    architecture: str
    """A name from `open_clip.list_models()`."""
    weights: Weights
    mean: tuple[float, float, float] = OPENAI_MEAN
    """Channel means, 0 … 1; SigLIP models use (0.5, 0.5, 0.5)."""
    std: tuple[float, float, float] = OPENAI_STD
    batch: int = not_in_key(64)
    """Pictures per forward pass."""

    @property
    def digest(self) -> str:
        """sha256 over architecture, preprocessing and the weights' own sha256."""
        return digest_of_parts(self.architecture, self.weights.digest, list(self.mean), list(self.std))

    def image_features(self, images: np.ndarray, device: str) -> Tensor:
        """One float32 vector [n, d] of length 1 for each image uint8 [n, h, w, 3]."""
        import torch

        model, size = self._model(device)
        mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (self.mean, self.std))
        found = []
        with torch.inference_mode():
            for start in range(0, len(images), self.batch):
                part = torch.from_numpy(images[start : start + self.batch]).to(device).permute(0, 3, 1, 2).float()
                pixels = (_fitted(part, size) / 255 - mean) / std
                found.append(unit(model.encode_image(pixels).float(), what="of a picture"))
        return torch.cat(found)

    def text_features(self, texts: Sequence[str], device: str) -> Tensor:
        """One float32 vector [n, d] of length 1 for each text; cached, so a judge's labels are computed once."""
        return _text_vectors(self._source(device), tuple(texts)).clone()

    def _model(self, device: str) -> tuple[Any, tuple[int, int]]:
        return _loaded(*self._source(device))

    def _source(self, device: str) -> _Source:
        path = self.weights.verified()
        return _Source(self.architecture, str(path), path.stat().st_mtime_ns, device)


def digest_of_parts(*parts: object) -> str:
    """sha256 of values as canonical JSON."""
    return hashlib.sha256(canonical_json(list(parts)).encode("ascii")).hexdigest()


def unit(vectors: Tensor, *, what: str) -> Tensor:
    """Vectors [n, d] scaled to length 1; JudgeError for one that is not finite, or zero."""
    lengths = vectors.norm(dim=-1, keepdim=True)
    if not (vectors.isfinite().all() and (lengths > 0).all()):
        raise JudgeError(
            sentence(
                f"An embedding {what} is NaN, infinite or zero.",
                do="Check the weights and the image.",
            )
        )
    scaled: Tensor = vectors / lengths
    return scaled


def _fitted(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures [n, 3, h, w] in 0 … 255, the shorter side scaled to the model's size, then centre-cropped."""
    from torch.nn.functional import interpolate

    high, wide = size
    tall, long = pixels.shape[2:]
    if (tall, long) != size:
        if high * long >= wide * tall:  # the height limits; the other side is truncated to an integer, not rounded
            shape = high, max(wide, high * long // tall)
        else:
            shape = max(high, wide * tall // long), wide
        for step in ((tall, shape[1]), shape):  # the width first, back to 8 bits in between: Pillow's two passes
            pixels = interpolate(pixels, size=step, mode="bicubic", antialias=True).round().clamp(0, 255)
    top, left = round((pixels.shape[2] - high) / 2), round((pixels.shape[3] - wide) / 2)
    return pixels[:, :, top : top + high, left : left + wide]


class _Source(NamedTuple):
    """A model on a device: its architecture, its weights file and that file's modification time."""

    architecture: str
    path: str
    changed: int
    device: str


@lru_cache(maxsize=8)
def _text_vectors(source: _Source, texts: tuple[str, ...]) -> Tensor:
    """`Clip.text_features`; callers must not modify the cached tensor."""
    import open_clip
    import torch

    model, _ = _loaded(*source)
    tokens = open_clip.get_tokenizer(source.architecture)(list(texts)).to(source.device)
    with torch.inference_mode():
        found: Tensor = model.encode_text(tokens).float()
    return unit(found, what="of a text")


@lru_cache(maxsize=4)
def _loaded(architecture: str, path: str, changed: int, device: str) -> tuple[Any, tuple[int, int]]:
    """The model with its weights, in float32, and its input size (height, width)."""
    from pathlib import Path

    import open_clip
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    settings = open_clip.get_model_config(architecture) if architecture in open_clip.list_models() else None
    if settings is None:
        raise UserError(
            sentence(
                f'open_clip has no architecture "{architecture}".',
                examples="ViT-B-32-quickgelu, ViT-L-14-quickgelu (OpenAI), ViT-B-32, ViT-L-14 (LAION)",
                do="Choose a name from open_clip.list_models().",
            )
        )
    text = settings["text_cfg"]
    if {"hf_model_name", "hf_tokenizer_name"} & text.keys() or "siglip" in architecture.lower():
        raise UserError(
            sentence(
                f"{architecture} needs a text model or a tokenizer that open_clip would download.",
                do="Choose an architecture with CLIP's own vocabulary, for example ViT-B-32-quickgelu.",
            )
        )
    # Not create_model: it logs missing weights through the root logger, and would resize weights of another picture
    # size to fit.
    settings["vision_cfg"]["timm_model_pretrained"] = False
    custom = settings.pop("custom_text", False)
    kind = open_clip.CoCa if "multimodal_cfg" in settings else open_clip.CustomTextCLIP if custom else open_clip.CLIP
    model = kind(**settings)
    tensors = convert_state_dict(model, read_tensors(Path(path)))
    if "positional_embedding" in tensors and not hasattr(model, "positional_embedding"):
        tensors = convert_to_custom_text_state_dict(tensors)
    expected = model.state_dict()
    for name, value in tensors.items():
        if name in expected and value.numel() == expected[name].numel() == 1:
            tensors[name] = value.reshape(expected[name].shape)  # logit_scale has shape () or (1,)
    missing = sorted(expected.keys() - tensors.keys())
    strange = sorted(tensors.keys() - expected.keys())
    shapes = [name for name in expected.keys() & tensors.keys() if expected[name].shape != tensors[name].shape]
    if missing or strange or shapes:
        raise UserError(
            sentence(
                f"The weights {path} do not fit {architecture}.",
                missing=f"{len(missing)}: {', '.join(missing[:3])}" if missing else "none",
                unexpected=f"{len(strange)}: {', '.join(strange[:3])}" if strange else "none",
                of_another_shape=f"{len(shapes)}: {', '.join(sorted(shapes)[:3])}" if shapes else "none",
                do="Name the architecture that these weights were published for.",
            )
        )
    model.load_state_dict(tensors)
    size = model.visual.image_size
    pair = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    return model.float().to(device).eval(), pair
