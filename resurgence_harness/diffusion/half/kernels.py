"""Triton kernels for activations in channels-last layout, x [n, P, C] with P places: norms, residual sums, GEGLU.

    channel_sums     Σ_p x and Σ_p x² of every channel, with x += y + bias in the same pass
    group_norm       act( GroupNorm( concatenation of one or two x, + bias ) ) from these sums
    layer_norm       LayerNorm( x + bias )
    geglu            h · gelu(gate)
    interleave       the four phases of an upsampling convolution → one image, with its channel sums

Sums are float32. Without a GPU the kernels run under Triton's interpreter (TRITON_INTERPRET=1), as in the tests.
Sizes that do not change the code are not specialised (`_ANY`), so that few variants are compiled.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

PLACES, CHANNELS = 64, 64
"""Places and channels of a block."""
_ANY = ["P", "CHUNK", "chunks", "chunks_a", "chunks_b", "step", "M", "H", "W"]


def _kernel(function: Any) -> Any:
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    return triton.jit(function, do_not_specialize=[name for name in _ANY if name in names])


class Normed(NamedTuple):
    """The parameters of a norm, float32."""

    weight: Tensor
    bias: Tensor
    eps: float
    groups: int
    """1 for a layer norm."""


@_kernel
def _channel_sums(
    x, y, bias, part, P, C, CHUNK, chunks,
    HAS_Y: tl.constexpr, HAS_BIAS: tl.constexpr, WRITE: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    chunk, n = tl.program_id(0), tl.program_id(2)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    inside = c < C
    base = n.to(tl.int64) * P * C
    if HAS_BIAS:
        b = tl.load(bias + c, mask=inside, other=0.0).to(tl.float32)
    total = tl.zeros([BP, BC], tl.float32)
    squares = tl.zeros([BP, BC], tl.float32)
    for start in range(0, CHUNK, BP):
        p = chunk * CHUNK + start + tl.arange(0, BP)
        mask = (p < P)[:, None] & inside[None, :]
        at = base + p[:, None].to(tl.int64) * C + c[None, :]
        v = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
        if HAS_Y:
            v += tl.load(y + at, mask=mask, other=0.0).to(tl.float32)
        if HAS_BIAS:
            v += b[None, :]
        if WRITE:
            stored = v.to(x.dtype.element_ty)
            tl.store(x + at, stored, mask=mask)
            v = stored.to(tl.float32)
        v = tl.where(mask, v, 0.0)
        total += v
        squares += v * v
    out = part + (n * chunks + chunk) * 2 * C + c
    tl.store(out, tl.sum(total, 0), mask=inside)
    tl.store(out + C, tl.sum(squares, 0), mask=inside)


@_kernel
def _affine(
    part_a, C_a, chunks_a, part_b, C_b, chunks_b, bias, step, gamma, beta, scale, shift, P, eps, C, CG,
    HAS_B: tl.constexpr, HAS_BIAS: tl.constexpr, BG: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """scale and shift [n, C] with which a group norm of (a, b) + bias is x · scale + shift."""
    n = tl.program_id(0)
    i = tl.arange(0, BG)
    c = tl.program_id(1) * CG + i
    inside = i < CG
    total = tl.zeros([BG], tl.float32)
    squares = tl.zeros([BG], tl.float32)
    for low in range(0, chunks_a, BN):
        k = low + tl.arange(0, BN)
        mask = (k < chunks_a)[:, None] & (inside & (c < C_a))[None, :]
        at = part_a + (n * chunks_a + k[:, None]) * 2 * C_a + c[None, :]
        total += tl.sum(tl.load(at, mask=mask, other=0.0), 0)
        squares += tl.sum(tl.load(at + C_a, mask=mask, other=0.0), 0)
    if HAS_B:
        for low in range(0, chunks_b, BN):
            k = low + tl.arange(0, BN)
            mask = (k < chunks_b)[:, None] & (inside & (c >= C_a))[None, :]
            at = part_b + (n * chunks_b + k[:, None]) * 2 * C_b + (c[None, :] - C_a)
            total += tl.sum(tl.load(at, mask=mask, other=0.0), 0)
            squares += tl.sum(tl.load(at + C_b, mask=mask, other=0.0), 0)
    b = tl.zeros([BG], tl.float32)
    if HAS_BIAS:
        b = tl.load(bias + n * step + c, mask=inside, other=0.0).to(tl.float32)
        squares = squares + 2 * b * total + P * b * b
        total = total + P * b
    mean = tl.sum(tl.where(inside, total, 0.0), 0) / (P * CG)
    variance = tl.sum(tl.where(inside, squares, 0.0), 0) / (P * CG) - mean * mean
    k = tl.load(gamma + c, mask=inside, other=0.0) / tl.sqrt(tl.maximum(variance, 0.0) + eps)
    tl.store(scale + n * C + c, k, mask=inside)
    tl.store(shift + n * C + c, tl.load(beta + c, mask=inside, other=0.0) + (b - mean) * k, mask=inside)


@_kernel
def _apply(x, scale, shift, out, P, C, C_out, offset, SILU: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr):
    """out[…, offset : offset + C] = act( x · scale + shift ); out has C_out channels."""
    n = tl.program_id(2)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    inside = c < C
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    mask = (p < P)[:, None] & inside[None, :]
    k = tl.load(scale + n * C_out + offset + c, mask=inside, other=0.0)
    h = tl.load(shift + n * C_out + offset + c, mask=inside, other=0.0)
    row = n.to(tl.int64) * P + p
    v = tl.load(x + row[:, None] * C + c[None, :], mask=mask, other=0.0).to(tl.float32)
    v = v * k[None, :] + h[None, :]
    if SILU:
        v = v / (1.0 + tl.exp(-v))
    tl.store(out + row[:, None] * C_out + offset + c[None, :], v.to(out.dtype.element_ty), mask=mask)


@_kernel
def _layer_norm(
    x, bias, gamma, beta, out, M, C, eps, TWO: tl.constexpr, BM: tl.constexpr, B1: tl.constexpr, B2: tl.constexpr
):  # fmt: skip
    """Rows of C ≤ B1 + B2 channels, in two parts, since SD's widths are 5 · 2^k and a block's is a power of two."""
    r = tl.program_id(0) * BM + tl.arange(0, BM)
    c1, c2 = tl.arange(0, B1), B1 + tl.arange(0, B2)
    m1, m2 = (r < M)[:, None] & (c1 < C)[None, :], (r < M)[:, None] & (c2 < C)[None, :]
    row = r[:, None].to(tl.int64) * C
    v1 = tl.load(x + row + c1[None, :], mask=m1, other=0.0).to(tl.float32)
    v1 = tl.where(m1, v1 + tl.load(bias + c1, mask=c1 < C, other=0.0)[None, :], 0.0)
    total = tl.sum(v1, 1)
    if TWO:
        v2 = tl.load(x + row + c2[None, :], mask=m2, other=0.0).to(tl.float32)
        v2 = tl.where(m2, v2 + tl.load(bias + c2, mask=c2 < C, other=0.0)[None, :], 0.0)
        total += tl.sum(v2, 1)
    mean = total / C
    d1 = tl.where(m1, v1 - mean[:, None], 0.0)
    squares = tl.sum(d1 * d1, 1)
    if TWO:
        d2 = tl.where(m2, v2 - mean[:, None], 0.0)
        squares += tl.sum(d2 * d2, 1)
    scale = 1.0 / tl.sqrt(squares / C + eps)
    g = tl.load(gamma + c1, mask=c1 < C, other=0.0)
    b = tl.load(beta + c1, mask=c1 < C, other=0.0)
    tl.store(out + row + c1[None, :], (d1 * scale[:, None] * g[None, :] + b[None, :]).to(out.dtype.element_ty), mask=m1)
    if TWO:
        g = tl.load(gamma + c2, mask=c2 < C, other=0.0)
        b = tl.load(beta + c2, mask=c2 < C, other=0.0)
        v = d2 * scale[:, None] * g[None, :] + b[None, :]
        tl.store(out + row + c2[None, :], v.to(out.dtype.element_ty), mask=m2)


@triton.jit
def _gelu(x):
    """x Φ(x); erf by Abramowitz and Stegun 7.1.26, absolute error 1.5e-7."""
    z = tl.abs(x) * 0.7071067811865476
    t = 1.0 / (1.0 + 0.3275911 * z)
    tail = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
    tail = tail * tl.exp(-z * z)
    return x * tl.where(x >= 0, 1.0 - 0.5 * tail, 0.5 * tail)


@_kernel
def _geglu(x, out, M, F, BM: tl.constexpr, BF: tl.constexpr):
    r = tl.program_id(0) * BM + tl.arange(0, BM)
    c = tl.program_id(1) * BF + tl.arange(0, BF)
    mask = (r < M)[:, None] & (c < F)[None, :]
    at = r[:, None].to(tl.int64) * 2 * F + c[None, :]
    h = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    gate = tl.load(x + at + F, mask=mask, other=0.0).to(tl.float32)
    v = (h * _gelu(gate)).to(out.dtype.element_ty)
    tl.store(out + r[:, None].to(tl.int64) * F + c[None, :], v, mask=mask)


@_kernel
def _interleave(x, bias, out, part, H, W, C, CHUNK, chunks, BP: tl.constexpr, BC: tl.constexpr):
    """x [n, H + 1, W + 1, 4, C] → out [n, 2 H, 2 W, C] + bias, and its sums."""
    chunk, n = tl.program_id(0), tl.program_id(2)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    inside = c < C
    b = tl.load(bias + c, mask=inside, other=0.0)
    total = tl.zeros([BP, BC], tl.float32)
    squares = tl.zeros([BP, BC], tl.float32)
    P = 4 * H * W
    base_in = n.to(tl.int64) * (H + 1) * (W + 1) * 4 * C
    base_out = n.to(tl.int64) * P * C
    for start in range(0, CHUNK, BP):
        p = chunk * CHUNK + start + tl.arange(0, BP)
        mask = (p < P)[:, None] & inside[None, :]
        row, column = p // (2 * W), p % (2 * W)
        i, j = row % 2, column % 2  # the phase
        source = ((row // 2 + i) * (W + 1) + column // 2 + j) * 4 + i * 2 + j
        v = tl.load(x + base_in + source[:, None].to(tl.int64) * C + c[None, :], mask=mask, other=0.0).to(tl.float32)
        stored = (v + b[None, :]).to(out.dtype.element_ty)
        tl.store(out + base_out + p[:, None].to(tl.int64) * C + c[None, :], stored, mask=mask)
        v = tl.where(mask, stored.to(tl.float32), 0.0)
        total += v
        squares += v * v
    at = part + (n * chunks + chunk) * 2 * C + c
    tl.store(at, tl.sum(total, 0), mask=inside)
    tl.store(at + C, tl.sum(squares, 0), mask=inside)


def channel_sums(x: Tensor, y: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Partial sums [n, chunks, 2, C] float32 of x and x², x [n, P, C]; if given, x += y + bias [C] first, in place."""
    n, places, channels = x.shape
    write = y is not None or bias is not None
    chunk, chunks = _chunks(places, 256 if write else 1024)
    part = torch.empty(n, chunks, 2, channels, device=x.device, dtype=torch.float32)
    _channel_sums[(chunks, triton.cdiv(channels, CHANNELS), n)](
        x, x if y is None else y, x if bias is None else bias, part, places, channels, chunk, chunks,
        HAS_Y=y is not None, HAS_BIAS=bias is not None, WRITE=write, BP=PLACES, BC=CHANNELS, num_warps=4,
    )  # fmt: skip
    return part


def group_norm(
    sources: list[tuple[Tensor, Tensor]],
    norm: Normed,
    *,
    silu: bool,
    bias: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """act(GroupNorm(cat(x) + bias)) [n, P, C] of one or two (x [n, P, C_i], its channel sums); bias [C] or [n, C], its
    rows at any distance."""
    (x, part), other = sources[0], sources[-1][1]
    n, places, low = x.shape
    channels = sum(source.shape[2] for source, _ in sources)
    scale = torch.empty(n, channels, device=x.device, dtype=torch.float32)
    shift = torch.empty_like(scale)
    group = channels // norm.groups
    _affine[(n, norm.groups)](
        part, low, part.shape[1], other, other.shape[3], other.shape[1],
        norm.weight if bias is None else bias, bias.stride(0) if bias is not None and bias.ndim == 2 else 0,
        norm.weight, norm.bias, scale, shift, places, norm.eps, channels, group,
        HAS_B=len(sources) == 2, HAS_BIAS=bias is not None, BG=max(128, triton.next_power_of_2(group)), BN=8,
        num_warps=1,
    )  # fmt: skip
    out = torch.empty(n, places, channels, device=x.device, dtype=dtype or x.dtype)
    offset = 0
    for source, _ in sources:
        own = source.shape[2]
        _apply[(triton.cdiv(places, PLACES), triton.cdiv(own, CHANNELS), n)](
            source, scale, shift, out, places, own, channels, offset, SILU=silu, BP=PLACES, BC=CHANNELS, num_warps=4
        )
        offset += own
    return out


def layer_norm(x: Tensor, norm: Normed, bias: Tensor) -> Tensor:
    """LayerNorm(x + bias) for x [M, C] and bias [C]."""
    rows, channels = x.shape
    out = torch.empty_like(x)
    first = 1 << (channels.bit_length() - 1)
    second = triton.next_power_of_2(channels - first) if channels > first else 16
    each = max(1, {256: 2048, 512: 8192}.get(first, 4096) // first)
    _layer_norm[(triton.cdiv(rows, each),)](
        x, bias, norm.weight, norm.bias, out, rows, channels, norm.eps,
        TWO=channels > first, BM=each, B1=first, B2=second, num_warps=4,
    )  # fmt: skip
    return out


def geglu(x: Tensor) -> Tensor:
    """h · gelu(gate) [M, F] for x = (h, gate) [M, 2 F]."""
    rows, width = x.shape[0], x.shape[1] // 2
    out = torch.empty(rows, width, device=x.device, dtype=x.dtype)
    _geglu[(triton.cdiv(rows, 16), triton.cdiv(width, 256))](x, out, rows, width, BM=16, BF=256, num_warps=4)
    return out


def interleave(x: Tensor, bias: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """[n, (H + 1)(W + 1), 4 C] and bias [C] → [n, 4 H W, C] and its channel sums."""
    n, channels = x.shape[0], bias.shape[0]
    chunk, chunks = _chunks(4 * height * width, 256)
    out = torch.empty(n, 4 * height * width, channels, device=x.device, dtype=x.dtype)
    part = torch.empty(n, chunks, 2, channels, device=x.device, dtype=torch.float32)
    _interleave[(chunks, triton.cdiv(channels, CHANNELS), n)](
        x, bias, out, part, height, width, channels, chunk, chunks, BP=PLACES, BC=CHANNELS, num_warps=4
    )
    return out, part


def _chunks(places: int, least: int) -> tuple[int, int]:
    """Places of a chunk and number of chunks: at most about 64, of at least `least` places."""
    chunk = max(min(least, places), places // 64)
    return chunk, triton.cdiv(places, chunk)
