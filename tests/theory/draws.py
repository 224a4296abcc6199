"""Random models and subspaces, in batches: a hypothesis example is a hundred draws."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as some

from resurgence_harness.theory import LinearScoreModel, Subspace

BATCH = 100
"""Draws per example; 100 examples are 10,000 draws."""


class Draw(NamedTuple):
    """A batch of models with their subspaces."""

    model: LinearScoreModel
    erased: Subspace
    supervised: Subspace
    weights: Any
    """W [batch, d, d], arbitrary."""


@some.composite
def draws(draw: Any, *, batch: int = BATCH, most: int = 7, aligned: bool = False) -> Draw:
    """Dimensions, noise level, spectra (some singular) and subspaces; S near C in half of the examples."""
    ambient = draw(some.integers(1, most))
    erased_dim = draw(some.integers(1, ambient))
    supervised_dim = erased_dim if aligned else draw(some.integers(1, ambient))
    alpha = draw(some.one_of(some.sampled_from([0.0, 0.5, 0.99]), some.floats(0.0, 0.99)))
    generator = np.random.default_rng(draw(some.integers(0, 2**32 - 1)))
    rank = draw(some.integers(0, ambient))
    axes = np.linalg.qr(generator.standard_normal((batch, ambient, ambient)))[0]
    spectrum = 10 ** generator.uniform(-3, 1, (batch, 1, ambient)) * (np.arange(ambient) < rank)
    moment = (axes * spectrum) @ axes.swapaxes(-1, -2)
    erased = Subspace.random(ambient, erased_dim, generator, batch)
    supervised = Subspace.random(ambient, supervised_dim, generator, batch)
    if supervised_dim <= erased_dim and draw(some.booleans()):
        near = erased.basis[..., :supervised_dim] + 0.2 * generator.standard_normal(supervised.basis.shape)
        supervised = Subspace(np.linalg.qr(near)[0])
    return Draw(
        model=LinearScoreModel(alpha=alpha, second_moment=(moment + moment.swapaxes(-1, -2)) / 2),
        erased=erased,
        supervised=supervised,
        weights=generator.standard_normal((batch, ambient, ambient)),
    )
