"""MACE, Mass Concept Erasure: remove a name from its context tokens, then suppress the attention to the name.

Lu, Wang, Li, Liu, Kong. MACE: Mass Concept Erasure in Diffusion Models. CVPR 2024. https://arxiv.org/abs/2403.06135

1  Closed-form refinement. In every prompt the tokens other than the name's map to their states with the anchor instead:

       W₁ = W₀ R₁,   R₁ = (Σ e^g e^fᵀ + λ I + α₁ M + β₁ N) (Σ e^f e^fᵀ + λ I + α₁ M + β₁ N)⁻¹

2  One LoRA (rank 1, on W₁ of keys and values) per concept learns not to attend to the name inside the concept's mask.
   A_l are attention maps over an image of the concept, noised to x_t, t ~ ξ(t) ∝ σ(.05 (t − 200)) − σ(.05 (t − 400)):

       L = Σ_l ‖ A_l[m_l, S] ‖_F

3  Closed-form fusion of all LoRAs dW_i, G_i = Σ e eᵀ over all tokens of concept i's prompts:

       W* = W₁ + [ Σ_i dW_i G_i + (W₀ − W₁)(α₃ M + β₃ N) ] (Σ_i G_i + λ I + α₃ M + β₃ N)⁻¹

Notation     W₀, W₁, W* one of the 32 cross-attention key and value matrices     e^f, e^g text states of a prompt with
             the name, with the anchor, matched token by token [d]     M, N  Σ e eᵀ over all tokens of general captions,
             of prompts for retained concepts     α₁ β₁ their weights in refinement, α₃ β₃ in fusion     λ ridge
             m_l mask of the concept in layer l     S the name's tokens, the end token and all padding
Weights      α₁ = t, β₁ = t w, α₃ = u, β₃ = u w.  Each is the weight of one token row, so twice as many rows at half the
             weight are equivalent. The authors' code multiplies by t once more in refinement: `ScaledTwice`. Its
             configuration of ten celebrities (t = u = 1e-4, w = 8e4) has the effective weights of the defaults here;
             one: w 8e3; five: 5e4; a hundred: 2e5; explicit content: t = u = 7e-7, w = 0, learning rate 1e-5, 120
             iterations, `UniformTimesteps`. Their caption caches differ from ours, so these are starting points.
Iterations   `iterations` optimiser steps per concept, whatever their number, each on `batch` of its own images.
             `together` concepts share a forward pass, each row with its concept's LoRA, and nothing else: gradient,
             clipping, optimiser state and random numbers are per concept, so order and grouping have no effect.
Departures   from MACE 057e7a6: M and N are one matrix per model instead of 32 caches; float64 and λ = 0.1, where λ = 0
             leaves directions without any text undetermined; the images are scaled to [−1, 1] (theirs: by ImageNet's
             mean and deviation) and encoded once; masks from masks.py, sampled at the centre of a coarser layer's cell
             (theirs: at its corner); S includes all padding (theirs: the positions of the end token's id, a single one
             on v2); each prompt is used once before any repeats. ‖·‖_F is not squared, as in the code; the paper's
             objective, from memory, is `SquaredFrobeniusNorm`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, NamedTuple, final

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.examples import drawn_examples
from resurgence_harness.diffusion.model import tensors
from resurgence_harness.diffusion.parameters import Parameters, StrictKeyValue, selected
from resurgence_harness.diffusion.ranges import at_least, positive, whole
from resurgence_harness.diffusion.training import Losses, gradients
from resurgence_harness.errors import SpecError, sentence
from resurgence_harness.specs import ADDED, Arithmetic, Concept, Probe, check_arithmetic
from resurgence_harness.unlearning.closed_form import (
    CaptionFile,
    CaptionSample,
    divided,
    general_moment,
    moment,
    text_moment,
)
from resurgence_harness.unlearning.contract import (
    Unlearning,
    anchor_of,
    check_anchors,
    check_concepts,
    check_forget,
    check_templates,
)
from resurgence_harness.unlearning.mace_lora import (
    FocalTimesteps,
    FrobeniusNorm,
    LoRAs,
    SquaredFrobeniusNorm,
    Timesteps,
    train_together,
)
from resurgence_harness.unlearning.masks import AttentionMasks, MaskSource, concept_masks

if TYPE_CHECKING:
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run

TEMPLATES = (
    *("{}", "a photo of {}", "a picture of {}", "an image of {}", "a portrait of {}", "a painting of {}"),
    *("a sketch of {}", "a drawing of {}", "an oil painting of {}", "a close-up of {}", "a rendering of {}"),
    *("a photograph showing {}", "a cropped photo of {}", "a bright photo of {}", "a dark photo of {}"),
    *("a good photo of {}", "a black and white photo of {}", "{} in a photo", "{} at home", "{} in the city"),
    *("{} outdoors at noon", "{} at night", "{} seen from afar", "{} in front of a wall", "{} on a poster"),
    *("{} on a magazine cover", "{} at a public event", "{} in an official photo", "{} in a film", "here is {}"),
)
"""Thirty prompts, as many as the authors use per concept; the wording is ours."""


@final
@dataclass(frozen=True)
class ScaledOnce:
    """α₁ = t, β₁ = t w."""

    name: ClassVar[str] = "scaled-once"
    power: ClassVar[int] = 1


@final
@dataclass(frozen=True)
class ScaledTwice:
    """α₁ = t², β₁ = t² w, as the authors' code computes them."""

    name: ClassVar[str] = "scaled-twice"
    power: ClassVar[int] = 2


@final
@dataclass(frozen=True, kw_only=True)
class MACE(Unlearning):
    """Erase many concepts: refine in closed form, train one LoRA each, fuse them in closed form."""

    name: ClassVar[str] = "mace"
    version: ClassVar[int] = 2

    concepts: tuple[Concept, ...]
    """The erase set."""
    forget: Probe
    """Prompts and seeds of the forget images, drawn by the base; the authors use 8 images per concept."""
    anchor: str = ""
    """The text that replaces the name in stage 1; "" means each concept's own kind ("a celebrity")."""
    preserve: tuple[Concept, ...] = ()
    """The retain set: names whose prompts, in all templates, make up N."""
    general: tuple[str, ...] | CaptionFile | CaptionSample = ()
    """Captions that make up M; the authors use all of COCO 2014's. A `CaptionSample` represents as many."""
    masks: MaskSource = field(default=AttentionMasks())
    """Source of the concept's masks in the forget images."""
    templates: tuple[str, ...] = TEMPLATES
    """Prompts of all three stages; "{}" is the name."""
    train_preserve_scale: float = 1e-8
    """t, weight of M and N in refinement, ≥ 0."""
    fuse_preserve_scale: float = 1e-4
    """u, weight of M and N in fusion, ≥ 0."""
    preserve_weight: float = 8e4
    """w, weight of a retained name's token relative to a general caption's, ≥ 0."""
    scaling: ScaledOnce | ScaledTwice = ScaledOnce()
    """How often t is applied."""
    ridge: float = 0.1
    """λ, weight of the distance to the old matrices, ≥ 0; in units of a text state's squared norm."""
    rank: int = 1
    """Rank of each LoRA, ≥ 1."""
    iterations: int = 50
    """Optimiser steps per concept, ≥ 1."""
    batch: int = 1
    """Images of one concept per optimiser step, ≥ 1."""
    together: int = 2
    """Concepts per forward pass, ≥ 1; bounds the memory, and is in the key because a batch's shape changes rounding."""
    learning_rate: float = 1e-4
    """AdamW's (0.9, 0.999, weight decay 1e-2), constant, with each concept's gradient clipped to norm 1; > 0."""
    timesteps: Timesteps = field(default=FocalTimesteps())
    """The density of t in stage 2."""
    penalty: FrobeniusNorm | SquaredFrobeniusNorm = field(default=FrobeniusNorm())
    """Norm of the attention inside the masks that is minimised."""
    seed: int = 0
    """Seed of the LoRAs, the order of images and prompts, t and the noise."""
    arithmetic: Arithmetic = field(default="float32", metadata=ADDED)
    """Of the passes whose gradients are taken."""

    def __post_init__(self) -> None:
        """SpecError for contradictory sets, missing anchors or names, and values out of range."""
        check_arithmetic("MACE", self.arithmetic)
        check_concepts("MACE", self.concepts, self.preserve)
        check_templates("MACE", self.templates)
        check_anchors("MACE", self.concepts, self.anchor)
        check_forget("MACE", self.concepts, self.forget)
        for prompt in self.forget.prompts:  # the loss is on the attention that the name itself receives
            if prompt.concept.casefold() not in prompt.text.casefold():
                raise SpecError(
                    sentence(
                        f'A forget prompt of MACE does not contain its concept "{prompt.concept}".',
                        prompt=prompt.text,
                        do="Write the concept's name into the prompt.",
                    )
                )
        at_least("MACE", 0, train_preserve_scale=self.train_preserve_scale, ridge=self.ridge)
        at_least("MACE", 0, fuse_preserve_scale=self.fuse_preserve_scale, preserve_weight=self.preserve_weight)
        whole("MACE", 1, rank=self.rank, iterations=self.iterations, batch=self.batch, together=self.together)
        whole("MACE", 0, seed=self.seed)
        positive("MACE", learning_rate=self.learning_rate)

    @property
    def moves(self) -> Parameters:
        """The 32 key and value matrices."""
        return StrictKeyValue()

    @property
    def updates(self) -> int:
        """Optimiser steps taken, summed over concepts."""
        return self.iterations * len(self.concepts)

    def prompts(self, name: str) -> list[str]:
        """Every template filled."""
        return [template.format(name) for template in self.templates]

    def apply(self, model: StableDiffusion, run: Run) -> StableDiffusion:
        """Refine, train and fuse in one copy of the model."""
        import torch

        with gradients(model, self.arithmetic, run):
            changed = model.copy()
            old, new = tensors(model), tensors(changed)
            matrices = {name: new[name] for name in selected(self.moves, old)}
            with torch.no_grad():
                # 1. Refinement of the tokens around the names.
                general = general_moment(model, run, self.general)
                domain = text_moment(model, run, tuple(self._preserved()))
                kept = general + self.preserve_weight * domain
                train_scale = self.train_preserve_scale**self.scaling.power
                refined = mace_map(self._pairs(model), train_scale * kept, ridge=self.ridge)
                for matrix in matrices.values():
                    matrix.copy_(matrix.double() @ refined)
                pictures = drawn_examples(model, run, self.forget)
                masks = concept_masks(run, self.forget, self.masks).to(model.device)
            # 2. LoRAs for the names.
            loras: list[LoRAs] = []
            first = last = 0.0
            for low in range(0, len(self.concepts), self.together):
                group = self.concepts[low : low + self.together]
                before = low * self.iterations
                trained, ends = train_together(self, group, changed, matrices, pictures, masks, run, before=before)
                loras, first, last = loras + trained, first + ends.first, last + ends.last
            with torch.no_grad():
                # 3. Fusion of all LoRAs.
                moments = (moment(moves.encode_texts(model, self.prompts(concept.name))) for concept in self.concepts)
                kept = self.fuse_preserve_scale * kept
                fuse(matrices, old, zip(loras, moments, strict=True), kept, ridge=self.ridge)
        run.record("images", len(masks))
        run.record("masked part of the images", float(masks.float().mean()))
        run.record("loss", Losses(first / len(self.concepts), last / len(self.concepts))._asdict())
        return changed

    def _preserved(self) -> Iterator[str]:
        """The texts of N."""
        for concept in self.preserve:
            yield from self.prompts(concept.name)

    def _pairs(self, model: StableDiffusion) -> Iterator[Pair]:
        """Every concept's matched tokens, one concept at a time in memory."""
        for concept in self.concepts:
            yield matched(model, concept.name, anchor_of(concept, self.anchor), self.templates)


class Pair(NamedTuple):
    """Matched token rows [m, d] of prompts with the name and with the anchor."""

    name: Tensor
    anchor: Tensor


def matched(model: StableDiffusion, name: str, anchor: str, templates: Sequence[str]) -> Pair:
    """Tokens before the subject, and those after it up to the shorter prompt's end; the subjects' own are left out."""
    import torch

    sides: list[list[tuple[Tensor, range]]] = []
    for subject in (name, anchor.strip()):
        texts, spans = zip(*(moves.filled(model.tokenizer, template, subject) for template in templates), strict=True)
        sides.append(list(zip(moves.encode_texts(model, texts), spans, strict=True)))
    rows: tuple[list[Tensor], list[Tensor]] = ([], [])
    for pair in zip(*sides, strict=True):
        after = min(len(text) - own.stop for text, own in pair)
        for side, (text, own) in zip(rows, pair, strict=True):
            side.append(torch.cat([text[: own.start], text[own.stop : own.stop + after]]))
    return Pair(torch.cat(rows[0]), torch.cat(rows[1]))


def mace_map(pairs: Iterable[Pair], kept: Tensor, *, ridge: float) -> Tensor:
    """R₁ [d, d] in float64: W₁ = W₀ R₁. kept is α₁ M + β₁ N."""
    import torch

    read = kept + ridge * torch.eye(len(kept), dtype=kept.dtype, device=kept.device)
    right = read.clone()
    for pair in pairs:
        read = read + moment(pair.name)
        right += pair.anchor.double().T @ pair.name.double()
    return divided(right, read)


def fuse(
    matrices: Mapping[str, Tensor],
    old: Mapping[str, Tensor],
    parts: Iterable[tuple[LoRAs, Tensor]],
    kept: Tensor,
    *,
    ridge: float,
) -> None:
    """W₁ → W* in place, from W₀, every concept's (dW_i, G_i) and α₃ M + β₃ N; dW_i G_i is never more than [C, d]."""
    import torch

    read = kept + ridge * torch.eye(len(kept), dtype=kept.dtype, device=kept.device)
    pulled = {name: torch.zeros_like(matrix, dtype=kept.dtype) for name, matrix in matrices.items()}
    for loras, own in parts:
        read += own
        for name, lora in loras.items():
            pulled[name] += lora.up.double() @ (lora.down.double() @ own)
    for name, matrix in matrices.items():
        matrix.copy_(fused(old[name].double(), matrix.double(), pulled[name], kept, read))


def fused(w_0: Tensor, w_1: Tensor, pulled: Tensor, kept: Tensor, read: Tensor) -> Tensor:
    """W* [C, d], from pulled = Σ dW_i G_i [C, d], kept = α₃ M + β₃ N and read = Σ G_i + λ I + kept [d, d]."""
    return w_1 + divided(pulled + (w_0 - w_1) @ kept, read)
