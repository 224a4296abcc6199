"""Global state that must not affect a step or a judge, nor be changed by it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def other_randomness(seed: int = 12345) -> Iterator[None]:
    """Set other global random states of Python, numpy and torch, and restore them afterwards."""
    import numpy
    import torch

    python, arrays = random.getstate(), numpy.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            numpy.random.seed(seed)
            random.seed(seed)
            yield
    finally:
        random.setstate(python)
        numpy.random.set_state(arrays)
