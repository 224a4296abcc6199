"""Curvature-limited sensitivity (Proposition 5.1, part 2): how far fine-tuning moves an unlearned model within C.

Stated:   ‖P_C ΔW‖_F ≥ 2 √(1−α) √γ(S, C) / (α λ_max^C + 1−α),   λ_max^C = λ_max(P_C Σ P_C)     at P_C W = 0.

**It does not hold as stated.** "Any update supported in C" cannot be meant (ΔW = 0 is one), so ΔW is taken to be the
minimising update. L is quadratic, 2 (W + ΔW) Σ_t = 2 √(1−α) I in the rows of C, and with P_C W = 0

    P_C ΔW = √(1−α) P_C Σ_t⁻¹                                                              [`update`]

The 2 of the gradient cancels against the 2 of the Hessian 2 Σ_t, whatever the scale of the loss. At Σ = I, S = C,
dim C = 1 the update is √(1−α), half of the stated bound. At Σ = I the statement fails exactly where γ > dim C / 4: for
dim C = 1 and θ < 60°, 2 and θ < 45°, 3 and θ < 30° (the largest angle, dim S ≤ dim C). For dim C ≥ 4 it is true,
because √dim C ≥ 2.

**Corrected**, for every Σ, every α < 1 and every C:

    ‖P_C ΔW‖_F ≥ √(1−α) √(Σᵢ (α λᵢ^C + 1−α)⁻²)                                             [`sharp_sensitivity_bound`]
               ≥ √(1−α) √dim C / (α λ_max^C + 1−α)                                         [`sensitivity_bound`]

Proof. Let uᵢ be the eigenvectors of P_C Σ P_C in C. By Cauchy and Schwarz, twice, ‖Σ_t⁻¹u‖ ≥ uᵀΣ_t⁻¹u ≥ 1/(uᵀΣ_t u) for
unit u. Here uᵢᵀ Σ_t uᵢ = α λᵢ^C + 1−α ≤ α λ_max^C + 1−α, and ‖P_C Σ_t⁻¹‖_F² = Σᵢ ‖Σ_t⁻¹uᵢ‖².   ∎
The first line is the exact update if ΔW is confined to C on both sides, P_C ΔW P_C. It equals `update` if Σ maps C into
itself; the second does too if all variances in C are equal. So the statement holds if γ ≤ dim C / 4. The bound does not
depend on S. From above, ‖P_C ΔW‖_F ≤ √dim C / √(1−α): the noise limits the amplification.

**Updates confined to S** reach P_C ΔW = P_C P_S (W* − W). From W = 0 and from the unlearned optimum (I − P_C) W*

    ‖P_C ΔW‖_F ≥ √(1−α) √(Σ cos² θᵢ) / (α λ_max^S + 1−α)        S's variance, not C's     [`confined_sensitivity_bound`]
    ‖P_C ΔW‖_F ≥ √(1−α) √(Σ cos⁴ θᵢ) / (α λ_max^C + 1−α)        by the same proof with P_S uᵢ, and P_C P_S uᵢ, for uᵢ.

**Over α** a single direction of variance λ moves by √(1−α)/(αλ + 1−α): most at α = (1 − 2λ)/(1 − λ), by 1/(2√(λ(1−λ))),
if λ < 1/2, and most at α = 0, by 1, if λ ≥ 1/2                                               [`largest_update_alpha`]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from resurgence_harness.errors import SpecError, sentence
from resurgence_harness.theory.model import LinearScoreModel
from resurgence_harness.theory.subspaces import (
    Array,
    Subspace,
    cosines,
    frobenius,
    leakage_on_supervised,
    overlap,
    transposed,
)


def update(model: LinearScoreModel, erased: Subspace) -> Any:
    """‖P_C ΔW‖_F [...] of the minimising update from any W with P_C W = 0, exactly."""
    return model.cross * frobenius(transposed(erased.basis) @ model.inverse())


def sensitivity_bound(model: LinearScoreModel, erased: Subspace) -> Any:
    """√(1−α) √dim C / (α λ_max^C + 1−α) [...], a proved lower bound of `update`."""
    return model.cross * np.sqrt(erased.dim) / _largest_noisy_variance(model, erased)


def sharp_sensitivity_bound(model: LinearScoreModel, erased: Subspace) -> Any:
    """The update's norm if it is confined to C on both sides [...]: between `sensitivity_bound` and `update`."""
    _largest_noisy_variance(model, erased)
    spectrum = model.alpha * variance_within(model, erased) + 1 - model.alpha
    if np.any(spectrum <= 0):
        raise _no_curvature(model)
    return model.cross * np.sqrt(np.sum(spectrum**-2.0, axis=-1))


def stated_sensitivity_bound(
    model: LinearScoreModel,
    erased: Subspace,
    supervised: Subspace,
    *,
    leakage: Callable[[Subspace, Subspace], Any] = leakage_on_supervised,
) -> Any:
    """2 √(1−α) √γ / (α λ_max^C + 1−α) [...], as stated: not a bound where γ > dim C / 4."""
    return 2 * model.cross * np.sqrt(leakage(erased, supervised)) / _largest_noisy_variance(model, erased)


def confined_sensitivity_bound(model: LinearScoreModel, erased: Subspace, supervised: Subspace) -> Any:
    """A lower bound of ‖P_C ΔW‖_F [...] for the minimising update within S from W = 0."""
    return model.cross * np.sqrt(overlap(erased, supervised)) / _largest_noisy_variance(model, supervised)


def confined_sensitivity_bound_of_the_unlearned_optimum(
    model: LinearScoreModel, erased: Subspace, supervised: Subspace
) -> Any:
    """A lower bound of ‖P_C ΔW‖_F [...] for the minimising update within S from W = (I − P_C) W*."""
    powers = np.sum(cosines(erased, supervised) ** 4, axis=-1)
    return model.cross * np.sqrt(powers) / _largest_noisy_variance(model, erased)


def variance_within(model: LinearScoreModel, subspace: Subspace) -> Array:
    """λᵢ^C [..., k]: the eigenvalues of Σ restricted to a subspace, smallest first; none is negative."""
    inside = transposed(subspace.basis) @ model.second_moment @ subspace.basis
    return np.asarray(np.maximum(np.linalg.eigvalsh(inside), 0.0), dtype=np.float64)


def largest_update_alpha(variance: float) -> float:
    """The noise level α at which a single direction of this variance moves most; 0 for a variance of 1/2 or more."""
    if not 0 < variance < float("inf"):
        raise SpecError(
            sentence(
                f"A variance above 0 is needed, got {variance}.",
                do="Without variance the update 1/√(1−alpha) has no maximum: it diverges as alpha → 1.",
            )
        )
    return (1 - 2 * variance) / (1 - variance) if variance < 0.5 else 0.0


def _largest_noisy_variance(model: LinearScoreModel, subspace: Subspace) -> Any:
    """α λ_max + 1−α within a subspace [...], half the largest curvature there."""
    if subspace.dim == 0:
        raise SpecError(sentence("An empty subspace has no largest variance.", do="Give it at least one direction."))
    largest = model.alpha * variance_within(model, subspace)[..., -1] + 1 - model.alpha
    if np.any(largest <= 0):
        raise _no_curvature(model)
    return largest


def _no_curvature(model: LinearScoreModel) -> SpecError:
    return SpecError(
        sentence(
            "Without noise and without variance the loss has no curvature: every update is minimal.",
            alpha=model.alpha,
            do="Take alpha below 1.",
        )
    )
