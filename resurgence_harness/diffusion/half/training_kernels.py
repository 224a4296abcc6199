"""Norms, GEGLU and residual sums with their gradients, for activations [n, P, C] (channels last), in Triton.

    GroupNorm     act(γ (x + e − μ_g) / σ_g + β), act the identity or SiLU, e [n, C] the time's shift of each channel;
                  μ_g, σ_g over the positions and channels of group g
    LayerNorm     γ (x − μ) / σ + β over the channels of a position
    GEGLU         h · gelu(g) of x = (h, g);  Φ by Abramowitz and Stegun 7.1.26, absolute error 1.5e-7
    Residual      y + x + b, written over y

Sums are float32, what is stored has the dtype of x. Norms keep their input and the statistics of each group, not the
normalised values, which the backward pass computes again. Also runs on a CPU, with TRITON_INTERPRET=1.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

PLACES, CHANNELS = 64, 64
"""Positions and channels of a block."""
_kernel = partial(triton.jit, do_not_specialize=("P", "CHUNK", "chunks", "M", "LOOPS"))
"""Sizes that do not change the code are not specialised: every variant is compiled before its first use."""


@_kernel
def _add_sums(x, y, bias, part, P, C, CHUNK, chunks, ADD: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr):
    """x += y + bias in place (ADD); per-channel sums of x and x² of each chunk of positions: part [n, chunks, 2, C]."""
    chunk, cb, n = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    c = cb * BC + tl.arange(0, BC)
    mc = c < C
    base = n.to(tl.int64) * P * C
    if ADD:
        b = tl.load(bias + c, mask=mc, other=0.0).to(tl.float32)
    s = tl.zeros([BP, BC], tl.float32)
    q = tl.zeros([BP, BC], tl.float32)
    for start in range(0, CHUNK, BP):
        p = chunk * CHUNK + start + tl.arange(0, BP)
        m = (p < P)[:, None] & mc[None, :]
        at = base + p[:, None].to(tl.int64) * C + c[None, :]
        v = tl.load(x + at, mask=m, other=0.0).to(tl.float32)
        if ADD:
            v += tl.load(y + at, mask=m, other=0.0).to(tl.float32) + b[None, :]
            w = v.to(x.dtype.element_ty)
            tl.store(x + at, w, mask=m)
            v = w.to(tl.float32)
        v = tl.where(m, v, 0.0)
        s += v
        q += v * v
    o = part + (n * chunks + chunk) * 2 * C + c
    tl.store(o, tl.sum(s, 0), mask=mc)
    tl.store(o + C, tl.sum(q, 0), mask=mc)


@triton.jit
def _group_totals(part, n, chunks, C, c, m, BG: tl.constexpr, BCH: tl.constexpr):
    """Σ over the chunks of both columns of `part`, for the channels c of a group."""
    s = tl.zeros([BG], tl.float32)
    q = tl.zeros([BG], tl.float32)
    for low in range(0, chunks, BCH):
        k = low + tl.arange(0, BCH)
        mm = (k < chunks)[:, None] & m[None, :]
        at = part + (n * chunks + k[:, None]) * 2 * C + c[None, :]
        s += tl.sum(tl.load(at, mask=mm, other=0.0), 0)
        q += tl.sum(tl.load(at + C, mask=mm, other=0.0), 0)
    return s, q


@_kernel
def _group_statistics(part, moved, gamma, beta, scale, shift, total, mean_, rstd_, C, chunks, P, eps, CG, G,
                      MOVED: tl.constexpr, BG: tl.constexpr, BCH: tl.constexpr):  # fmt: skip
    """μ_g and 1/σ_g [n, G]; the norm as x · scale + shift, and Σ (x + e), [n, C]."""
    n, g = tl.program_id(0), tl.program_id(1)
    i = tl.arange(0, BG)
    c = g * CG + i
    m = i < CG
    s, q = _group_totals(part, n, chunks, C, c, m, BG, BCH)
    if MOVED:
        e = tl.load(moved + n * C + c, mask=m, other=0.0).to(tl.float32)
        q += 2 * e * s + P * e * e
        s += P * e
        tl.store(total + n * C + c, s, mask=m)
    mean = tl.sum(s, 0) / (P * CG)
    r = 1.0 / tl.sqrt(tl.maximum(tl.sum(q, 0) / (P * CG) - mean * mean, 0.0) + eps)
    k = tl.load(gamma + c, mask=m, other=0.0).to(tl.float32) * r
    tl.store(scale + n * C + c, k, mask=m)
    h = tl.load(beta + c, mask=m, other=0.0).to(tl.float32) - mean * k
    if MOVED:
        h += e * k
    tl.store(shift + n * C + c, h, mask=m)
    tl.store(mean_ + n * G + g, mean)
    tl.store(rstd_ + n * G + g, r)


@_kernel
def _group_apply(x, scale, shift, out, P, C, SILU: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr):
    """out = act(x · scale + shift)."""
    pb, cb, n = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    c = cb * BC + tl.arange(0, BC)
    mc = c < C
    p = pb * BP + tl.arange(0, BP)
    m = (p < P)[:, None] & mc[None, :]
    k = tl.load(scale + n * C + c, mask=mc, other=0.0)
    h = tl.load(shift + n * C + c, mask=mc, other=0.0)
    at = (n.to(tl.int64) * P + p[:, None]) * C + c[None, :]
    v = tl.load(x + at, mask=m, other=0.0).to(tl.float32) * k[None, :] + h[None, :]
    if SILU:
        v = v / (1.0 + tl.exp(-v))
    tl.store(out + at, v.to(out.dtype.element_ty), mask=m)


@triton.jit
def _through_act(d, u, SILU: tl.constexpr):
    """∂L/∂u from d = ∂L/∂act(u)."""
    if SILU:
        z = 1.0 / (1.0 + tl.exp(-u))
        return d * z * (1.0 + u * (1.0 - z))
    else:
        return d


@_kernel
def _group_back_sums(x, dy, scale, shift, part, P, C, CHUNK, chunks, SILU: tl.constexpr, BP: tl.constexpr,
                     BC: tl.constexpr):  # fmt: skip
    """With d the gradient before the activation: Σ d and Σ d x of each channel and chunk."""
    chunk, cb, n = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    c = cb * BC + tl.arange(0, BC)
    mc = c < C
    k = tl.load(scale + n * C + c, mask=mc, other=0.0)
    h = tl.load(shift + n * C + c, mask=mc, other=0.0)
    s = tl.zeros([BP, BC], tl.float32)
    q = tl.zeros([BP, BC], tl.float32)
    for start in range(0, CHUNK, BP):
        p = chunk * CHUNK + start + tl.arange(0, BP)
        m = (p < P)[:, None] & mc[None, :]
        at = (n.to(tl.int64) * P + p[:, None]) * C + c[None, :]
        v = tl.load(x + at, mask=m, other=0.0).to(tl.float32)
        d = _through_act(tl.load(dy + at, mask=m, other=0.0).to(tl.float32), v * k[None, :] + h[None, :], SILU)
        s += d
        q += d * v
    o = part + (n * chunks + chunk) * 2 * C + c
    tl.store(o, tl.sum(s, 0), mask=mc)
    tl.store(o + C, tl.sum(q, 0), mask=mc)


@_kernel
def _group_back_statistics(part, moved, total, gamma, mean_, rstd_, slope, level, dgamma, dbeta, dmoved, C, chunks, P,
                           CG, G, MOVED: tl.constexpr, BG: tl.constexpr, BCH: tl.constexpr):  # fmt: skip
    """dx = d · scale + x · slope + level; ∂L/∂γ, ∂L/∂β and ∂L/∂e of each image."""
    n, g = tl.program_id(0), tl.program_id(1)
    i = tl.arange(0, BG)
    c = g * CG + i
    m = i < CG
    s, q = _group_totals(part, n, chunks, C, c, m, BG, BCH)
    mean, r = tl.load(mean_ + n * G + g), tl.load(rstd_ + n * G + g)
    if MOVED:
        e = tl.load(moved + n * C + c, mask=m, other=0.0).to(tl.float32)
        q += e * s
    hat = (q - mean * s) * r
    w = tl.load(gamma + c, mask=m, other=0.0).to(tl.float32)
    c1 = tl.sum(w * s, 0) / (P * CG)
    c2 = tl.sum(w * hat, 0) / (P * CG)
    b = -r * r * c2
    z = -r * c1 - b * mean
    tl.store(slope + n * G + g, b)
    if MOVED:
        tl.store(level + n * C + c, z + b * e, mask=m)
        tl.store(dmoved + n * C + c, w * r * s + b * tl.load(total + n * C + c, mask=m, other=0.0) + P * z, mask=m)
    else:
        tl.store(level + n * C + c, z + tl.zeros([BG], tl.float32), mask=m)
    tl.store(dgamma + n * C + c, hat, mask=m)
    tl.store(dbeta + n * C + c, s, mask=m)


@_kernel
def _group_back_apply(x, dy, scale, shift, slope, level, dx, P, C, CG, G, SILU: tl.constexpr, BP: tl.constexpr,
                      BC: tl.constexpr):  # fmt: skip
    pb, cb, n = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    c = cb * BC + tl.arange(0, BC)
    mc = c < C
    p = pb * BP + tl.arange(0, BP)
    m = (p < P)[:, None] & mc[None, :]
    k = tl.load(scale + n * C + c, mask=mc, other=0.0)
    h = tl.load(shift + n * C + c, mask=mc, other=0.0)
    b = tl.load(slope + n * G + c // CG, mask=mc, other=0.0)
    z = tl.load(level + n * C + c, mask=mc, other=0.0)
    at = (n.to(tl.int64) * P + p[:, None]) * C + c[None, :]
    v = tl.load(x + at, mask=m, other=0.0).to(tl.float32)
    d = _through_act(tl.load(dy + at, mask=m, other=0.0).to(tl.float32), v * k[None, :] + h[None, :], SILU)
    tl.store(dx + at, (d * k[None, :] + v * b[None, :] + z[None, :]).to(dx.dtype.element_ty), mask=m)


@_kernel
def _layer_norm(x, y, bias, gamma, beta, out, M, C, eps, ADD: tl.constexpr, BIAS: tl.constexpr, BM: tl.constexpr,
                BC: tl.constexpr):  # fmt: skip
    """x += y + bias in place (ADD), then out = LayerNorm(x), of rows [M, C]."""
    c = tl.arange(0, BC)
    r = tl.program_id(0) * BM + tl.arange(0, BM)
    m = (r < M)[:, None] & (c < C)[None, :]
    at = r[:, None].to(tl.int64) * C + c[None, :]
    v = tl.load(x + at, mask=m, other=0.0).to(tl.float32)
    if ADD:
        v += tl.load(y + at, mask=m, other=0.0).to(tl.float32)
        if BIAS:
            v += tl.load(bias + c, mask=c < C, other=0.0).to(tl.float32)[None, :]
        w = v.to(x.dtype.element_ty)
        tl.store(x + at, w, mask=m)
        v = w.to(tl.float32)
    mean = tl.sum(v, 1) / C
    v = tl.where(m, v - mean[:, None], 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(v * v, 1) / C + eps)
    g = tl.load(gamma + c, mask=c < C, other=0.0).to(tl.float32)
    b = tl.load(beta + c, mask=c < C, other=0.0).to(tl.float32)
    tl.store(out + at, (v * rstd[:, None] * g[None, :] + b[None, :]).to(out.dtype.element_ty), mask=m)


@_kernel
def _layer_back(x, dy, more, gamma, dx, dg, M, C, eps, LOOPS, MORE: tl.constexpr, NEED: tl.constexpr,
                BM: tl.constexpr, BC: tl.constexpr):  # fmt: skip
    """dx = more + ∂L/∂x; NEED: dg [programs, 3, C] = the program's Σ of dy x̂, dy and dx."""
    c = tl.arange(0, BC)
    mc = c < C
    w = tl.load(gamma + c, mask=mc, other=0.0).to(tl.float32)
    g = tl.zeros([BC], tl.float32)
    b = tl.zeros([BC], tl.float32)
    t = tl.zeros([BC], tl.float32)
    for i in range(0, LOOPS):
        r = (tl.program_id(0) * LOOPS + i) * BM + tl.arange(0, BM)
        m = (r < M)[:, None] & mc[None, :]
        at = r[:, None].to(tl.int64) * C + c[None, :]
        v = tl.load(x + at, mask=m, other=0.0).to(tl.float32)
        mean = tl.sum(v, 1) / C
        v = tl.where(m, v - mean[:, None], 0.0)
        rstd = 1.0 / tl.sqrt(tl.sum(v * v, 1) / C + eps)
        hat = v * rstd[:, None]
        d = tl.load(dy + at, mask=m, other=0.0).to(tl.float32)
        if NEED:
            g += tl.sum(d * hat, 0)
            b += tl.sum(d, 0)
        d = d * w[None, :]
        c1 = tl.sum(d, 1) / C
        c2 = tl.sum(d * hat, 1) / C
        d = rstd[:, None] * (d - c1[:, None] - hat * c2[:, None])
        if MORE:
            d += tl.load(more + at, mask=m, other=0.0).to(tl.float32)
        if NEED:
            t += tl.sum(tl.where(m, d, 0.0), 0)
        tl.store(dx + at, d.to(dx.dtype.element_ty), mask=m)
    if NEED:
        o = dg + tl.program_id(0) * 3 * C + c
        tl.store(o, g, mask=mc)
        tl.store(o + C, b, mask=mc)
        tl.store(o + 2 * C, t, mask=mc)


@triton.jit
def _phi(g):
    """Φ(g) and e^(−g²/2)."""
    z = tl.abs(g) * 0.7071067811865476
    t = 1.0 / (1.0 + 0.3275911 * z)
    e = tl.exp(-z * z)
    y = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t * e
    return tl.where(g >= 0, 1.0 - 0.5 * y, 0.5 * y), e


@_kernel
def _geglu(x, out, M, F, BM: tl.constexpr, BF: tl.constexpr):
    r = tl.program_id(0) * BM + tl.arange(0, BM)
    c = tl.program_id(1) * BF + tl.arange(0, BF)
    m = (r < M)[:, None] & (c < F)[None, :]
    at = r[:, None].to(tl.int64) * 2 * F + c[None, :]
    h = tl.load(x + at, mask=m, other=0.0).to(tl.float32)
    g = tl.load(x + at + F, mask=m, other=0.0).to(tl.float32)
    phi, _ = _phi(g)
    tl.store(out + r[:, None].to(tl.int64) * F + c[None, :], (h * g * phi).to(out.dtype.element_ty), mask=m)


@_kernel
def _geglu_back(x, dy, dx, M, F, BM: tl.constexpr, BF: tl.constexpr):
    r = tl.program_id(0) * BM + tl.arange(0, BM)
    c = tl.program_id(1) * BF + tl.arange(0, BF)
    m = (r < M)[:, None] & (c < F)[None, :]
    at = r[:, None].to(tl.int64) * 2 * F + c[None, :]
    h = tl.load(x + at, mask=m, other=0.0).to(tl.float32)
    g = tl.load(x + at + F, mask=m, other=0.0).to(tl.float32)
    d = tl.load(dy + r[:, None].to(tl.int64) * F + c[None, :], mask=m, other=0.0).to(tl.float32)
    phi, e = _phi(g)
    tl.store(dx + at, (d * g * phi).to(dx.dtype.element_ty), mask=m)
    tl.store(dx + at + F, (d * h * (phi + g * 0.3989422804014327 * e)).to(dx.dtype.element_ty), mask=m)


def chunks_of(places: int, least: int) -> tuple[int, int]:
    """(positions of a chunk, number of chunks) for sums over positions in parallel."""
    size = max(min(least, places), places // 64)
    return size, triton.cdiv(places, size)


def _sums(x: Tensor, y: Tensor | None, bias: Tensor | None) -> Tensor:
    """Per-channel sums of x [n, P, C], to which y and bias are added in place if given: [n, chunks, 2, C]."""
    n, places, channels = x.shape
    size, count = chunks_of(places, 256)
    part = torch.empty(n, count, 2, channels, device=x.device, dtype=torch.float32)
    grid = (count, triton.cdiv(channels, CHANNELS), n)
    given = (x if y is None else y, x if bias is None else bias)
    _add_sums[grid](
        x, *given, part, places, channels, size, count, ADD=y is not None, BP=PLACES, BC=CHANNELS, num_warps=4
    )
    return part


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        part: Tensor | None,
        moved: Tensor | None,
        gamma: Tensor,
        beta: Tensor,
        groups: int,
        eps: float,
        silu: bool,
    ) -> Tensor:
        n, places, channels = x.shape
        part = _sums(x, None, None) if part is None else part
        scale, shift, total = torch.empty(3, n, channels, device=x.device, dtype=torch.float32)
        mean, rstd = torch.empty(2, n, groups, device=x.device, dtype=torch.float32)
        each, e = channels // groups, gamma if moved is None else moved.contiguous()
        _group_statistics[(n, groups)](
            *(part, e, gamma, beta, scale, shift, total, mean, rstd, channels, part.shape[1], places, eps),
            *(each, groups), MOVED=moved is not None, BG=triton.next_power_of_2(each), BCH=8, num_warps=1,
        )  # fmt: skip
        out = torch.empty_like(x)
        grid = (triton.cdiv(places, PLACES), triton.cdiv(channels, CHANNELS), n)
        _group_apply[grid](x, scale, shift, out, places, channels, SILU=silu, BP=PLACES, BC=CHANNELS, num_warps=4)
        ctx.save_for_backward(x, e, gamma, scale, shift, total, mean, rstd)
        ctx.silu, ctx.moved = silu, moved is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, e, gamma, scale, shift, total, mean, rstd = ctx.saved_tensors
        dy = dy.contiguous()
        (n, places, channels), groups = x.shape, mean.shape[1]
        size, count = chunks_of(places, 512)
        part = torch.empty(n, count, 2, channels, device=x.device, dtype=torch.float32)
        _group_back_sums[(count, triton.cdiv(channels, CHANNELS), n)](
            *(x, dy, scale, shift, part, places, channels, size, count),
            SILU=ctx.silu, BP=PLACES, BC=CHANNELS, num_warps=4,
        )  # fmt: skip
        slope, level = torch.empty_like(mean), torch.empty_like(scale)
        dgamma, dbeta, dmoved = torch.empty(3, n, channels, device=x.device, dtype=torch.float32)
        each = channels // groups
        _group_back_statistics[(n, groups)](
            *(part, e, total, gamma, mean, rstd, slope, level, dgamma, dbeta, dmoved, channels, count, places),
            *(each, groups), MOVED=ctx.moved, BG=triton.next_power_of_2(each), BCH=8, num_warps=1,
        )  # fmt: skip
        dx = torch.empty_like(x)
        _group_back_apply[(triton.cdiv(places, PLACES), triton.cdiv(channels, CHANNELS), n)](
            *(x, dy, scale, shift, slope, level, dx, places, channels, each, groups),
            SILU=ctx.silu, BP=PLACES, BC=CHANNELS, num_warps=4,
        )  # fmt: skip
        learned = (dgamma.sum(0), dbeta.sum(0)) if ctx.needs_input_grad[3] else (None, None)
        return dx, None, dmoved if ctx.moved else None, *learned, None, None, None


class _LayerNorm(torch.autograd.Function):
    """x [M, C] → LayerNorm(x)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, gamma)
        ctx.eps = eps
        return _normed(x, None, None, gamma, beta, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, gamma = ctx.saved_tensors
        dx, dgamma, dbeta, _ = _layer_gradients(x, dy, None, gamma, ctx.eps, need=ctx.needs_input_grad[1])
        return dx, dgamma, dbeta, None


class _AddLayerNorm(torch.autograd.Function):
    """s and LayerNorm(s). s is written over y, which nothing else reads: the output of a product needs no gradient."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, x: Tensor, b: Tensor, gamma: Tensor, beta: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        out = _normed(y, x, b, gamma, beta, eps)
        s = y.detach()
        ctx.save_for_backward(s, gamma)
        ctx.eps = eps
        return s, out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, more: Tensor, dy: Tensor) -> tuple[Tensor | None, ...]:
        s, gamma = ctx.saved_tensors
        need = ctx.needs_input_grad[2] or ctx.needs_input_grad[3]
        dx, dgamma, dbeta, db = _layer_gradients(s, dy, more, gamma, ctx.eps, need=need)
        return dx, dx, db, dgamma, dbeta, None


def _normed(x: Tensor, y: Tensor | None, b: Tensor | None, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    rows, channels = x.shape
    out = torch.empty_like(x)
    block = triton.next_power_of_2(channels)
    each = max(1, 4096 // block)
    given = (x if y is None else y, gamma if b is None else b)
    _layer_norm[(triton.cdiv(rows, each),)](
        *(x, *given, gamma, beta, out, rows, channels, eps),
        ADD=y is not None, BIAS=b is not None, BM=each, BC=block, num_warps=4,
    )  # fmt: skip
    return out


def _layer_gradients(
    x: Tensor, dy: Tensor, more: Tensor | None, gamma: Tensor, eps: float, *, need: bool
) -> tuple[Tensor | None, ...]:
    """∂L/∂x (with `more` added), and if needed those of γ, β, and Σ ∂L/∂x over rows."""
    rows, channels = x.shape
    dy, more = dy.contiguous(), None if more is None else more.contiguous()
    block = triton.next_power_of_2(channels)
    each = max(1, 2048 // block)
    loops = max(1, triton.cdiv(rows, each * 1024)) if need else 1
    programs = triton.cdiv(rows, each * loops)
    dx = torch.empty_like(x)
    sums = torch.empty(programs if need else 1, 3, channels, device=x.device, dtype=torch.float32)
    _layer_back[(programs,)](
        *(x, dy, dy if more is None else more, gamma, dx, sums, rows, channels, eps, loops),
        MORE=more is not None, NEED=need, BM=each, BC=block, num_warps=4,
    )  # fmt: skip
    return (dx, *sums.sum(0)) if need else (dx, None, None, None)


class _GEGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        rows, width = x.shape[0], x.shape[1] // 2
        out = torch.empty(rows, width, device=x.device, dtype=x.dtype)
        _geglu[(triton.cdiv(rows, 16), triton.cdiv(width, 256))](x, out, rows, width, BM=16, BF=256, num_warps=4)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        rows, width = x.shape[0], x.shape[1] // 2
        dx, grid = torch.empty_like(x), (triton.cdiv(rows, 16), triton.cdiv(width, 256))
        _geglu_back[grid](x, dy.contiguous(), dx, rows, width, BM=16, BF=256, num_warps=4)
        return dx


class _Residual(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        part = _sums(y, x.contiguous(), b)
        ctx.mark_non_differentiable(part)
        ctx.need = ctx.needs_input_grad[2]
        return y.detach(), part

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        return d, d, d.flatten(0, 1).sum(0, dtype=torch.float32) if ctx.need else None


def group_norm(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    groups: int,
    eps: float,
    silu: bool,
    part: Tensor | None = None,
    moved: Tensor | None = None,
) -> Tensor:
    """act(GroupNorm(x + e)), x [n, P, C] contiguous, γ and β [C] float32.

    `part`: the sums of x that `residual` returned; `moved`: e [n, C] float32, nothing if None.
    """
    value: Tensor = _GroupNorm.apply(x, part, moved, gamma, beta, groups, eps, silu)
    return value


def layer_norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    """LayerNorm of x [M, C] contiguous, γ and β [C] float32."""
    value: Tensor = _LayerNorm.apply(x, gamma, beta, eps)
    return value


def add_layer_norm(y: Tensor, x: Tensor, b: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """s = y + x + b (written over y) and LayerNorm(s), for y, x [M, C] contiguous; b, γ and β [C] float32."""
    value: tuple[Tensor, Tensor] = _AddLayerNorm.apply(y, x, b, gamma, beta, eps)
    return value


def geglu(x: Tensor) -> Tensor:
    """h · gelu(g) of x = (h, g) [M, 2F] contiguous."""
    value: Tensor = _GEGLU.apply(x)
    return value


def residual(y: Tensor, x: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """y + x + b, written over y [n, P, C] contiguous, and its sums for `group_norm`; b [C] float32."""
    value: tuple[Tensor, Tensor] = _Residual.apply(y, x, b)
    return value
