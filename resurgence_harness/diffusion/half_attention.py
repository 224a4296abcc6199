"""Attention in half precision, which rounds its factors to ten bits as TF32 rounds those of other products.

    A = softmax(Q Kᵀ / √d) V         Q, K, V in float16, sums and softmax in float32, A in float16
    ∂L/∂A is multiplied by a power of two s before it is rounded, ∂L/∂Q, ∂L/∂K and ∂L/∂V are divided by it

No attention kernel takes TF32; PyTorch's for float32 emulates it with three TF32 products, and takes 55 % of a training
step of SD's U-Net. float16 has TF32's precision and a narrower range: values beyond 65,504 become infinite, which stops
a training as any loss that is not finite does, and gradients, often below its smallest number (6e-8), are moved into
the range by s.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from resurgence_harness.diffusion.precision import exact

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 8.0
"""Largest scaled ∂L/∂A: the gradient of a key sums up to 4,096 of them and must stay below 65,504."""
WIDEST = 256
"""Largest head dimension d of the fused kernels; the VAE's one head of 512 is computed in float32."""


def attend(query: Tensor, key: Tensor, value: Tensor, *, scale: float | None = None) -> Tensor:
    """A [n, heads, L, d] in float32 from float32 Q [n, heads, L, d], K and V [n, heads, L', d].

    `scale` is 1/√d if None.
    """
    from torch.nn import functional

    chosen: list[Tensor] = []
    scaled, unscaled = _scaling()
    q, k, v = (unscaled.apply(part, chosen).half() for part in (query, key, value))
    read: Tensor = scaled.apply(functional.scaled_dot_product_attention(q, k, v, scale=scale).float(), chosen)
    return read


@cache
def _scaling() -> tuple[Any, Any]:
    """Two identity functions; one multiplies its gradient by the s that it chooses, the other divides by it."""
    import torch

    class Scaled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, read: Tensor, chosen: list[Tensor]) -> Tensor:
            ctx.chosen = chosen
            return read.view_as(read)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
            ctx.chosen.append(torch.exp2((LARGEST / gradient.abs().amax().clamp(min=1e-30)).log2().floor()))
            return gradient * ctx.chosen[-1], None

    class Unscaled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, part: Tensor, chosen: list[Tensor]) -> Tensor:
            ctx.chosen = chosen
            return part.view_as(part)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
            return gradient / ctx.chosen[-1], None

    return Scaled, Unscaled


def half_attention() -> Any:
    """A context manager: within it, attention over float32 tensors without a mask goes through `attend`.

    Within `precision.exact_products` it has no effect.
    """
    from torch.nn import functional
    from torch.overrides import TorchFunctionMode

    whole = functional.scaled_dot_product_attention

    class HalfAttention(TorchFunctionMode):
        def __torch_function__(
            self, function: Callable[..., Any], _: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            kwargs = kwargs or {}
            if function is whole and not exact() and _fits(*args, **kwargs):
                named = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
                return attend(named["query"], named["key"], named["value"], scale=named.get("scale"))
            return function(*args, **kwargs)

    return HalfAttention()


def _fits(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: object = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **_: object,
) -> bool:
    """Whether it is plain attention in float32, with a head dimension that the kernels support."""
    import torch

    plain = attn_mask is None and not dropout_p and not is_causal
    return plain and query.dtype == torch.float32 and query.shape[-1] <= WIDEST
