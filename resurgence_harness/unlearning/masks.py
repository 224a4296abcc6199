"""Masks of the concept in forget images: the region in which MACE suppresses the attention to the concept's name.

Forget images are drawn by the base, so true masks are unknown; there are four sources.

    AttentionMasks    the base's own attention to the name: no other model is needed. The default.
    SegmentedMasks    Grounding DINO and SAM, prompted with the name, as MACE's authors do
    GivenMasks        provided by the caller, one for each row of the probe
    WholeImage        the whole image: the authors' fallback if nothing is detected, and their choice for styles

A mask is resized to a boolean on the latent grid (nearest neighbour) and cached in the store. It is never empty: an
empty one would unlearn nothing and report success.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, final

from resurgence_harness.diffusion import moves, segmenting
from resurgence_harness.diffusion.attention import grid, watched
from resurgence_harness.diffusion.conditions import Conditions
from resurgence_harness.diffusion.examples import drawn_examples
from resurgence_harness.diffusion.precision import predictions_in_float32
from resurgence_harness.diffusion.ranges import positive, whole
from resurgence_harness.errors import BuildError, SpecError, UserError, sentence
from resurgence_harness.specs import Probe, not_in_key

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run


class MaskSource(ABC):
    """A source of masks. Subclasses are final frozen dataclasses: everything that affects a mask is a field."""

    name: ClassVar[str]
    version: ClassVar[int] = 1

    @abstractmethod
    def find(self, run: Run, probe: Probe) -> Tensor:
        """bool [n, H, W] at any resolution, one per row of the probe: True where the row's `prompt.concept` is."""


@final
@dataclass(frozen=True, kw_only=True)
class MaskSet:
    """Masks of a probe drawn by a base. Only a cache key."""

    name: ClassVar[str] = "masks"
    version: ClassVar[int] = 1

    base: str
    """Digest of the base, which drew the images."""
    probe: Probe
    """Prompts and seeds of the images."""
    source: MaskSource
    """The source of the masks."""


def concept_masks(run: Run, probe: Probe, source: MaskSource) -> Tensor:
    """bool [n, h, w] on the latent grid, one per row of the probe; BuildError for an empty or missing one."""
    import torch

    factor = run.base.latent_factor
    size = (probe.sampler.height // factor, probe.sampler.width // factor)

    def find() -> dict[str, Tensor]:
        with predictions_in_float32():  # the masks' key does not hold the training's arithmetic
            found = source.find(run, probe).cpu()
        if len(found) != len(probe) or found.dtype != torch.bool:
            raise BuildError(sentence("The masks do not match the probe.", masks=tuple(found.shape), rows=len(probe)))
        masks = resized(found, *size)
        for mask, (prompt, seed) in zip(masks, probe.rows(), strict=True):
            if not mask.any():
                raise BuildError(
                    sentence(
                        f'The mask of "{prompt.concept}" in a forget image is empty.',
                        image=f'"{prompt.text}", seed {seed}',
                        masks=source.name,
                        do="Choose another source of masks, such as WholeImage(), or leave this image out.",
                    )
                )
        return {"masks": masks}

    return run.cached("masks", MaskSet(base=run.base_digest, probe=probe, source=source), find)["masks"]


def resized(masks: Tensor, height: int, width: int) -> Tensor:
    """bool [n, H, W] → [n, height, width], by nearest neighbour."""
    from torch.nn.functional import interpolate

    return interpolate(masks[:, None].float(), (height, width), mode="nearest-exact")[:, 0] > 0.5


@final
@dataclass(frozen=True)
class WholeImage(MaskSource):
    """The whole image."""

    name: ClassVar[str] = "whole-image"

    def find(self, run: Run, probe: Probe) -> Tensor:
        """All True."""
        import torch

        return torch.ones(len(probe), 1, 1, dtype=torch.bool)


@final
@dataclass(frozen=True)
class Refused:
    """An image without a detection is an error."""

    name: ClassVar[str] = "refused"


@final
@dataclass(frozen=True, kw_only=True)
class AttentionMasks(MaskSource):
    """Where the base attends to S (the name's tokens, the end token and all padding) while denoising its own image.

    S is also the set of tokens whose attention MACE suppresses. The padding matters: on the microworld's rendered
    faces, whose true masks are known, S has an overlap (IoU) of .60 with the face, the name's tokens .36, the whole
    image .40.
    """

    name: ClassVar[str] = "attention"

    timesteps: tuple[int, ...] = (100, 300)
    """Noise levels, 0 … 999, whose attention maps are averaged. Each costs one forward pass per image."""
    threshold: float = 0.5
    """The mask is where attention is above this fraction of the image's range, in 0 … 1."""
    seed: int = 0
    """Seed of the noise."""

    def __post_init__(self) -> None:
        """SpecError for values out of range."""
        whole("AttentionMasks", 0, seed=self.seed)
        positive("AttentionMasks", threshold=self.threshold)
        if self.threshold >= 1 or not self.timesteps or any(not 0 <= t <= 999 for t in self.timesteps):
            raise SpecError(
                sentence(
                    "AttentionMasks has values out of range.",
                    threshold=f"{self.threshold} (below 1)",
                    timesteps=f"{self.timesteps} (one or more of 0 … 999)",
                )
            )

    def find(self, run: Run, probe: Probe) -> Tensor:
        """At the latents' resolution."""
        import torch

        with torch.no_grad():
            images = drawn_examples(run.base, run, probe)
            subjects = [(prompt.text, prompt.concept) for prompt, _ in probe.rows()]
            tokens = name_tokens(run.base, subjects, closing=True)
            maps = attention_to(
                run.base, images.mean, images.states[images.text], tokens, timesteps=self.timesteps, seed=self.seed
            )
        return above(maps, self.threshold)


@final
@dataclass(frozen=True, kw_only=True)
class SegmentedMasks(MaskSource):
    """Grounding DINO finds boxes for a phrase, SAM segments them; the mask is their union."""

    name: ClassVar[str] = "segmented"

    detector: str
    """Digest of the Grounding DINO."""
    segmenter: str
    """Digest of the SAM."""
    phrase: str = ""
    """The phrase to detect; "" means the concept's name. Detectors find "a person" better than a person's name."""
    threshold: float = 0.3
    """Minimum score of a box, 0 … 1; the authors' value."""
    undetected: Refused | WholeImage = Refused()
    """What to do with an image without a detection; the authors use the whole image."""
    detector_location: str = not_in_key("")
    """Path of the Grounding DINO on this machine."""
    segmenter_location: str = not_in_key("")
    """Path of the SAM on this machine."""

    @classmethod
    def of(
        cls,
        detector: str | Path,
        segmenter: str | Path,
        *,
        phrase: str = "",
        threshold: float = 0.3,
        undetected: Refused | WholeImage = Refused(),
    ) -> SegmentedMasks:
        """The models in two directories, with their current content."""
        return cls(
            detector=segmenting.digest_of(detector),
            segmenter=segmenting.digest_of(segmenter),
            phrase=phrase,
            threshold=threshold,
            undetected=undetected,
            detector_location=str(Path(detector).absolute()),
            segmenter_location=str(Path(segmenter).absolute()),
        )

    def __post_init__(self) -> None:
        """SpecError for values out of range."""
        positive("SegmentedMasks", threshold=self.threshold)

    def find(self, run: Run, probe: Probe) -> Tensor:
        """Masks at the images' resolution; UserError if a model has changed."""
        for location, digest in ((self.detector_location, self.detector), (self.segmenter_location, self.segmenter)):
            if segmenting.digest_of(location) != digest:
                raise UserError(
                    sentence(
                        f"The segmenting model at {location} has changed.",
                        do="Create the masks' source again: SegmentedMasks.of(detector, segmenter).",
                    )
                )
        images, _ = run.images(probe)
        models = segmenting.Segmenter(self.detector_location, self.segmenter_location, device=str(run.base.device))
        phrases = [self.phrase or prompt.concept for prompt, _ in probe.rows()]
        masks: Tensor = segmenting.segment(images, phrases, models, threshold=self.threshold)
        if isinstance(self.undetected, WholeImage):
            masks[~masks.flatten(1).any(1)] = True
        return masks


@final
@dataclass(frozen=True, kw_only=True)
class GivenMasks(MaskSource):
    """Masks in a file of the caller: a .npy of bool [n, H, W], one for each row of the forget probe, in its order.

    The probe and the base determine the images, so rows identify them. The file's sha256 is in the key, its path is
    not.
    """

    name: ClassVar[str] = "given"

    digest: str
    """sha256 of the file."""
    location: str = not_in_key("")
    """Its path on this machine."""

    @classmethod
    def of(cls, path: str | Path) -> GivenMasks:
        """The file at a path, with its current content."""
        return cls(digest=hashlib.sha256(_bytes(path)).hexdigest(), location=str(Path(path).absolute()))

    @classmethod
    def written(cls, path: str | Path, masks: np.ndarray) -> GivenMasks:
        """Write masks [n, H, W], True where the concept is, to a file, and return its `GivenMasks`."""
        import numpy as np

        with Path(path).open("wb") as stream:
            np.save(stream, np.asarray(masks, dtype=bool), allow_pickle=False)
        return cls.of(path)

    def find(self, run: Run, probe: Probe) -> Tensor:
        """Masks at the file's resolution; UserError if the file has changed or does not match the probe."""
        import io

        import numpy as np
        import torch

        content = _bytes(self.location)
        if hashlib.sha256(content).hexdigest() != self.digest:
            raise UserError(
                sentence(f"The masks at {self.location} have changed.", do="Create them again: GivenMasks.of(path).")
            )
        try:
            masks = np.load(io.BytesIO(content), allow_pickle=False)
        except ValueError as problem:
            raise UserError(sentence(f"{self.location} holds no masks.", problem=problem)) from None
        if masks.dtype != bool or masks.ndim != 3 or len(masks) != len(probe):
            raise UserError(
                sentence(
                    f"The masks at {self.location} do not match the forget images.",
                    masks=f"{masks.dtype} {masks.shape}",
                    expected=f"bool ({len(probe)}, height, width)",
                    do="Give one mask for each row of the forget probe, prompts outermost, then seeds.",
                )
            )
        return torch.from_numpy(masks)


def name_tokens(model: StableDiffusion, subjects: Sequence[tuple[str, str]], *, closing: bool = False) -> Tensor:
    """bool [n, L]: the tokens of each (text, name)'s name and, if `closing`, the end token and all padding."""
    import torch

    tokens = torch.zeros(len(subjects), model.tokenizer.model_max_length, dtype=torch.bool)
    for row, (text, name) in zip(tokens, subjects, strict=True):
        own = moves.subject_tokens(model.tokenizer, text, name)
        row[own.start : own.stop] = True
        if closing:
            row[moves.end_token(model.tokenizer, text) :] = True
    return tokens.to(model.device)


def attention_to(
    model: StableDiffusion,
    latents: Tensor,
    states: Conditions,
    tokens: Tensor,
    *,
    timesteps: Sequence[int],
    seed: int,
    batch: int = 8,
) -> Tensor:
    """Attention of each latent position to some tokens: [n, h, w], averaged over tokens, heads, layers and timesteps.

    latents x_0 [n, 4, h, w], states c, tokens bool [n, L]. Layers on grids under a quarter of the latents'
    side are left out, since they do not localise the concept. Row k's noise is from `seed` + k.
    """
    import torch
    from torch.nn.functional import interpolate

    height, width = latents.shape[-2:]
    total = torch.zeros(len(latents), height, width, device=latents.device)
    for low in range(0, len(latents), batch):
        part = slice(low, low + batch)
        x_0, chosen = latents[part], tokens[part].float()
        chosen = chosen / chosen.sum(1, keepdim=True)
        seen: list[Tensor] = []

        def watch(maps: Tensor, chosen: Tensor = chosen, seen: list[Tensor] = seen) -> None:
            h, w = grid(maps.shape[2], height, width)
            if 4 * h >= height:
                flat = torch.einsum("nhpl,nl->np", maps, chosen) / maps.shape[1]
                seen.append(interpolate(flat.view(-1, 1, h, w), (height, width), mode="bilinear")[:, 0])

        generators = [torch.Generator("cpu").manual_seed(seed + low + row) for row in range(len(x_0))]
        for t in timesteps:
            noise = torch.stack([torch.randn(x_0.shape[1:], generator=one) for one in generators]).to(x_0.device)
            times = torch.full((len(x_0),), t, device=x_0.device)
            with watched(model.unet, watch):
                moves.predict(model, moves.add_noise(model, x_0, noise, times), times, states[part])
        total[part] = torch.stack(seen).mean(0)
    return total


def above(maps: Tensor, threshold: float) -> Tensor:
    """bool [n, h, w]: where a map exceeds its minimum + `threshold` × its range."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return maps > low + threshold * (high - low)


def _bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as problem:
        raise UserError(sentence(f"{path} cannot be read.", problem=problem, do="Give a .npy of bool masks.")) from None
