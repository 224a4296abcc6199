"""What the closed-form methods share: they replace text states e by R e in front of every key and value, W' = W R.

    R = right · H⁻¹,     H = λ I + Σ e eᵀ over what is edited and what is kept       [d, d], float64

H is the same for all 32 matrices, so there is one Cholesky factor. What is kept enters through its second moment
M = Σ e eᵀ alone (W M stands for every W e eᵀ), so that a hundred names or a file of captions cost one [d, d] matrix.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, final

from resurgence_harness.diffusion import moves
from resurgence_harness.errors import BuildError, SpecError, UserError, sentence
from resurgence_harness.specs import not_in_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run


@final
@dataclass(frozen=True, kw_only=True)
class CaptionFile:
    """General captions, one a line (MACE's authors: those of COCO 2014). The file's bytes are in the key."""

    name: ClassVar[str] = "caption-file"
    version: ClassVar[int] = 1

    digest: str
    """sha256 of the file."""
    location: str = not_in_key("")
    """Where this machine has it."""

    @classmethod
    def of(cls, path: str | Path) -> CaptionFile:
        """The file at a path, as it is now."""
        return cls(digest=_sha256(path), location=str(Path(path).absolute()))

    def texts(self) -> list[str]:
        """The captions, at least one; a UserError where the file is gone, has changed, is empty or is no text."""
        if _sha256(self.location) != self.digest:
            raise UserError(sentence(f"The captions at {self.location} have changed.", do="Name the file again."))
        try:
            lines = Path(self.location).read_text("utf-8-sig").splitlines()
        except UnicodeDecodeError as problem:
            raise UserError(
                sentence(f"The captions at {self.location} are not UTF-8.", problem=problem, do="Save them as UTF-8.")
            ) from None
        found = [line.strip() for line in lines if line.strip()]
        if not found:
            raise UserError(
                sentence(f"There is no caption in {self.location}.", do="Give at least one caption, one a line.")
            )
        return found


COCO_CAPTIONS = 616_767
"""Captions of COCO 2014's training and validation sets, over which MACE's authors sum."""


@final
@dataclass(frozen=True, kw_only=True)
class CaptionSample:
    """General captions in place of more: M is the mean moment of a caption here, as often as `stand_for` says.

    So the weights that were published for COCO's captions keep their meaning with a list or a file of any length, and
    COCO's own captions in a file give the authors' sum.
    """

    name: ClassVar[str] = "caption-sample"
    version: ClassVar[int] = 1

    captions: tuple[str, ...] | CaptionFile
    """The captions, or where they are; at least one."""
    stand_for: int = COCO_CAPTIONS
    """How many captions they stand for, ≥ 1."""

    def __post_init__(self) -> None:
        """Refuse an empty list: it would stand for nothing."""
        if self.captions == () or self.stand_for < 1:
            raise SpecError(
                sentence(
                    "A sample of captions is empty, or stands for none.",
                    captions=len(self.captions) if isinstance(self.captions, tuple) else self.captions.location,
                    stand_for=self.stand_for,
                    do="Give at least one caption, and stand_for of 1 or more.",
                )
            )


@final
@dataclass(frozen=True, kw_only=True)
class TextMoment:
    """Σ e eᵀ over all tokens of some texts. A cache key, no more."""

    name: ClassVar[str] = "text-moment"
    version: ClassVar[int] = 1

    model: str
    """Digest of the model whose text encoder reads them."""
    texts: tuple[str, ...] | CaptionFile
    """What is read."""


def text_moment(model: StableDiffusion, run: Run, texts: tuple[str, ...] | CaptionFile) -> Tensor:
    """M [d, d] over all L token rows of every text, computed once and kept; zero for no texts."""
    import torch

    def read() -> dict[str, Tensor]:
        wanted: Sequence[str] = texts if isinstance(texts, tuple) else texts.texts()
        width = int(model.unet.config.cross_attention_dim)
        total = torch.zeros(width, width, dtype=torch.float64, device=model.device)
        for low in range(0, len(wanted), moves.BATCH):
            part = wanted[low : low + moves.BATCH]
            # Of a file's captions the end may be cut, as the authors cut it; what is written in a spec must fit.
            total += moment(moves.encode_texts(model, part, may_be_cut=() if isinstance(texts, tuple) else part))
        return {"moment": total}

    spec = TextMoment(model=run.parent_digest, texts=texts)
    with torch.no_grad():
        made = run.cached("text-moments", spec, read) if texts else read()
    return made["moment"].to(model.device)


def general_moment(model: StableDiffusion, run: Run, captions: tuple[str, ...] | CaptionFile | CaptionSample) -> Tensor:
    """M [d, d] of general captions: their sum, or what a sample stands for."""
    if not isinstance(captions, CaptionSample):
        return text_moment(model, run, captions)
    texts = captions.captions
    count = len(texts) if isinstance(texts, tuple) else len(texts.texts())
    return text_moment(model, run, texts) * (captions.stand_for / count)


def moment(states: Tensor) -> Tensor:
    """Σ e eᵀ [d, d] in float64 over text states [..., d]."""
    rows = states.double().flatten(0, -2)
    return rows.T @ rows


def divided(right: Tensor, h: Tensor) -> Tensor:
    """right · H⁻¹ for a symmetric positive definite H [d, d]; a BuildError if it is not definite."""
    import torch

    factor, failed = torch.linalg.cholesky_ex(h)
    if bool(failed):
        raise BuildError(
            sentence(
                "The closed form has no single solution: what is edited and kept does not fill the space of texts.",
                dimensions=len(h),
                do="Give a ridge above 0, or more texts to preserve.",
            )
        )
    solved: Any = torch.cholesky_solve(right.T, factor)
    return solved.T.contiguous()  # type: ignore[no-any-return]


def _sha256(path: str | Path) -> str:
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as problem:
        raise UserError(sentence(f"{path} cannot be read.", problem=problem, do="Give a text file.")) from None
