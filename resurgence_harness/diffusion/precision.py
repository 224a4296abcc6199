"""Full-precision products on a GPU for text states, trajectories, images and measurements, also during training.

`training.fast_products` lets training round its factors to ten bits. Everything else that a step computes within it,
such as the text states of a closed form or the trajectories that targets are taken from, uses `exact_products`, so
that the result is bit for bit that of the same call outside. On a CPU nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_EXACT: ContextVar[bool] = ContextVar("exact products", default=False)


def exact() -> bool:
    """Whether products are currently computed in full precision, even within `fast_products`."""
    return _EXACT.get()


@contextmanager
def exact_products() -> Iterator[None]:
    """Within the context neither products (TF32) nor attention (half_attention.py) are rounded. Also a decorator."""
    import torch

    before, token = torch.backends.cuda.matmul.allow_tf32, _EXACT.set(True)
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
        _EXACT.reset(token)
