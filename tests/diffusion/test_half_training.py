"""Training in float16 has float32's gradients: kernels, whole U-Nets and adapters, and what ends it when it has not.

The kernels run on a CPU under Triton's interpreter. In float32 values and gradients must agree with the plain modules
to rounding (`SINGLE`); in float16 a gradient may be at most `TIMES` as far from float32's as autocast's is.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.attention import watched
from resurgence_harness.diffusion.conditions import Conditions
from resurgence_harness.diffusion.families import SD, SDXL
from resurgence_harness.diffusion.half.training import KERNELS, PLAIN, half_training
from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.diffusion.training import descend
from resurgence_harness.errors import BuildError
from tests.diffusion.test_half import HALF, SINGLE, STYLES, TIMES, _shaken, bound, distance, drawn, dtypes, further_of

pytestmark = pytest.mark.slow
pytest.importorskip("triton")

few = settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
"""The interpreter takes milliseconds for each block of each kernel."""


def check(
    dtype: torch.dtype, ours: Callable[..., Any], theirs: Callable[..., Any], halves: list[Tensor], wholes: list[Tensor]
) -> None:
    """Values and gradients, against float64; `halves` have the activations' dtype, `wholes` are float32."""
    given = [value.to(dtype) for value in halves] + wholes
    aims = [value.double().requires_grad_(True) for value in given]
    wanted = theirs(*aims)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    backs = [drawn(90 + place, *value.shape).to(dtype) for place, value in enumerate(wanted)]
    gradients = torch.autograd.grad(wanted, aims, [back.double() for back in backs])

    leaves = [value.clone().requires_grad_(True) for value in given]
    copies = [value * 1 for value in leaves]  # some are written over, which leaves cannot be
    found = ours(*copies)
    found = (found if isinstance(found, tuple) else (found,))[: len(wanted)]
    own = torch.autograd.grad(found, leaves, backs)

    for value, aim in zip((*found, *own), (*wanted, *gradients), strict=True):
        assert distance(value.detach(), aim.detach()) <= 6 * bound(dtype)


@few
@given(st.integers(0, 99), st.integers(1, 70), st.sampled_from([8, 24]), dtypes, st.booleans(), st.booleans())
def test_group_norm(seed: int, places: int, channels: int, dtype: torch.dtype, silu: bool, moved: bool) -> None:
    """With the time's shift of every channel, the activation, and sizes that fill no block."""
    from resurgence_harness.diffusion.half import training_kernels as kernels

    def aim(x: Tensor, gamma: Tensor, beta: Tensor, e: Tensor) -> Tensor:
        whole = functional.group_norm((x + (e[:, None] if moved else 0 * e[:, None])).mT, 2, gamma, beta, 1e-5).mT
        return functional.silu(whole) if silu else whole

    def ours(x: Tensor, gamma: Tensor, beta: Tensor, e: Tensor) -> Tensor:
        found = kernels.group_norm(x, gamma, beta, groups=2, eps=1e-5, silu=silu, moved=e if moved else None)
        return found if moved else found + 0 * e.sum().to(found.dtype)

    wholes = [drawn(seed + 1, channels), drawn(seed + 2, channels), drawn(seed + 3, 2, channels)]
    check(dtype, ours, aim, [drawn(seed, 2, places + 1, channels, mean=0.5)], wholes)


@few
@given(st.integers(0, 99), st.integers(1, 40), st.sampled_from([16, 40, 80]), dtypes)
def test_layer_norm(seed: int, rows: int, channels: int, dtype: torch.dtype) -> None:
    """Alone, and of a sum whose gradient comes from the norm and from what follows."""
    from resurgence_harness.diffusion.half import training_kernels as kernels

    gamma, beta, b = (drawn(seed + place, channels) for place in (1, 2, 3))

    def norm(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return functional.layer_norm(x, (channels,), gamma, beta, 1e-5)

    def of_sum(y: Tensor, x: Tensor, b: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        return y + x + b, norm(y + x + b, gamma, beta)

    x, y = drawn(seed, rows, channels, mean=1.0), drawn(seed + 4, rows, channels)
    check(dtype, lambda *given: kernels.layer_norm(*given, 1e-5), norm, [x], [gamma, beta])
    check(dtype, lambda *given: kernels.add_layer_norm(*given, 1e-5), of_sum, [y, x], [b, gamma, beta])


@few
@given(st.integers(0, 99), st.integers(1, 40), st.sampled_from([8, 40, 260]), dtypes)
def test_geglu_and_residual(seed: int, rows: int, width: int, dtype: torch.dtype) -> None:
    """Values and gradients; the residual's sums are those of what it stores."""
    from resurgence_harness.diffusion.half import training_kernels as kernels

    def aim(x: Tensor) -> Tensor:
        h, gate = x.chunk(2, -1)
        return h * functional.gelu(gate)

    check(dtype, kernels.geglu, aim, [2 * drawn(seed, rows, 2 * width)], [])
    y, x, b = drawn(seed, 2, rows, width), drawn(seed + 1, 2, rows, width), drawn(seed + 2, width)
    check(dtype, kernels.residual, lambda y, x, b: y + x + b, [y, x], [b])
    stored, part = kernels.residual(y.to(dtype), x.to(dtype), b)
    assert distance(part.sum(1)[:, 1], (stored.double() ** 2).sum(1)) <= SINGLE


# Whole U-Nets


X, T = drawn(1, 2, 4, 4, 4), torch.tensor([40, 700])
STATES = drawn(2, 2, 5, 12)


def model_of(unet: Any) -> Any:
    """A model that has a U-Net alone."""
    return type("Model", (), {"unet": unet, "family": SDXL if unet.config.addition_embed_type else SD})


def conditions(unet: Any, states: Tensor) -> Conditions:
    """Text states, and what else this U-Net reads."""
    further = {name: value[: len(states)] for name, value in further_of(unet).items()}
    return Conditions(states, further.get("text_embeds"), further.get("time_ids"))


def tiny_unet(style: str = "v1") -> Any:
    """Two levels, two groups in a norm; biases and norms are not 0 and 1."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=4,
            block_out_channels=(16, 24),
            cross_attention_dim=12,
            norm_num_groups=2,
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            **STYLES[style],
        )
        return _shaken(unet)


def gradients(unet: Any, *, rows: int = 2, watching: bool = False) -> tuple[Tensor, list[Tensor]]:
    """The prediction, and the gradient of a loss in the text states, every trained weight and, `watching`, as MACE's.

    There the maps of cross-attention are in the loss, and weights of their own add to its keys and values.
    """
    trained = [value for value in unet.parameters() if value.requires_grad]
    states, maps, own = STATES[:rows].clone().requires_grad_(True), list[Tensor](), dict[str, Tensor]()
    model: Any = model_of(unet)

    def added(name: str, c: Tensor) -> Tensor:
        module = unet.get_submodule(name.removeprefix("unet.").removesuffix(".weight"))
        seed = sum(name.encode())  # layers are not read in the same order
        own[name] = (0.2 * drawn(seed, 12, module.out_features)).requires_grad_(True)
        return c @ own[name]

    with watched(unet, maps.append, added) if watching else nullcontext():
        predicted = moves.predict(model, X[:rows], T[:rows], conditions(unet, states))
    assert len(maps) == (4 if watching else 0)
    loss = (predicted**2).mean() + sum((one[..., 1:3] ** 2).sum() for one in maps)
    return predicted.detach(), list(torch.autograd.grad(loss, [states, *trained, *(own[name] for name in sorted(own))]))


def in_half(unet: Any, way: str, dtype: torch.dtype, **options: Any) -> tuple[Tensor, list[Tensor]]:
    """The same within a training in float16, or in another dtype by its kernels."""
    with half_training("cpu", dtype=dtype, kernels=way == KERNELS) as training:
        found = gradients(unet, **options)
    assert training.ways == {way} and not training.found
    return found


def apart(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """Of all tensors together."""
    return distance(torch.cat([one.flatten() for one in ours]), torch.cat([one.flatten() for one in theirs]))


@pytest.mark.parametrize("style", ["v2", "xl"])
def test_every_weights_gradient_in_float32(style: str) -> None:
    """Exact algebra, of SD 2's heads and linear projections, and of SDXL's further conditions."""
    unet = tiny_unet(style).requires_grad_(True)
    aim, wanted = gradients(unet, rows=1)

    found, gradient = in_half(unet, KERNELS, torch.float32, rows=1)

    assert distance(found, aim) <= SINGLE
    assert all(distance(one, other) <= 20 * SINGLE for one, other in zip(gradient, wanted, strict=True))


def test_every_weights_gradient_in_float16() -> None:
    """As near to float32 as autocast is; tensor by tensor within 2 %. SD 1's heads, cross-attention watched."""
    unet = tiny_unet("v1").requires_grad_(True)
    aim, wanted = gradients(unet, watching=True)

    half, halves = in_half(unet, KERNELS, torch.float16, watching=True)
    plain, plains = in_half(unet, PLAIN, torch.float16, watching=True)

    for value, gradient in ((half, halves), (plain, plains)):
        assert distance(value, aim) <= 4 * HALF
        assert apart(gradient, wanted) <= 4 * HALF
    assert apart(halves, wanted) <= TIMES * apart(plains, wanted)
    assert max(distance(one, other) for one, other in zip(halves, wanted, strict=True)) <= 0.02
    assert all(one.dtype == torch.float32 for one in halves)


@pytest.mark.parametrize("decomposed", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_adapters(dtype: torch.dtype, decomposed: bool) -> None:
    """Queries, keys and values of one attention as one product, and its output, with the adapters' gradients."""
    from peft import LoraConfig

    from resurgence_harness.diffusion.half.training_forward import Forward, fits

    unet = tiny_unet("v1")
    names = ["to_q", "to_k", "to_v", "to_out.0"]
    unet.add_adapter(LoraConfig(r=3, lora_alpha=6, target_modules=names, use_dora=decomposed))
    assert fits(unet)
    attention = unet.mid_block.attentions[0].transformer_blocks[0].attn1
    layers = [attention.to_q, attention.to_k, attention.to_v, attention.to_out[0]]
    for place, layer in enumerate(layers):
        layer.lora_B["default"].weight.data.copy_(0.1 * drawn(place, *layer.lora_B["default"].weight.shape))
    trained = [value for layer in layers for value in layer.parameters() if value.requires_grad]
    rows = drawn(3, 6, 24).requires_grad_(True)

    def seen(parts: Any) -> tuple[Tensor, list[Tensor]]:
        whole = torch.cat([part.float() for part in parts], 1)
        return whole.detach(), list(torch.autograd.grad((whole**2).sum(), [rows, *trained]))

    aim, wanted = seen([layer(rows) for layer in layers])
    forward, x = Forward(unet, lambda value: value if value.ndim == 1 else value.to(dtype), dtype), rows.to(dtype)
    found, gradient = seen([*forward._together(x, *layers[:3]), forward._linear(x, layers[3])])

    assert len(trained) == (12 if decomposed else 8)
    assert distance(found, aim) <= bound(dtype) and apart(gradient, wanted) <= 2 * bound(dtype)


def test_two_passes_before_a_backward_pass() -> None:
    """The second has copies of its own, as a loss of two predictions needs; weights may change in between."""
    unet = tiny_unet("v1").requires_grad_(True)
    model: Any = model_of(unet)

    def loss() -> Tensor:
        first = moves.predict(model, X, T, STATES)
        return ((first - moves.predict(model, X.flip(0), T, STATES)) ** 2).mean()

    wanted = torch.autograd.grad(loss(), list(unet.parameters()))
    with half_training("cpu", kernels=False):
        found = torch.autograd.grad(loss(), list(unet.parameters()))
        with torch.no_grad():
            before = moves.predict(model, X, T, STATES)
            unet.conv_out.bias.add_(1.0)
            after = moves.predict(model, X, T, STATES)
    assert apart(list(found), list(wanted)) <= 4 * HALF
    assert distance(after - before, torch.ones_like(after)) <= 4 * HALF


# Ends


def test_a_small_gradient_is_not_lost() -> None:
    """A loss of 1e-12, whose gradients are far below float16's smallest number."""
    unet = tiny_unet("v1").requires_grad_(True)
    model: Any = model_of(unet)
    wanted = torch.autograd.grad((moves.predict(model, X, T, STATES) ** 2).mean(), list(unet.parameters()))
    with half_training("cpu", kernels=False):
        small = torch.autograd.grad(1e-12 * (moves.predict(model, X, T, STATES) ** 2).mean(), list(unet.parameters()))
    assert apart([1e12 * one for one in small], list(wanted)) <= 4 * HALF


def test_a_gradient_beyond_the_range_changes_no_weight_and_ends_the_training() -> None:
    """The loss is finite and its gradient is not: the update is skipped, and one sentence says what to set."""
    unet = tiny_unet("v1").requires_grad_(True)
    with torch.no_grad():
        unet.conv_out.weight.mul_(3e5)  # gradients behind it are as much larger
        for value in unet.conv_norm_out.parameters():
            value.mul_(3e-4)
    model: Any = model_of(unet)
    before = [value.detach().clone() for value in unet.parameters()]
    adam = torch.optim.Adam(unet.parameters(), lr=1e-3, fused=True)
    made: list[int] = []

    with half_training("cpu", kernels=False) as training:
        losses = iter(lambda: (moves.predict(model, X, T, STATES) ** 2).mean(), None)
        with pytest.raises(BuildError, match="beyond float16 at step 1 of 3") as problem:
            descend("ESD", adam, losses, steps=3, progress=lambda done, *_: made.append(done))
        assert training.found

    assert 'arithmetic="float32"' in str(problem.value) and "loss" in str(problem.value)
    assert made == []
    assert all(torch.equal(one, other) for one, other in zip(unet.parameters(), before, strict=True))


def test_a_weight_beyond_the_range_ends_the_training(model: StableDiffusion) -> None:
    """Its copy is infinite, so the loss is not finite: a divergence, as in float32, not a silent other arithmetic."""
    changed = model.copy()
    changed.unet.requires_grad_(True)
    x = drawn(1, 2, 4, 8, 8)
    with torch.no_grad():
        changed.unet.conv_in.weight.mul_(1e7)
    adam = torch.optim.Adam(changed.unet.parameters(), lr=1e-3, fused=True)
    states = moves.encode_texts(changed, ["a portrait of ada quill"]).expand(2, -1, -1)

    with half_training("cpu", kernels=False), pytest.raises(BuildError, match="diverged at step 1"):
        losses = iter(lambda: (moves.predict(changed, x, T, states) ** 2).mean(), None)
        descend("LoRA", adam, losses, steps=2, progress=lambda *_: None)


def test_a_users_cpu_takes_the_plain_modules() -> None:
    """Even where Triton's interpreter is switched on; another activation takes them on every device."""
    unet = tiny_unet("v1")
    model: Any = model_of(unet)
    with torch.no_grad():
        for kernels, act in ((None, "silu"), (True, "gelu")):
            unet.register_to_config(act_fn=act)
            with half_training("cpu", kernels=kernels) as training:
                moves.predict(model, X, T, STATES)
            assert training.ways == {PLAIN}
