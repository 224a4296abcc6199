"""Shared parts of the closed-form methods, which replace text states e by R e before every key and value: W' = W R.

    R = right · H⁻¹,     H = λ I + Σ e eᵀ over edited and preserved tokens           [d, d], float64

H is the same for all 32 matrices, so there is one Cholesky factor. Preserved tokens enter only through their second
moment M = Σ e eᵀ (W M is the sum of all W e eᵀ), so a hundred names or a file of captions cost one [d, d] matrix.
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
    """General captions, one per line (MACE's authors: those of COCO 2014). The file's bytes are in the key."""

    name: ClassVar[str] = "caption-file"
    version: ClassVar[int] = 1

    digest: str
    """sha256 of the file."""
    location: str = not_in_key("")
    """Its path on this machine."""

    @classmethod
    def of(cls, path: str | Path) -> CaptionFile:
        """The file at a path, with its current content."""
        return cls(digest=_sha256(path), location=str(Path(path).absolute()))

    def texts(self) -> list[str]:
        """The captions, at least one; UserError if the file is missing, has changed, is empty or is not UTF-8."""
        if _sha256(self.location) != self.digest:
            raise UserError(
                sentence(f"The captions at {self.location} have changed.", do="Create it again: CaptionFile.of(path).")
            )
        try:
            lines = Path(self.location).read_text("utf-8-sig").splitlines()
        except UnicodeDecodeError as problem:
            raise UserError(
                sentence(f"The captions at {self.location} are not UTF-8.", problem=problem, do="Save them as UTF-8.")
            ) from None
        found = [line.strip() for line in lines if line.strip()]
        if not found:
            raise UserError(
                sentence(f"There is no caption in {self.location}.", do="Give at least one caption, one per line.")
            )
        return found


COCO_CAPTIONS = 616_767
"""Number of captions in COCO 2014's training and validation sets, over which MACE's authors sum."""


@final
@dataclass(frozen=True, kw_only=True)
class CaptionSample:
    """A sample of a larger set of general captions: M is the mean moment of its captions times `stand_for`.

    So the weights published for COCO's captions keep their meaning with a list or a file of any length, and a file of
    COCO's captions gives the authors' sum.
    """

    name: ClassVar[str] = "caption-sample"
    version: ClassVar[int] = 1

    captions: tuple[str, ...] | CaptionFile
    """The captions, or their file; at least one."""
    stand_for: int = COCO_CAPTIONS
    """Number of captions that they represent, ≥ 1."""

    def __post_init__(self) -> None:
        """SpecError for an empty list, or `stand_for` below 1."""
        if self.captions == () or self.stand_for < 1:
            raise SpecError(
                sentence(
                    "A sample of captions is empty, or its stand_for is below 1.",
                    captions=len(self.captions) if isinstance(self.captions, tuple) else self.captions.location,
                    stand_for=self.stand_for,
                    do="Give at least one caption, and stand_for of 1 or more.",
                )
            )


@final
@dataclass(frozen=True, kw_only=True)
class TextMoment:
    """Σ e eᵀ over all tokens of some texts. Only a cache key."""

    name: ClassVar[str] = "text-moment"
    version: ClassVar[int] = 1

    model: str
    """Digest of the model whose text encoder encodes them."""
    texts: tuple[str, ...] | CaptionFile
    """The texts."""


def text_moment(model: StableDiffusion, run: Run, texts: tuple[str, ...] | CaptionFile) -> Tensor:
    """M [d, d] over all L token rows of every text, computed once and cached; zero for no texts."""
    import torch

    def compute() -> dict[str, Tensor]:
        captions: Sequence[str] = texts if isinstance(texts, tuple) else texts.texts()
        width = int(model.unet.config.cross_attention_dim)
        total = torch.zeros(width, width, dtype=torch.float64, device=model.device)
        for low in range(0, len(captions), moves.BATCH):
            part = captions[low : low + moves.BATCH]
            # Captions of a file may be truncated, as in the authors' code; texts in a spec must fit.
            total += moment(moves.encode_texts(model, part, may_be_cut=() if isinstance(texts, tuple) else part))
        return {"moment": total}

    spec = TextMoment(model=run.parent_digest, texts=texts)
    with torch.no_grad():
        made = run.cached("text-moments", spec, compute) if texts else compute()
    return made["moment"].to(model.device)


def general_moment(model: StableDiffusion, run: Run, captions: tuple[str, ...] | CaptionFile | CaptionSample) -> Tensor:
    """M [d, d] of general captions: their sum, or the scaled sum of a sample."""
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
    """right · H⁻¹ for a symmetric positive definite H [d, d]; BuildError if it is not definite."""
    import torch

    factor, failed = torch.linalg.cholesky_ex(h)
    if bool(failed):
        raise BuildError(
            sentence(
                "The closed form has no unique solution: edited and preserved tokens do not span the text states.",
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
