"""Gradient resurgence (Proposition 5.1, part 1): how strongly fine-tuning pulls an unlearned model back into C.

Stated:   ‖P_C ∇L‖_F ≥ 2 √(1−α) √γ(S, C)    at P_C W = 0.

**Exactly**, P_C ∇L = 2 (P_C W Σ_t − √(1−α) P_C), so at P_C W = 0

    ‖P_C ∇L‖_F = 2 √(1−α) √dim C                                                           [`gradient`]

for all S and Σ, whatever the rest of W. γ ≤ 1 ≤ dim C, so the statement is true. It is loose by the factor √(dim C / γ)
≥ √dim C, and it is vacuous (γ = 0) on the whole space, for dim S > dim C, and when S has a direction orthogonal to C.
S does not cause this gradient: it exists for S ⊥ C and for data without C. The reason is that ε is isotropic: every
image trains the model to predict noise in C. With the proposition's own S, the span of the fine-tuning gradients, the
bound is vacuous too: the columns of an image's gradient 2 (W x_t − ε) x_tᵀ are multiples of its residual, residuals of
more than dim C images have γ = 0, and those of d images span R^d [`gradient_span`].

**Where S does matter**: updates confined to S, P_S ∇L (an adapter, a part of the layers). Their part in C is

    at W = 0                 ‖P_C P_S ∇L‖_F = 2 √(1−α) √(Σ cos² θᵢ)                        [`confined_gradient`]
    at W = (I − P_C) W*      ‖P_C P_S ∇L‖_F = 2 √(1−α) √(Σ cos⁴ θᵢ)     [`confined_gradient_of_the_unlearned_optimum`]

since ∇L is −2√(1−α) I at W = 0 and −2√(1−α) P_C at the unlearned optimum of the same data. With √γ the statement holds
at W = 0 (equal if dim S = dim C = 1), and fails at the unlearned optimum of one direction for 0 < θ < 90°: γ instead
of √γ. At another unlearned W the part in C may vanish in spite of an overlap, if P_S W = P_S W* already.

**If some signal is left** the extra term is 2 P_C W Σ_t (its part 2α P_C W Σ is the paper's):

    ‖P_C ∇L‖_F ≥ 2 | √(1−α) √dim C − ‖P_C W Σ_t‖_F |                                       [`remaining_signal_bound`]

It dominates as α → 1, but it never adds energy: −⟨P_C W, 2 P_C W Σ_t⟩ ≤ 0, it reduces the remaining signal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from resurgence_harness.theory.model import LinearScoreModel
from resurgence_harness.theory.subspaces import (
    Array,
    Subspace,
    cosines,
    frobenius,
    leakage_on_supervised,
    overlap,
)


def gradient_bound(
    model: LinearScoreModel,
    erased: Subspace,
    supervised: Subspace,
    *,
    leakage: Callable[[Subspace, Subspace], Any] = leakage_on_supervised,
) -> Any:
    """2 √(1−α) √γ [...], the paper's lower bound of `gradient`; `leakage` computes γ in either interpretation."""
    return 2 * model.cross * np.sqrt(leakage(erased, supervised))


def gradient(model: LinearScoreModel, erased: Subspace) -> float:
    """‖P_C ∇L‖_F = 2 √(1−α) √dim C for every W with P_C W = 0."""
    return float(2 * model.cross * np.sqrt(erased.dim))


def confined_gradient(model: LinearScoreModel, erased: Subspace, supervised: Subspace) -> Any:
    """‖P_C P_S ∇L‖_F at W = 0 [...]; at least 2 √(1−α) √(dim S · γ) for dim S ≤ dim C."""
    return 2 * model.cross * np.sqrt(overlap(erased, supervised))


def confined_gradient_of_the_unlearned_optimum(model: LinearScoreModel, erased: Subspace, supervised: Subspace) -> Any:
    """‖P_C P_S ∇L‖_F at W = (I − P_C) W* [...]; at least 2 √(1−α) √dim S · γ (not √γ) for dim S ≤ dim C."""
    return 2 * model.cross * np.sqrt(np.sum(cosines(erased, supervised) ** 4, axis=-1))


def remaining_signal_bound(model: LinearScoreModel, weights: Array, erased: Subspace) -> Any:
    """A lower bound of ‖P_C ∇L(W)‖_F for any W [...], by the triangle inequality."""
    left = frobenius(erased.projector @ weights @ model.noisy_second_moment)
    return 2 * np.abs(model.cross * np.sqrt(erased.dim) - left)


def gradient_span(model: LinearScoreModel, weights: Array, images: Array, noise: Array) -> Subspace:
    """The span of the columns of the images' gradients 2 (W x_t − ε) x_tᵀ, for images x₀ and noises ε [n, d]."""
    noisy = np.sqrt(model.alpha) * images + model.cross * noise
    return Subspace.spanned_by(noisy @ weights.T - noise)
