"""Where a GPU must not round: texts, trajectories, images and what is measured are computed as outside a training.

`training.fast_products` lets a training round its factors to ten bits. Within it, whatever else a step computes, such
as the text states of a closed form or the trajectories that a target is taken from, goes through `exact_products`, so
that it is, bit for bit, what the same call gives outside. On a CPU nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_EXACT: ContextVar[bool] = ContextVar("exact products", default=False)


def exact() -> bool:
    """Whether products are being computed in whole precision, whatever is around them."""
    return _EXACT.get()


@contextmanager
def exact_products() -> Iterator[None]:
    """While this lasts, neither products (TF32) nor attention (half_attention.py) are rounded. Also a decorator."""
    import torch

    before, token = torch.backends.cuda.matmul.allow_tf32, _EXACT.set(True)
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
        _EXACT.reset(token)
