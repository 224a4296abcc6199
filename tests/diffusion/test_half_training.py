"""Training in float16 has float32's gradients: kernels, whole U-Nets and adapters, and what ends it when it has not.

The kernels run on a CPU under Triton's interpreter. In float32 values and gradients must agree with the plain modules to
rounding (`SINGLE`); in float16 a gradient may be at most `TIMES` as far from float32's as plain modules under autocast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.attention import watched
from resurgence_harness.diffusion.half.training import KERNELS, PLAIN, half_training
from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.diffusion.training import descend
from resurgence_harness.errors import BuildError
from tests.diffusion.test_half import HALF, SINGLE, TIMES, bound, distance, drawn, dtypes, few, small_unet

pytestmark = pytest.mark.slow
pytest.importorskip("triton")


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
@given(st.integers(0, 99), st.integers(1, 70), st.sampled_from([8, 24, 80]), dtypes, st.booleans(), st.booleans())
def test_group_norm(seed: int, places: int, channels: int, dtype: torch.dtype, silu: bool, moved: bool) -> None:
    """With the time's shift of every channel, the activation, and sizes that fill no block."""
    from resurgence_harness.diffusion.half import training_kernels as kernels

    def aim(x: Tensor, gamma: Tensor, beta: Tensor, e: Tensor) -> Tensor:
        whole = functional.group_norm((x + (e[:, None] if moved else 0 * e[:, None])).mT, 4, gamma, beta, 1e-5).mT
        return functional.silu(whole) if silu else whole

    def ours(x: Tensor, gamma: Tensor, beta: Tensor, e: Tensor) -> Tensor:
        found = kernels.group_norm(x, gamma, beta, groups=4, eps=1e-5, silu=silu, moved=e if moved else None)
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


X, T = drawn(1, 2, 4, 8, 8), torch.tensor([40, 700])
STATES = drawn(2, 2, 7, 12)
STYLES = ("v1", "v2", "deep")


def gradients(unet: Any, way: str, dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    """The prediction, and the gradient of a loss in the text states and every trained weight."""
    trained = [value for value in unet.parameters() if value.requires_grad]
    states = STATES.clone().requires_grad_(True)
    model: Any = type("Model", (), {"unet": unet})
    with half_training("cpu", dtype=dtype, kernels=way == KERNELS) as training:
        predicted = moves.predict(model, X, T, states)
        found = torch.autograd.grad((predicted**2).mean(), [states, *trained])
        assert training.ways == {way} and not training.found
    return predicted.detach(), list(found)


def exact(unet: Any) -> tuple[Tensor, list[Tensor]]:
    """The same by the modules in float32."""
    trained, states = [value for value in unet.parameters() if value.requires_grad], STATES.clone().requires_grad_(True)
    predicted = unet(X, T, encoder_hidden_states=states, return_dict=False)[0]
    return predicted.detach(), list(torch.autograd.grad((predicted**2).mean(), [states, *trained]))


def apart(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """Of all tensors together."""
    return distance(torch.cat([one.flatten() for one in ours]), torch.cat([one.flatten() for one in theirs]))


def adapted(unet: Any, *, decomposed: bool) -> Any:
    """LoRA or DoRA on the attentions' projections, with weights that are not 0."""
    from peft import LoraConfig

    unet.add_adapter(
        LoraConfig(r=3, lora_alpha=6, target_modules=["to_q", "to_k", "to_v", "to_out.0"], use_dora=decomposed)
    )
    for place, (name, value) in enumerate(unet.named_parameters()):
        if "lora_B" in name:
            value.data.copy_(0.1 * drawn(place, *value.shape))
    return unet


@pytest.mark.parametrize("style", STYLES)
def test_every_weights_gradient(style: str) -> None:
    """Exact algebra in float32; in float16 as near as autocast is, tensor by tensor within 2 %."""
    unet = small_unet(style).requires_grad_(True)
    aim, wanted = exact(unet)

    single, ones = gradients(unet, KERNELS, torch.float32)
    assert distance(single, aim) <= SINGLE
    assert all(distance(one, other) <= 20 * SINGLE for one, other in zip(ones, wanted, strict=True))

    half, halves = gradients(unet, KERNELS, torch.float16)
    plain, plains = gradients(unet, PLAIN, torch.float16)
    for value, given in ((half, halves), (plain, plains)):
        assert distance(value, aim) <= 4 * HALF
        assert apart(given, wanted) <= 4 * HALF
    assert apart(halves, wanted) <= TIMES * apart(plains, wanted)
    assert max(distance(one, other) for one, other in zip(halves, wanted, strict=True)) <= 0.02
    assert all(one.dtype == torch.float32 for one in halves)


@pytest.mark.parametrize("decomposed", [False, True], ids=["lora", "dora"])
def test_adapters(decomposed: bool) -> None:
    """Only the adapters are trained; the weights below them are not."""
    unet = adapted(small_unet("v1"), decomposed=decomposed)
    aim, wanted = exact(unet)

    single, ones = gradients(unet, KERNELS, torch.float32)
    half, halves = gradients(unet, KERNELS, torch.float16)

    assert distance(single, aim) <= SINGLE and apart(ones, wanted) <= 20 * SINGLE
    assert distance(half, aim) <= 4 * HALF and apart(halves, wanted) <= 4 * HALF


@pytest.mark.parametrize("way", [KERNELS, PLAIN])
def test_watched_attention(way: str) -> None:
    """MACE's: maps with gradients, and what its LoRAs add to keys and values."""
    unet = small_unet("v1").requires_grad_(False)
    model: Any = type("Model", (), {"unet": unet})
    weights: dict[str, Tensor] = {}

    def added(name: str, c: Tensor) -> Tensor:
        module = unet.get_submodule(name.removeprefix("unet.").removesuffix(".weight"))
        place = weights.setdefault(name, 0.2 * drawn(len(weights), 12, module.out_features)).requires_grad_(True)
        return c @ place

    def loss() -> tuple[Tensor, list[Tensor]]:
        maps: list[Tensor] = []
        with watched(unet, maps.append, added):
            predicted = moves.predict(model, X, T, STATES)
        total = torch.stack([(one[..., 1:3] ** 2).sum() for one in maps]).sum() + (predicted**2).mean()
        return total.detach(), list(torch.autograd.grad(total, list(weights.values())))

    aim, wanted = loss()
    with half_training("cpu", kernels=way == KERNELS) as training:
        total, found = loss()
    assert training.ways == {way}
    assert float(total) == pytest.approx(float(aim), rel=2 * HALF)
    assert apart(found, wanted) <= 4 * HALF


def test_two_passes_before_a_backward_pass() -> None:
    """The second has copies of its own, as a loss of two predictions needs; weights may change in between."""
    unet = small_unet("v1").requires_grad_(True)
    model: Any = type("Model", (), {"unet": unet})

    def loss() -> Tensor:
        first = moves.predict(model, X, T, STATES)
        return ((first - moves.predict(model, X.flip(0), T, STATES)) ** 2).mean()

    wanted = torch.autograd.grad(loss(), list(unet.parameters()))
    with half_training("cpu", kernels=True):
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
    unet = small_unet("v1").requires_grad_(True)
    model: Any = type("Model", (), {"unet": unet})
    wanted = torch.autograd.grad((moves.predict(model, X, T, STATES) ** 2).mean(), list(unet.parameters()))
    with half_training("cpu", kernels=False):
        small = torch.autograd.grad(1e-12 * (moves.predict(model, X, T, STATES) ** 2).mean(), list(unet.parameters()))
    assert apart([1e12 * one for one in small], list(wanted)) <= 4 * HALF


@pytest.mark.parametrize("way", [KERNELS, PLAIN])
def test_a_gradient_beyond_the_range_changes_no_weight_and_ends_the_training(way: str) -> None:
    """The loss is finite and its gradient is not: the update is skipped, and one sentence says what to set."""
    unet = small_unet("v1").requires_grad_(True)
    with torch.no_grad():
        unet.conv_out.weight.mul_(3e3)  # gradients behind it are as much larger
        unet.conv_norm_out.weight.mul_(3e-2)
    model: Any = type("Model", (), {"unet": unet})
    before = [value.detach().clone() for value in unet.parameters()]
    adam = torch.optim.Adam(unet.parameters(), lr=1e-3, fused=True)
    made: list[int] = []

    with half_training("cpu", kernels=way == KERNELS) as training:
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
    with torch.no_grad():
        changed.unet.conv_in.weight.mul_(1e7)
    adam = torch.optim.Adam(changed.unet.parameters(), lr=1e-3, fused=True)
    states = moves.encode_texts(changed, ["a portrait of ada quill"]).expand(2, -1, -1)

    with half_training("cpu", kernels=False), pytest.raises(BuildError, match="diverged at step 1"):
        losses = iter(lambda: (moves.predict(changed, X, T, states) ** 2).mean(), None)
        descend("LoRA", adam, losses, steps=2, progress=lambda *_: None)


def test_a_users_cpu_takes_the_plain_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where Triton's interpreter is switched on; another activation takes them on every device."""
    unet = small_unet("v1")
    model: Any = type("Model", (), {"unet": unet})
    with torch.no_grad():
        for kernels, act in ((None, "silu"), (True, "gelu")):
            unet.register_to_config(act_fn=act)
            with half_training("cpu", kernels=kernels) as training:
                moves.predict(model, X, T, STATES)
            assert training.ways == {PLAIN}
