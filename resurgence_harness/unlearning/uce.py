"""UCE, Unified Concept Editing: one linear map from a name's text states to those of its anchor.

Gandikota, Orgad, Belinkov, Materzyńska, Bau. Unified Concept Editing in Diffusion Models. WACV 2024.
https://arxiv.org/abs/2308.14761

For each cross-attention key and value matrix W (32 in Stable Diffusion):

    min_W'  s_e Σ_i ‖W' c_i − W a_i‖²  +  s_p Σ_j ‖W' p_j − W p_j‖²  +  λ ‖W' − W‖²

    W' = W R,    R = (λ I + s_e A Cᵀ + s_p P Pᵀ) H⁻¹,    H = λ I + s_e C Cᵀ + s_p P Pᵀ

R does not depend on W: one d × d Cholesky solve in float64 serves all 32 matrices.

Notation     c_i, a_i, p_j  text states of erased, anchor and preserved tokens, the columns of C, A, P      [d]
             s_e erase_scale     s_p preserve_scale     λ ridge
Which tokens The authors published two systems under this name. `SubjectAndAfter` is their 2023 code: the last token of
             the name and everything after it (the rest of the text, the end token, the padding), aligned with the
             anchor's; all tokens of every preserved text and of the empty text. `LastSubjectToken` is their 2025 code:
             one token per text, no empty text.
Departures   from unified-concept-editing 35e91e2 (2023) and 28c81ed (2025): solved once and in float64, not per layer
             and in float32; s_p defaults to 1 (2023: max(.1, 1 / number of preserved texts), which the preset for
             Stable Diffusion uses); the anchor is the concept's kind ("a celebrity"), not " ", whose first token would
             be the begin token. An anchor of only spaces still means the empty text, from its begin token on, as in
             theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.model import tensors
from resurgence_harness.diffusion.parameters import Parameters, StrictKeyValue, selected
from resurgence_harness.diffusion.ranges import at_least, positive
from resurgence_harness.specs import Concept
from resurgence_harness.unlearning.closed_form import divided
from resurgence_harness.unlearning.contract import (
    Unlearning,
    anchor_of,
    check_anchors,
    check_concepts,
    check_templates,
)

if TYPE_CHECKING:
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run


@final
@dataclass(frozen=True)
class SubjectAndAfter:
    """Edit the last token of the name and everything after it; preserve whole texts, including the empty one."""

    name: ClassVar[str] = "subject-and-after"

    def pairs(self, erased: Tensor, anchor: Tensor, at: int, at_anchor: int) -> tuple[Tensor, Tensor]:
        """Rows of two texts [L, d], aligned at the last token of their subjects."""
        rows = len(erased) - max(at, at_anchor)
        return erased[at : at + rows], anchor[at_anchor : at_anchor + rows]

    def kept(self, text: Tensor, at: int) -> Tensor:
        """All rows of a preserved text [L, d]."""
        return text

    empty: ClassVar[tuple[str, ...]] = ("",)
    """Texts that are always preserved."""


@final
@dataclass(frozen=True)
class LastSubjectToken:
    """Edit and preserve only the last token of each name."""

    name: ClassVar[str] = "last-subject-token"

    def pairs(self, erased: Tensor, anchor: Tensor, at: int, at_anchor: int) -> tuple[Tensor, Tensor]:
        """One row of each text [L, d]: the last token of its subject."""
        return erased[at : at + 1], anchor[at_anchor : at_anchor + 1]

    def kept(self, text: Tensor, at: int) -> Tensor:
        """The last token of a preserved text's subject."""
        return text[at : at + 1]

    empty: ClassVar[tuple[str, ...]] = ()
    """Texts that are always preserved."""


@final
@dataclass(frozen=True, kw_only=True)
class UCE(Unlearning):
    """Redirect concepts to an anchor in closed form."""

    name: ClassVar[str] = "uce"
    version: ClassVar[int] = 2

    concepts: tuple[Concept, ...]
    """The erase set; all are edited at once, in any order."""
    anchor: str = ""
    """The text to which an erased name is mapped; "" means each concept's own kind ("a celebrity")."""
    preserve: tuple[Concept, ...] = ()
    """The retain set: names whose keys and values are preserved. Needed in practice: without it, quality falls."""
    templates: tuple[str, ...] = ("{}",)
    """Texts for erased, anchor and preserved names; "{}" is the name. The bare name by default."""
    tokens: SubjectAndAfter | LastSubjectToken = SubjectAndAfter()
    """Which tokens of a text are edited and preserved."""
    erase_scale: float = 1.0
    """s_e, weight of the erase set, ≥ 0. 0 leaves the model unchanged."""
    preserve_scale: float = 1.0
    """s_p, weight of the retain set, ≥ 0."""
    ridge: float = 0.5
    """λ, weight of the distance to the old matrices, > 0; in units of a text state's squared norm."""

    def __post_init__(self) -> None:
        """SpecError for contradictory sets, missing anchors, and values out of range."""
        check_concepts("UCE", self.concepts, self.preserve)
        check_templates("UCE", self.templates)
        at_least("UCE", 0, erase_scale=self.erase_scale, preserve_scale=self.preserve_scale)
        positive("UCE", ridge=self.ridge)
        check_anchors("UCE", self.concepts, self.anchor)

    @property
    def moves(self) -> Parameters:
        """The 32 key and value matrices."""
        return StrictKeyValue()

    def anchor_of(self, concept: Concept) -> str:
        """The anchor's text for one concept."""
        return anchor_of(concept, self.anchor)

    def apply(self, model: StableDiffusion, run: Run) -> StableDiffusion:
        """W' = W R for every key and value matrix."""
        import torch

        with torch.no_grad():
            erased, anchors, kept = self._tokens(model)
            edit = uce_map(
                erased,
                anchors,
                kept,
                erase_scale=self.erase_scale,
                preserve_scale=self.preserve_scale,
                ridge=self.ridge,
            )
            changed = model.copy()
            matrices = tensors(changed)
            for name in selected(self.moves, matrices):
                matrices[name].copy_(matrices[name].double().cpu() @ edit)
        run.record("erased tokens", len(erased))
        run.record("preserved tokens", len(kept))
        run.progress(1, 1, None)
        return changed

    def _tokens(self, model: StableDiffusion) -> tuple[Tensor, Tensor, Tensor]:
        """C, A and P as rows [·, d]: text states of erased, anchor and preserved tokens."""
        import torch

        names = [
            (concept.name, self.anchor_of(concept).strip(), template)
            for concept in self.concepts
            for template in self.templates
        ]
        pairs = [
            self.tokens.pairs(erased, anchor, at, at_anchor)
            for (erased, at), (anchor, at_anchor) in zip(
                _states(model, [(name, template) for name, _, template in names]),
                _states(model, [(anchor, template) for _, anchor, template in names]),
                strict=True,
            )
        ]
        kept = [(concept.name, template) for concept in self.preserve for template in self.templates]
        kept += [(text, "{}") for text in self.tokens.empty]
        rows = [self.tokens.kept(text, at) for text, at in _states(model, kept)]
        erased = torch.cat([erased for erased, _ in pairs])
        return erased, torch.cat([anchor for _, anchor in pairs]), torch.cat(rows) if rows else erased[:0]


def _states(model: StableDiffusion, subjects: Sequence[tuple[str, str]]) -> list[tuple[Tensor, int]]:
    """Text states [L, d] of each (name, template), and the position of the name's last token."""
    if not subjects:
        return []
    placed = [moves.filled(model.tokenizer, template, name) for name, template in subjects]
    # An empty name is edited at the text's last token, or at the begin token if the text is empty too.
    at = [own.stop - 1 if own else moves.last_subject_token(model.tokenizer, text, "") for text, own in placed]
    return list(zip(moves.encode_texts(model, [text for text, _ in placed]), at, strict=True))


def uce_map(
    erased: Tensor, anchors: Tensor, kept: Tensor, *, erase_scale: float, preserve_scale: float, ridge: float
) -> Tensor:
    """R [d, d] in float64 on the CPU, from C, A [n, d] and P [m, d] as rows; W' = W R."""
    import torch

    c, a, p = (rows.detach().cpu().double() for rows in (erased, anchors, kept))
    ridge_and_kept = ridge * torch.eye(c.shape[1], dtype=torch.float64) + preserve_scale * p.T @ p
    h = ridge_and_kept + erase_scale * c.T @ c
    right = ridge_and_kept + erase_scale * a.T @ c
    return divided(right, h)
