"""The float16 way is the model's own function: kernels, U-Net and decoder against diffusers' modules in float32.

The kernels run on a CPU under Triton's interpreter. In float32 they must agree with the plain modules to rounding
(`SINGLE`); in float16 the whole may be at most `TIMES` as far from float32 as diffusers' own modules in float16 are.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

pytestmark = pytest.mark.slow
pytest.importorskip("triton")

SINGLE = 5e-6
"""Largest relative distance in float32."""
HALF = 2.0**-10
"""Of what is rounded to float16 once; rounding itself is half of that."""
TIMES = 1.5

few = settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    """The kernels, interpreted (tests/conftest.py); a GPU's are compiled from the same source by benchmarks/half.py."""
    from resurgence_harness.diffusion.half import kernels as found

    return found


def distance(ours: Tensor, theirs: Tensor) -> float:
    """‖ours − theirs‖ / ‖theirs‖, in float64."""
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm().clamp(min=1e-30))


def drawn(seed: int, *shape: int, mean: float = 0.0) -> Tensor:
    """Normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + mean


def bound(dtype: torch.dtype) -> float:
    """What a kernel's result may be off."""
    return SINGLE if dtype == torch.float32 else HALF


dtypes = st.sampled_from([torch.float32, torch.float16])


@few
@given(
    st.integers(0, 99), st.integers(1, 2), st.integers(1, 90), st.integers(1, 80), dtypes, st.booleans(), st.booleans()
)
def test_sums(
    kernels: Any, seed: int, n: int, places: int, channels: int, dtype: torch.dtype, with_y: bool, with_bias: bool
) -> None:
    """What is added in place, and the sums of what is stored, for sizes that fill no block."""
    x, y, bias = (drawn(seed, n, places, channels).to(dtype) for _ in range(2)), None, None
    x, other = x
    y, bias = other if with_y else None, drawn(seed + 1, channels) if with_bias else None
    whole = x.double() + (0 if y is None else y.double()) + (0 if bias is None else bias.double())
    part = kernels.channel_sums(x, y, bias).sum(1)
    assert distance(x, whole) <= bound(dtype)
    assert distance(part[:, 0], x.double().sum(1)) <= SINGLE * places  # terms cancel
    assert distance(part[:, 1], (x.double() ** 2).sum(1)) <= SINGLE


@few
@given(st.integers(0, 99), st.integers(1, 70), st.sampled_from([(8, 0), (12, 24), (40, 8)]), dtypes, st.booleans())
def test_group_norm_of_a_concatenation(
    kernels: Any, seed: int, places: int, widths: tuple[int, int], dtype: torch.dtype, rows: bool
) -> None:
    """Groups that span both parts, a bias for each channel or for each row and channel, a mean that is far from 0."""
    parts = [drawn(seed + k, 2, places, width, mean=3.0 * k).to(dtype) for k, width in enumerate(widths) if width]
    channels = sum(widths)
    bias = drawn(seed + 2, 2, channels) if rows else drawn(seed + 2, channels)
    norm = kernels.Normed(drawn(seed + 3, channels), drawn(seed + 4, channels), 1e-5, 4)
    got = kernels.group_norm([(x, kernels.channel_sums(x)) for x in parts], norm, silu=True, bias=bias)
    whole = torch.cat(parts, 2).double() + (bias[:, None] if rows else bias).double()
    aim = functional.group_norm(whole.transpose(1, 2), 4, norm.weight.double(), norm.bias.double(), 1e-5)
    assert distance(got, functional.silu(aim).transpose(1, 2)) <= 10 * bound(dtype)


@few
@given(st.integers(0, 99), st.integers(1, 40), st.sampled_from([16, 24, 40, 320]), dtypes)
def test_layer_norm(kernels: Any, seed: int, rows: int, channels: int, dtype: torch.dtype) -> None:
    """Of widths that are powers of two, and of those that are not."""
    x, bias = drawn(seed, rows, channels, mean=2.0).to(dtype), drawn(seed + 1, channels)
    norm = kernels.Normed(drawn(seed + 2, channels), drawn(seed + 3, channels), 1e-5, 1)
    aim = functional.layer_norm(
        x.double() + bias.double(), (channels,), norm.weight.double(), norm.bias.double(), norm.eps
    )
    assert distance(kernels.layer_norm(x, norm, bias), aim) <= bound(dtype)


@few
@given(st.integers(0, 99), st.integers(1, 40), st.sampled_from([8, 40, 260]), dtypes)
def test_geglu(kernels: Any, seed: int, rows: int, width: int, dtype: torch.dtype) -> None:
    """The error function's approximation is finer than float16, and nearly as fine as float32."""
    x = 3 * drawn(seed, rows, 2 * width)
    h, gate = x.to(dtype).double().chunk(2, 1)
    assert distance(kernels.geglu(x.to(dtype)), h * functional.gelu(gate)) <= bound(dtype)


@few
@given(st.integers(0, 99), st.integers(1, 5), st.integers(1, 5), st.integers(1, 5), dtypes)
def test_four_phases_are_an_upsampling_convolution(
    kernels: Any, seed: int, height: int, width: int, channels: int, dtype: torch.dtype
) -> None:
    """Nearest 2×, then 3 × 3, borders included."""
    from resurgence_harness.diffusion.half.layers import Activation, Slots

    conv = torch.nn.Conv2d(channels, 3, 3, padding=1)
    slots, x = Slots(dtype), drawn(seed, 2, channels, height, width)
    slots.put_upsampling("up", conv)
    found = slots.upsampling("up", Activation.of(x.to(dtype)))
    with torch.no_grad():
        aim = conv.double()(functional.interpolate(x.to(dtype).double(), scale_factor=2))
    assert distance(found.image, aim) <= 3 * bound(dtype)
    assert distance(found.source[1].sum(1)[:, 1], (found.image.double() ** 2).sum((2, 3))) <= SINGLE


# Whole modules


STYLES: dict[str, dict[str, Any]] = {
    "v1": {"attention_head_dim": 2},
    "v2": {"attention_head_dim": (2, 4), "use_linear_projection": True, "upcast_attention": True},
    "deep": {"attention_head_dim": (2, 3), "use_linear_projection": True, "transformer_layers_per_block": 2},
    "xl": {
        "attention_head_dim": (2, 3),
        "use_linear_projection": True,
        "transformer_layers_per_block": 2,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 6 + 6 * 4,
    },
}
"""SD v1's eight heads a level, v2's heads of equal width and linear projections, SDXL's deeper transformers, and its
pooled text and sizes."""


def small_unet(style: str, seed: int = 0) -> Any:
    """Two levels, with a residual block that has a shortcut and biases and norms that are not 0 and 1."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(16, 24),
            cross_attention_dim=12,
            norm_num_groups=4,
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            **STYLES[style],
        )
        return _shaken(unet)


def small_vae() -> Any:
    """Two levels."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _shaken(
            AutoencoderKL(
                block_out_channels=(8, 16),
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2,
                layers_per_block=1,
                latent_channels=4,
                norm_num_groups=4,
            )
        )


def _shaken(module: Any) -> Any:
    module.eval().requires_grad_(False)
    for name, value in module.named_parameters():
        if value.ndim == 1:
            value.add_((0.3 if name.endswith("bias") else 0.2) * torch.randn_like(value))
    return module


X, STATES, T = drawn(1, 1, 4, 8, 8), drawn(2, 2, 7, 12), 301
FURTHER = {"text_embeds": drawn(4, 2, 6), "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64], [96, 80, 8, 4, 64, 64]])}
"""Pooled text and sizes of the two rows."""


def further_of(unet: Any) -> dict[str, Tensor]:
    """What the U-Net reads besides text states."""
    return FURTHER if unet.config.addition_embed_type else {}


def forward(half: Any, unet: Any) -> Tensor:
    """f_θ of the empty and the prompted row."""
    with torch.no_grad():
        rows = half.added(unet, further_of(unet))
        found: Tensor = half(X, half.times(unet, [T], rows)[0], half.text(STATES))
    return found


@pytest.mark.parametrize("style", STYLES)
def test_the_whole_unet(kernels: Any, style: str) -> None:
    """Exact algebra in float32; in float16 as near as the plain modules are."""
    from resurgence_harness.diffusion.half.unet import HalfUNet, covered

    unet = small_unet(style)
    assert covered(unet)
    further = further_of(unet)
    aim = unet(
        torch.cat([X, X]), T, encoder_hidden_states=STATES, added_cond_kwargs=further or None, return_dict=False
    )[0]
    assert distance(forward(HalfUNet(unet, torch.float32), unet), aim) <= SINGLE
    plain = small_unet(style).half()(
        torch.cat([X, X]).half(),
        T,
        encoder_hidden_states=STATES.half(),
        added_cond_kwargs={name: value.half() for name, value in further.items()} or None,
        return_dict=False,
    )[0]
    assert distance(forward(HalfUNet(unet), unet), aim) <= TIMES * distance(plain, aim)


def test_weights_take_the_place_of_others(kernels: Any) -> None:
    """A → B → A: every slot of B is a fresh B's, and at the same address; then every slot is A's again."""
    from resurgence_harness.diffusion.half.unet import HalfUNet

    first, second = small_unet("v2"), small_unet("v2", seed=1)
    half, fresh = HalfUNet(first), {name: dict(HalfUNet(one).slots) for name, one in (("A", first), ("B", second))}
    places = {name: value.data_ptr() for name, value in half.slots.items()}
    for model, name in ((second, "B"), (first, "A")):
        half.fill(model)
        assert half.slots.keys() == fresh[name].keys() == places.keys()
        assert all(torch.equal(value, fresh[name][slot]) for slot, value in half.slots.items())
    assert places == {name: value.data_ptr() for name, value in half.slots.items()}
    assert not torch.equal(fresh["A"]["in.weight"], fresh["B"]["in.weight"])


def test_the_decoder(kernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact algebra in float32, in parts as at once; in float16 as near as the plain modules are."""
    from resurgence_harness.diffusion.half import decoder

    vae, z = small_vae(), drawn(3, 2, 4, 4, 4)
    assert decoder.covered(vae)
    aim = vae.decode(z, return_dict=False)[0]
    assert distance(decoder.HalfDecoder(vae, torch.float32)(z), aim) <= SINGLE
    half = decoder.HalfDecoder(vae)
    plain = small_vae().half().decode(z.half(), return_dict=False)[0]
    assert distance(half(z), aim) <= TIMES * distance(plain, aim)


def test_configurations_that_are_not_covered() -> None:
    """Another activation, and layers of other kinds: drawn by the plain modules."""
    from resurgence_harness.diffusion.half.unet import covered

    unet = small_unet("v1")
    unet.register_to_config(act_fn="gelu")
    assert not covered(unet)
    unet = small_unet("v1")

    class Wrapped(torch.nn.Linear):
        """As an adapter would be."""

    unet.time_embedding.linear_1 = Wrapped(16, 64)
    assert not covered(unet)


@pytest.mark.parametrize("width", [8, 40])
def test_scores_beyond_the_range_are_not_rounded_to_it(width: int) -> None:
    """As `upcast_attention` requires: scores of 10⁶ are float32's, though float16 ends at 65,504."""
    from resurgence_harness.diffusion.half.layers import attend

    q, k, v = (drawn(seed, 1, 12, 2 * width).half() for seed in (4, 5, 6))
    q, k = 300 * q, 300 * k
    wide = [one.double().view(1, 12, 2, width).transpose(1, 2) for one in (q, k, v)]
    assert float((wide[0] @ wide[1].mT).abs().max()) > 65_504
    aim = functional.scaled_dot_product_attention(*wide).transpose(1, 2).reshape(12, -1)
    assert distance(attend(q, k, v, 2), aim) <= HALF
