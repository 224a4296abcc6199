"""Gradient descent from an unlearned W on benign images: the energy regained in C, step by step.

    W_{n+1} = W_n − η P ∇L(W_n),       P = I (every weight is trained) or P = P_S (updates confined to S)

Each step multiplies P (W − W*) by I − 2ηΣ_t on the right, so with Σ_t = Q diag(s) Qᵀ, and without using W* (which need
not exist for singular data),

    W_n = W_0 − ½ P ∇L(W_0) Q diag(φ_n(s)) Qᵀ,     φ_n(s) = (1 − (1 − 2ηs)ⁿ)/s = 2η Σ_{j<n} (1 − 2ηs)ʲ

It converges for 0 < η < 1/s_max. From P_C W_0 = 0 with P = I, P_C W_n = √(1−α) P_C Q diag(φ_n) Qᵀ. For η ≤ 1/(2 s_max):

* φ_1 = 2η whatever s is: **one step regains the same energy for every data set**, 4η²(1−α) dim C, most at small α.
* step n adds 2η√(1−α) P_C (I − 2ηΣ_t)ⁿ⁻¹, less than the step before: **most of the energy comes back early**.
* φ_n falls with s for n ≥ 2: **low variance amplifies**, by at most s_high/s_low, and only over many steps.
* benign images of rank one, variance v in a direction at θ from C = one direction, regain after convergence

      ‖P_C W_∞‖² = (1 − (1 − (1−a)²) cos² θ)/(1−α),     a = αv/(αv + 1−α)

  so **more overlap of such data with C regains less energy**, and none at all is needed.
* P = P_S: P_C W_n = 0 for all n if S ⊥ C. From (I − P_C) W* of the same data, P_C W_∞ = P_C P_S P_C W*: for one
  direction the share cos⁴ θ of the energy before unlearning, 0.0058 % at 85°.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from resurgence_harness.errors import SpecError, sentence
from resurgence_harness.theory.model import LinearScoreModel
from resurgence_harness.theory.subspaces import Array, Subspace, frobenius, transposed


@final
@dataclass(frozen=True)
class Everywhere:
    """Every weight is trained: the gradient is unchanged."""

    def allowed(self, gradient: Array) -> Array:
        """∇L."""
        return gradient


@final
@dataclass(frozen=True)
class Within:
    """Updates are confined to a supervision subspace of the outputs, as for an adapter."""

    supervised: Subspace
    """S, a subspace of W's output space."""

    def allowed(self, gradient: Array) -> Array:
        """P_S ∇L."""
        return self.supervised.projector @ gradient


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Descent:
    """Gradient descent on the expected loss of some data."""

    model: LinearScoreModel
    """The benign data and the noise level."""
    start: Array
    """W_0 [..., d, d]."""
    step_size: float
    """η, 0 < η < 1/s_max with s_max the largest eigenvalue of Σ_t."""
    updates: Everywhere | Within = Everywhere()
    """Which updates are allowed."""

    def __post_init__(self) -> None:
        """SpecError for a step size at which descent does not converge."""
        limit = 1 / np.linalg.eigvalsh(self.model.noisy_second_moment).max()
        if not 0 < self.step_size < limit:
            raise SpecError(
                sentence(
                    f"Gradient descent does not converge with a step size of {self.step_size}.",
                    do=f"Take a step size above 0 and below {limit:.6g}.",
                )
            )

    def after(self, steps: int) -> Array:
        """W_n [..., d, d] in closed form."""
        if steps < 0:
            raise SpecError(sentence(f"Descent takes 0 steps or more, got {steps}."))
        spectrum, axes = np.linalg.eigh(self.model.noisy_second_moment)
        move = axes @ (filtered(spectrum, steps, self.step_size)[..., None] * transposed(axes))
        return self.start - self.updates.allowed(self.model.gradient(self.start)) @ move / 2

    def walk(self, steps: int) -> Iterator[Array]:
        """W_0, W_1 … W_n [..., d, d], computed step by step."""
        weights = self.start
        yield weights
        for _ in range(steps):
            weights = weights - self.step_size * self.updates.allowed(self.model.gradient(weights))
            yield weights


def filtered(spectrum: Array, steps: int, step_size: float) -> Array:
    """φ_n(s) of the eigenvalues s of Σ_t, same shape; 2ηn at s = 0."""
    shrunk = -2 * step_size * spectrum
    with np.errstate(divide="ignore", invalid="ignore"):  # both branches are computed: s = 0, and 2ηs ≥ 1
        # expm1 and log1p keep the digits of small curvatures, where 1 − (1 − 2ηs)ⁿ loses them.
        gentle = -np.expm1(steps * np.log1p(shrunk)) / spectrum
        steep = (1 - (1 + shrunk) ** steps) / spectrum
    return np.where(np.abs(spectrum) < 1e-300, 2.0 * step_size * steps, np.where(shrunk > -0.5, gentle, steep))


def energy(weights: Array, erased: Subspace) -> Any:
    """‖P_C W‖_F² [...]: the squared weights that predict noise in C; 0 after exact unlearning."""
    return frobenius(transposed(erased.basis) @ weights) ** 2
