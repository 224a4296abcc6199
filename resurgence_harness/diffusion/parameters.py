"""Choices of parameters that a step may train: each is a type with a method `selects(name)`.

Names are those of `model.tensors`: "unet." and the diffusers name. In quotes: the names in ESD's legacy code.

    CrossAttention      "xattn"         attn2.*                                    80 of SD's 686 tensors,   5.1 %
    StrictKeyValue      "xattn-strict"  attn2.to_k, attn2.to_v                     32,                       2.2 %
    NonCrossAttention   "noxattn"       all but attn2, conv_out, conv_norm_out,    598,                     94.6 %
                                        time_embedding
    Projections         (LoRA)          to_q, to_k, to_v, to_out.0 of attn1, attn2, weights only   128,      10.9 %
    TwoSelfAttentions   (SHS's trim)    attn1 of up_blocks.1.attentions.1 and      10,                        1.0 %
                                        up_blocks.2.attentions.1
    Everything          "full"          the whole UNet                             686,                      100 %
    TextProjections     (LoRA)          q_proj, k_proj, v_proj, out_proj of the text encoders, weights only
    TextEncoder                         the whole text encoders

Sources: rohitgandikota/erasing a2189e9 (train-esd.py); JingWu321/Scissorhands 73ae065 (output_blocks.4, .7). The
name map LDM → diffusers is output_blocks.i → up_blocks.(i // 3), layer i % 3; out.* → conv_norm_out, conv_out;
time_embed → time_embedding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, final

from resurgence_harness.errors import SpecError, sentence

TEXT = ("text_encoder.", "text_encoder_2.")
"""Beginnings of the names of the text encoders' tensors."""


class Parameters(ABC):
    """A rule on names of the tensors of the UNet and the text encoder."""

    name: ClassVar[str]

    @abstractmethod
    def selects(self, name: str) -> bool:
        """Whether the tensor of this name ("unet.down_blocks.0…", "text_encoder.…") may be trained."""


@final
@dataclass(frozen=True)
class CrossAttention(Parameters):
    """Query, key, value and output of every cross-attention: where the text enters. ESD-x."""

    name: ClassVar[str] = "cross-attention"

    def selects(self, name: str) -> bool:
        """True inside attn2."""
        return name.startswith("unet.") and ".attn2." in name


@final
@dataclass(frozen=True)
class StrictKeyValue(Parameters):
    """Key and value of every cross-attention alone: the 32 matrices that read the text. ESD-x-strict, UCE, MACE."""

    name: ClassVar[str] = "key-value"

    def selects(self, name: str) -> bool:
        """True for attn2.to_k and attn2.to_v."""
        return name.startswith("unet.") and (".attn2.to_k." in name or ".attn2.to_v." in name)


@final
@dataclass(frozen=True)
class NonCrossAttention(Parameters):
    """Everything but cross-attention, the output layers and the time embedding. ESD-u."""

    name: ClassVar[str] = "non-cross-attention"

    def selects(self, name: str) -> bool:
        """True outside attn2, conv_out, conv_norm_out and time_embedding (time_emb_proj inside resnets is trained)."""
        kept = (".attn2.", ".conv_out.", ".conv_norm_out.", ".time_embedding.")
        return name.startswith("unet.") and not any(part in name for part in kept)


@final
@dataclass(frozen=True)
class Projections(Parameters):
    """The weights of q, k, v and the output projection of self- and cross-attention: what LoRA changes."""

    name: ClassVar[str] = "projections"

    def selects(self, name: str) -> bool:
        """True for the four projection weights of attn1 and attn2; to_out.0's bias stays."""
        projections = (".to_q.weight", ".to_k.weight", ".to_v.weight", ".to_out.0.weight")
        return name.startswith("unet.") and name.endswith(projections) and (".attn1." in name or ".attn2." in name)


@final
@dataclass(frozen=True)
class TwoSelfAttentions(Parameters):
    """Self-attention of the middle layer of the second and the third upsampling block: what Scissorhands trims."""

    name: ClassVar[str] = "two-self-attentions"

    def selects(self, name: str) -> bool:
        """True inside attn1 of up_blocks.1.attentions.1 and up_blocks.2.attentions.1."""
        blocks = ("unet.up_blocks.1.attentions.1.", "unet.up_blocks.2.attentions.1.")
        return name.startswith(blocks) and ".attn1." in name


@final
@dataclass(frozen=True)
class AnyOf(Parameters):
    """What at least one of several rules selects."""

    name: ClassVar[str] = "any-of"

    rules: tuple[Parameters, ...]
    """The rules, at least one."""

    def selects(self, name: str) -> bool:
        """True if at least one rule selects it."""
        return any(rule.selects(name) for rule in self.rules)


@final
@dataclass(frozen=True)
class Everything(Parameters):
    """The whole UNet."""

    name: ClassVar[str] = "everything"

    def selects(self, name: str) -> bool:
        """True for every tensor of the UNet."""
        return name.startswith("unet.")


@final
@dataclass(frozen=True)
class TextProjections(Parameters):
    """The weights of q, k, v and the output projection of the text encoders' attention: what LoRA changes there."""

    name: ClassVar[str] = "text-projections"

    def selects(self, name: str) -> bool:
        """True for the four projection weights of every layer; their biases stay."""
        projections = (".q_proj.weight", ".k_proj.weight", ".v_proj.weight", ".out_proj.weight")
        return name.startswith(TEXT) and ".self_attn." in name and name.endswith(projections)


@final
@dataclass(frozen=True)
class TextEncoder(Parameters):
    """The whole text encoders."""

    name: ClassVar[str] = "text-encoder"

    def selects(self, name: str) -> bool:
        """True for every tensor of the text encoders."""
        return name.startswith(TEXT)


def selected(rule: Parameters, names: Iterable[str]) -> list[str]:
    """The names that the rule selects, in their order; SpecError for none, since the step would do nothing."""
    names = list(names)
    chosen = [name for name in names if rule.selects(name)]
    if not chosen:
        raise SpecError(
            sentence(
                f'The parameters "{rule.name}" select none of this model\'s {len(names)} tensors.',
                first_tensor=names[0] if names else "(no tensors)",
                do="Choose another rule from diffusion.parameters, or check that the UNet has diffusers' layer names.",
            )
        )
    return chosen
