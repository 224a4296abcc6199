"""Every checkpoint format in: whatever a person has becomes a directory in diffusers' layout, or one sentence.

    candidate = materialise([Source(path=Path("style.safetensors"), weight=0.8)], base="sd14", out="made")
    Recipe(candidate.base)                       the bench loads it as any other base

A whole directory, a single file in the original layout, a U-Net, a text encoder, LoRAs and DoRAs of diffusers, peft and
kohya, textual-inversion embeddings. What it is, is told by the tensors, never by the name. Nothing here needs torch but
the original layout, whose names diffusers converts, and embeddings, whose words go through the tokenizer.
"""

from resurgence_harness.diffusion.formats.contract import Cover, Source
from resurgence_harness.diffusion.formats.materialising import Candidate, check_same_shape, materialise
from resurgence_harness.diffusion.formats.recognising import recognise

__all__ = ["Cover", "Source", "recognise", "materialise", "Candidate", "check_same_shape"]
