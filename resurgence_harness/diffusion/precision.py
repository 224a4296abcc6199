"""Full-precision products on a GPU for text states, trajectories, images and measurements, also during training.

`training.fast_products` lets training round its factors to ten bits. Everything else that a step computes within it,
such as the text states of a closed form or the trajectories that targets are taken from, uses `exact_products`, so
that the result is bit for bit that of the same call outside. On a CPU nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class HalfTraining(Protocol):
    """A training in float16 (half/training.py)."""

    @property
    def device(self) -> Any:
        """Where it computes."""

    @property
    def found(self) -> Tensor:
        """1 once a gradient was not finite, [] float32."""

    def predict(
        self, unet: Any, x_t: Tensor, t: Tensor | int, states: Tensor, further: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """f_θ(x_t, t, c) [n, 4, h, w] in float32."""


HALF: ContextVar[HalfTraining | None] = ContextVar("training in float16", default=None)
"""The training in float16 that is going on (half/training.py); None in float32."""
_EXACT: ContextVar[bool] = ContextVar("exact products", default=False)


def exact() -> bool:
    """Whether products are currently computed in full precision, even within `fast_products`."""
    return _EXACT.get()


def half_training() -> HalfTraining | None:
    """The training in float16 that predictions are part of now; None in float32, and within `exact_products`."""
    return None if exact() else HALF.get()


@contextmanager
def predictions_in_float32() -> Iterator[None]:
    """Within the context predictions are those of a training in float32, also within one in float16."""
    token = HALF.set(None)
    try:
        yield
    finally:
        HALF.reset(token)


@contextmanager
def exact_products() -> Iterator[None]:
    """Within the context nothing is rounded: no products (TF32, float16), no attention. Also a decorator."""
    import torch

    before, token = torch.backends.cuda.matmul.allow_tf32, _EXACT.set(True)
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
        _EXACT.reset(token)
