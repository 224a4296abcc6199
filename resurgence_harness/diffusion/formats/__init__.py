"""Reads every supported checkpoint format: a candidate becomes a directory in diffusers' layout, or a UserError.

    candidate = materialise([Source(path=Path("style.safetensors"), weight=0.8)], base="sd14", out="made")
    Recipe(candidate.base)                       the bench loads it as any other base

A whole directory, a single file in the original layout, a U-Net, a text encoder, LoRAs and DoRAs of diffusers, peft and
kohya, textual-inversion embeddings. The format is recognised from the tensors, never from the file's name. Only the
original layout (diffusers converts its names) and embeddings (the tokenizer gets their tokens) need torch.
"""

from resurgence_harness.diffusion.formats.contract import Cover, Source
from resurgence_harness.diffusion.formats.materialising import Candidate, check_same_shape, materialise
from resurgence_harness.diffusion.formats.recognising import recognise

__all__ = ["Cover", "Source", "recognise", "materialise", "Candidate", "check_same_shape"]
