"""The erased subspace C and the supervision subspace S of R^d, and how much they overlap.

    P = U Uᵀ,  U [d, k] with orthonormal columns
    cos θ₁ ≥ cos θ₂ ≥ …   the singular values of U_Cᵀ U_S, min(dim C, dim S) of them: principal angles
    overlap = Σ cos² θᵢ = ‖P_C P_S‖_F²
    γ(S, C) = λ_min(P_S P_C P_S)     "worst-case leakage", Proposition 5.1, with two possible interpretations

* On the whole space R^d, γ is 1 if S = C = R^d and 0 otherwise: a vector orthogonal to a proper S is mapped to 0, and
  if S = R^d, γ = λ_min(P_C), which is 0 for a proper C. Both bounds of the proposition are then trivial, "≥ 0".
* On S alone, γ = λ_min(U_Sᵀ P_C U_S) = cos² of the largest angle if dim S ≤ dim C, and 0 if dim S > dim C.

Angles are in degrees. Squares of cosines below 1e-7 cannot be distinguished from 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from resurgence_harness.errors import SpecError, sentence

Array = NDArray[np.float64]
"""float64; a 0-d result is a numpy float."""


@final
@dataclass(frozen=True, eq=False)
class Subspace:
    """A subspace of R^d, or a batch of subspaces of one dimension."""

    basis: Array
    """U [..., d, k]: orthonormal columns; k = 0 is the subspace {0}."""

    def __post_init__(self) -> None:
        """SpecError for a basis that is not orthonormal."""
        basis = np.asarray(self.basis, dtype=np.float64)
        object.__setattr__(self, "basis", basis)
        if basis.ndim < 2 or not 0 <= basis.shape[-1] <= basis.shape[-2] or basis.shape[-2] < 1:
            raise SpecError(sentence("A basis has columns [d, k] with 0 ≤ k ≤ d and d ≥ 1.", shape=basis.shape))
        error = np.abs(transposed(basis) @ basis - np.eye(basis.shape[-1])).max(initial=0.0)
        if not error < 1e-9:
            raise SpecError(
                sentence(
                    "The columns of this basis are not orthonormal.",
                    largest_error=error,
                    do="Use Subspace.spanned_by(vectors).",
                )
            )

    @classmethod
    def spanned_by(cls, vectors: Array, *, tolerance: float = 1e-10) -> Subspace:
        """The span of rows [n, d]; singular values under `tolerance` times the largest count as 0."""
        _, singular, rows = np.linalg.svd(np.atleast_2d(np.asarray(vectors, dtype=np.float64)), full_matrices=False)
        largest = singular.max(initial=0.0)
        return cls(rows[singular > tolerance * largest].T if largest > 0 else np.zeros((rows.shape[-1], 0)))

    @classmethod
    def random(cls, ambient: int, dim: int, generator: np.random.Generator, *batch: int) -> Subspace:
        """Uniform (Haar) subspaces [*batch, ambient, dim]."""
        return cls(np.linalg.qr(generator.standard_normal((*batch, ambient, dim)))[0])

    @classmethod
    def axes(cls, ambient: int, *which: int) -> Subspace:
        """The span of some coordinate axes, counted from 0."""
        return cls(np.eye(ambient)[:, list(which)])

    @property
    def ambient(self) -> int:
        """d, the dimension of the ambient space."""
        return int(self.basis.shape[-2])

    @property
    def dim(self) -> int:
        """k, the dimension of the subspace."""
        return int(self.basis.shape[-1])

    @property
    def projector(self) -> Array:
        """P = U Uᵀ [..., d, d]."""
        return self.basis @ transposed(self.basis)


def at_angle(ambient: int, dim: int, degrees: float, *, outside: int = 0) -> tuple[Subspace, Subspace]:
    """(C, S) in R^ambient, both of dimension `dim`, all principal angles `degrees`; C is the first `dim` axes.

    `outside` adds directions to S that are orthogonal to C. SpecError unless 2·dim + outside ≤ ambient.
    """
    if dim < 1 or outside < 0 or 2 * dim + outside > ambient:
        raise SpecError(
            sentence(
                f"R^{ambient} is too small for two subspaces of dimension {dim} in this position.",
                outside=outside,
                do="Keep 1 ≤ dim and 2·dim + outside ≤ ambient.",
            )
        )
    angle = np.deg2rad(degrees)
    # sin and cos of a right angle are exact here, so that "no overlap" is 0 and not 6e-17.
    cosine, sine = (0.0, 1.0) if degrees == 90 else (float(np.cos(angle)), float(np.sin(angle)))
    axes = np.eye(ambient)
    turned = cosine * axes[:, :dim] + sine * axes[:, dim : 2 * dim]
    return Subspace(axes[:, :dim]), Subspace(np.hstack([turned, axes[:, 2 * dim : 2 * dim + outside]]))


def transposed(matrices: Array) -> Array:
    """The matrices with their last two axes swapped."""
    return np.swapaxes(matrices, -1, -2)


def frobenius(matrices: Array) -> Any:
    """‖·‖_F over the last two axes [...]."""
    return np.sqrt(np.sum(matrices**2, axis=(-2, -1)))


def cosines(erased: Subspace, supervised: Subspace) -> Array:
    """Cosines of the principal angles [..., min(k, s)], largest first."""
    _same_space(erased, supervised)
    inner = transposed(erased.basis) @ supervised.basis
    if 0 in inner.shape[-2:]:
        return np.zeros((*inner.shape[:-2], 0))
    return np.clip(np.linalg.svd(inner, compute_uv=False), 0.0, 1.0)


def principal_angles(erased: Subspace, supervised: Subspace) -> Array:
    """Principal angles in degrees [..., min(k, s)], smallest first."""
    return np.rad2deg(np.arccos(cosines(erased, supervised)))


def overlap(erased: Subspace, supervised: Subspace) -> Any:
    """Σ cos² θᵢ = ‖P_C P_S‖_F² [...], from 0 to min(dim C, dim S). Uniform random subspaces have k·s/d on average."""
    return np.sum(cosines(erased, supervised) ** 2, axis=-1)


def leakage_on_whole_space(erased: Subspace, supervised: Subspace) -> Any:
    """γ on the whole space R^d [...]: 1 if S = C = R^d, else 0 (proof above)."""
    _same_space(erased, supervised)
    batch = np.broadcast_shapes(erased.basis.shape[:-2], supervised.basis.shape[:-2])
    return np.full(batch, float(erased.dim == supervised.dim == erased.ambient))[()]


def leakage_on_supervised(erased: Subspace, supervised: Subspace) -> Any:
    """γ on S [...]: the minimum of ‖P_C u‖² over unit vectors u of S. SpecError for an empty S."""
    _same_space(erased, supervised)
    if supervised.dim == 0:
        raise SpecError(
            sentence(
                "The leakage from an empty supervision subspace is not defined.",
                do="Give S at least one direction; `overlap` is 0 for an empty S.",
            )
        )
    found = cosines(erased, supervised)
    if supervised.dim > erased.dim:
        return np.zeros(found.shape[:-1])[()]
    return found[..., -1] ** 2


def _same_space(erased: Subspace, supervised: Subspace) -> None:
    if erased.ambient != supervised.ambient:
        raise SpecError(
            sentence(
                "C and S are in different spaces.", dimension_of_C=erased.ambient, dimension_of_S=supervised.ambient
            )
        )
