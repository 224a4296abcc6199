"""The linear score model at one noise level: its loss, gradient, curvature and minimiser in closed form.

    x_t = √α x₀ + √(1−α) ε,   ε ~ N(0, I) independent of x₀,   residual W x_t − ε          (Proposition 5.1)
    Σ_t = E[x_t x_tᵀ] = α Σ + (1−α) I,        E[ε x_tᵀ] = √(1−α) I

    L(W)   = E‖W x_t − ε‖²  = tr(W Σ_t Wᵀ) − 2 √(1−α) tr W + d
    ∇L(W)  = 2 (W Σ_t − √(1−α) I)                     row i of ∇L depends on row i of W alone
    ∇²L    = 2 Σ_t for each row of W                  the same factor 2: it cancels in every minimiser
    W*     = √(1−α) Σ_t⁻¹                             unique if Σ_t is not singular

The paper does not state the loss; it is taken to be E‖·‖², because its gradient bound has the factor 2. The minimiser
does not depend on a factor of the loss.

Σ is the second moment E[x₀ x₀ᵀ]. The paper calls it a covariance; its Σ_t is then correct if the mean is 0.

Exact unlearning (the paper's) is P_C W = 0: the model predicts no noise in C. This does not mean that a denoised image
has no energy in C: see `denoised_energy`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from resurgence_harness.errors import SpecError, sentence
from resurgence_harness.theory.subspaces import Array, Subspace, transposed


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class LinearScoreModel:
    """Data with second moment Σ at noise level α; or a batch of them."""

    alpha: float
    """α_t, the signal's share of the power, 0 ≤ α ≤ 1. Early diffusion steps have α near 0: almost only noise."""
    second_moment: Array
    """Σ = E[x₀ x₀ᵀ] [..., d, d], in units of the noise's variance: symmetric, positive semidefinite."""

    def __post_init__(self) -> None:
        """SpecError for a noise level outside 0…1 and a matrix that is not a second moment."""
        if not 0 <= self.alpha <= 1:
            raise SpecError(sentence(f"alpha is a share of power, from 0 to 1, got {self.alpha}."))
        moment = np.asarray(self.second_moment, dtype=np.float64)
        object.__setattr__(self, "second_moment", moment)
        if moment.ndim < 2 or moment.shape[-1] != moment.shape[-2] or moment.shape[-1] < 1:
            raise SpecError(sentence("A second moment is a square matrix [d, d].", shape=moment.shape))
        scale = np.abs(moment).max(initial=0.0)
        if not np.isfinite(scale) or np.abs(moment - transposed(moment)).max() > 1e-9 * scale:
            raise SpecError(sentence("This second moment is not symmetric and finite.", do="Give E[x₀ x₀ᵀ]."))
        least = np.linalg.eigvalsh(moment).min()
        if least < -1e-9 * scale:
            raise SpecError(
                sentence("A second moment has no negative eigenvalue.", smallest=least, do="Give E[x₀ x₀ᵀ].")
            )

    @classmethod
    def of_images(cls, images: Array, *, alpha: float) -> LinearScoreModel:
        """The model of a finite set of images [n, d], in expectation over the noise: Σ = Xᵀ X / n, not centred."""
        images = np.asarray(images, dtype=np.float64)
        if images.ndim != 2 or len(images) == 0:
            raise SpecError(sentence("Images are rows [n, d], at least one.", shape=images.shape))
        return cls(alpha=alpha, second_moment=images.T @ images / len(images))

    @property
    def dim(self) -> int:
        """d, the dimension of an image."""
        return int(self.second_moment.shape[-1])

    @property
    def cross(self) -> float:
        """√(1−α): E[ε x_tᵀ] is this times the identity."""
        return float(np.sqrt(1 - self.alpha))

    @property
    def noisy_second_moment(self) -> Array:
        """Σ_t = α Σ + (1−α) I [..., d, d]."""
        return self.alpha * self.second_moment + (1 - self.alpha) * np.eye(self.dim)

    def loss(self, weights: Array) -> Any:
        """L(W) [...], in units of the noise's power; d at W = 0."""
        quadratic = np.sum((weights @ self.noisy_second_moment) * weights, axis=(-2, -1))
        return quadratic - 2 * self.cross * np.trace(weights, axis1=-2, axis2=-1) + self.dim

    def gradient(self, weights: Array) -> Array:
        """∇L(W) = 2 (W Σ_t − √(1−α) I) [..., d, d]."""
        return 2 * (weights @ self.noisy_second_moment - self.cross * np.eye(self.dim))

    def hessian(self) -> Array:
        """2 Σ_t [..., d, d], the second derivative of L in each row of W."""
        return 2 * self.noisy_second_moment

    def minimiser(self) -> Array:
        """W* = √(1−α) Σ_t⁻¹ [..., d, d]."""
        return self.cross * self.inverse()

    def inverse(self) -> Array:
        """Σ_t⁻¹ [..., d, d]; SpecError if Σ_t is singular, which needs α = 1 up to rounding."""
        spectrum = np.linalg.eigvalsh(self.noisy_second_moment)
        if np.any(spectrum[..., 0] <= 1e-14 * spectrum[..., -1]):
            raise SpecError(
                sentence(
                    "Without noise in some direction of singular data, many W are minimal.",
                    alpha=self.alpha,
                    smallest_eigenvalue=spectrum[..., 0].min(),
                    do="Take alpha below 1: then the minimiser is unique, and grows like 1/√(1−alpha).",
                )
            )
        return np.asarray(np.linalg.inv(self.noisy_second_moment), dtype=np.float64)

    def denoised_energy(self, weights: Array, erased: Subspace) -> Any:
        """E‖P_C x̂₀‖² [...] of the denoised image x̂₀ = (x_t − √(1−α) W x_t)/√α: its energy in C.

        At P_C W = 0 it is tr(P_C Σ) + dim C · (1−α)/α, more than in the data, since the noise is not removed. At W* it
        is α tr(P_C Σ Σ_t⁻¹ Σ), which is 0 for data without C. SpecError at α = 0.
        """
        if self.alpha == 0:
            raise SpecError(sentence("Pure noise cannot be denoised.", alpha=0, do="Take alpha above 0."))
        kept = transposed(erased.basis) @ (np.eye(self.dim) - self.cross * weights)
        return np.sum((kept @ self.noisy_second_moment) * kept, axis=(-2, -1)) / self.alpha


def unlearn(weights: Array, erased: Subspace) -> Array:
    """(I − P_C) W [..., d, d]: exact unlearning, P_C W = 0, with the other directions unchanged."""
    return weights - erased.projector @ weights
