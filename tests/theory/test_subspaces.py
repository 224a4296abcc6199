"""Principal angles, and both readings of the paper's leakage against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from resurgence_harness.errors import SpecError
from resurgence_harness.theory import (
    Subspace,
    at_angle,
    leakage_on_supervised,
    leakage_on_whole_space,
    overlap,
    principal_angles,
)
from tests.theory.draws import draws


@settings(deadline=None)
@given(draws())
def test_both_readings_equal_their_definitions(drawn):
    """10,000 draws: λ_min(P_S P_C P_S) on R^d, and λ_min(U_Sᵀ P_C U_S) on S."""
    erased, supervised = drawn.erased, drawn.supervised
    p, basis = supervised.projector, supervised.basis
    whole = np.linalg.eigvalsh(p @ erased.projector @ p)[:, 0]
    assert np.abs(leakage_on_whole_space(erased, supervised) - whole).max() < 1e-9
    inside = np.linalg.eigvalsh(basis.swapaxes(-1, -2) @ erased.projector @ basis)[:, 0]
    assert np.abs(leakage_on_supervised(erased, supervised) - inside).max() < 1e-9
    squares = np.sum((erased.projector @ p) ** 2, axis=(-2, -1))
    assert np.abs(overlap(erased, supervised) - squares).max() < 1e-9


@pytest.mark.parametrize("degrees", [0.0, 0.5, 30.0, 60.0, 89.0, 90.0])
@pytest.mark.parametrize("outside", [0, 1])
def test_at_angle_is_at_that_angle(degrees, outside):
    """All principal angles; an extra orthogonal direction in S makes γ 0 on S, not the overlap."""
    erased, supervised = at_angle(6, 2, degrees, outside=outside)
    assert principal_angles(erased, supervised) == pytest.approx([degrees] * 2, abs=1e-6)
    assert overlap(erased, supervised) == pytest.approx(2 * np.cos(np.deg2rad(degrees)) ** 2, abs=1e-12)
    leak = 0.0 if outside else np.cos(np.deg2rad(degrees)) ** 2
    assert leakage_on_supervised(erased, supervised) == pytest.approx(leak, abs=1e-12)


def test_gamma_on_the_whole_space_is_one_or_zero():
    """1 only for S = C = R^d; 0 already for S = C of codimension 1."""
    whole, part = Subspace(np.eye(4)), Subspace.axes(4, 0, 1, 2)
    assert leakage_on_whole_space(whole, whole) == 1
    assert leakage_on_whole_space(part, part) == leakage_on_whole_space(part, whole) == 0
    assert leakage_on_supervised(part, part) == 1


def test_s_equal_to_c_and_s_orthogonal_to_c():
    """γ on S is 1 and 0, exactly."""
    erased = Subspace.axes(4, 0, 1)
    assert leakage_on_supervised(erased, erased) == 1
    assert leakage_on_supervised(erased, Subspace.axes(4, 2, 3)) == 0
    assert leakage_on_supervised(erased, at_angle(4, 2, 90.0)[1]) == 0


def test_an_empty_s_has_an_overlap_and_no_worst_case():
    """overlap 0 and γ on R^d 0; the minimum over no direction is refused."""
    erased, empty = Subspace.axes(3, 0), Subspace(np.zeros((3, 0)))
    assert overlap(erased, empty) == 0 and leakage_on_whole_space(erased, empty) == 0
    assert principal_angles(erased, empty).shape == (0,)
    with pytest.raises(SpecError, match="empty supervision subspace"):
        leakage_on_supervised(erased, empty)
    assert leakage_on_supervised(empty, erased) == 0


def test_random_overlap_is_k_s_over_d():
    """Incidental alignment of uniform subspaces: 2 · 3 / 20 on average."""
    generator = np.random.default_rng(0)
    found = overlap(Subspace.random(20, 2, generator, 4000), Subspace.random(20, 3, generator, 4000))
    assert found.mean() == pytest.approx(0.3, abs=5 * found.std() / np.sqrt(4000))


def test_the_span_of_vectors():
    """Dependent rows count once; zeros span nothing."""
    assert Subspace.spanned_by(np.array([[1.0, 1.0, 0.0], [2.0, 2.0, 0.0], [0.0, 0.0, 1.0]])).dim == 2
    assert Subspace.spanned_by(np.zeros((2, 3))).dim == 0


def test_what_is_no_basis_or_no_position_is_refused():
    """One sentence each."""
    with pytest.raises(SpecError, match="not orthonormal"):
        Subspace(np.array([[1.0], [1.0]]))
    with pytest.raises(SpecError, match="not orthonormal"):
        Subspace(np.array([[np.nan], [1.0]]))
    with pytest.raises(SpecError, match="columns"):
        Subspace(np.eye(2)[:1])
    with pytest.raises(SpecError, match="different spaces"):
        overlap(Subspace.axes(3, 0), Subspace.axes(4, 0))
    with pytest.raises(SpecError, match="is too small"):
        at_angle(3, 2, 10.0)
