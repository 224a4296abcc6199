"""Weight saliency for some images: gradients of a loss, their k-th largest absolute value, and bit masks.

Everything is done tensor by tensor, so that at Stable Diffusion's size (860 million weights) only one float32 gradient
is in memory: no concatenation, no sort, no index.

    k-th largest   float32 numbers ≥ 0 sort like their bits, so three histograms over 11, 10 and 10 of the bits find it
                   exactly (radix selection)
    mask           one bit per weight, eight in a uint8: 0.11 GB
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, final

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.conditions import Conditions, joined
from resurgence_harness.diffusion.examples import Examples, Noised, noised
from resurgence_harness.diffusion.precision import half_training
from resurgence_harness.diffusion.ranges import at_least
from resurgence_harness.diffusion.training import passes
from resurgence_harness.errors import BuildError, sentence

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from resurgence_harness.diffusion.model import StableDiffusion


@final
@dataclass(frozen=True)
class Denoising:
    """‖ f_θ(x_t, t, c) − y_t ‖²: the ordinary training loss."""

    name: ClassVar[str] = "denoising"
    forwards: ClassVar[int] = 1
    """Rows of a forward pass per image."""

    def errors(self, model: StableDiffusion, seen: Noised, empty: Conditions) -> Tensor:
        """Error of each image [n]; costs 3 forward passes per image, backward pass included."""
        predicted = moves.predict(model, seen.x_t, seen.t, seen.states)
        return moves.noise_errors(model, predicted, seen.aim, seen.t)


@final
@dataclass(frozen=True, kw_only=True)
class Guided:
    """‖ (1 + g) f_θ(x_t, t, c) − g f_θ(x_t, t, c_0) − y_t ‖²: the same for the guided prediction of a sampler."""

    name: ClassVar[str] = "guided"
    forwards: ClassVar[int] = 2
    """Rows of a forward pass per image."""

    guidance: float = 7.5
    """g ≥ 0; the usual guidance scale of samplers is g + 1."""

    def __post_init__(self) -> None:
        """SpecError for a value out of range."""
        at_least("Guided", 0, guidance=self.guidance)

    def errors(self, model: StableDiffusion, seen: Noised, empty: Conditions) -> Tensor:
        """Error of each image [n]; costs 6 forward passes per image, backward pass included."""
        import torch

        both = joined([seen.states, empty.expand(len(seen.t))])
        x_t, t = torch.cat([seen.x_t, seen.x_t]), torch.cat([seen.t, seen.t])
        prompted, nothing = moves.predict(model, x_t, t, both).chunk(2)
        guided = (1 + self.guidance) * prompted - self.guidance * nothing
        return moves.noise_errors(model, guided, seen.aim, seen.t)


def add_gradients(
    method: str,
    model: StableDiffusion,
    data: Examples,
    rows: Tensor,
    *,
    loss: Denoising | Guided,
    batch: int,
    generator: Generator,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Add the gradient of the mean loss over the images `rows` to each parameter's `.grad`, `batch` at a time.

    `after()` is called after each batch, when its whole gradient has been added. BuildError for a loss not finite, and
    for a gradient that float16 cannot hold.
    """
    empty = moves.conditions(model, [""])
    for low in range(0, len(rows), batch):
        seen = noised(model, data, rows[low : low + batch], generator=generator)
        for part in passes(len(seen.t), loss.forwards * seen.x_t[0, 0].numel()):
            value = loss.errors(model, seen.part(part), empty).sum() / len(rows)
            if not value.isfinite():
                raise BuildError(
                    sentence(
                        f"{method}'s saliency is not finite.",
                        loss=value.item(),
                        do="Check the model that it starts from.",
                    )
                )
            value.backward()  # type: ignore[no-untyped-call]
        after()
    half = half_training()
    if half is not None and bool(half.found):  # before a mask of it is stored
        raise BuildError(
            sentence(
                f"A gradient of {method}'s saliency is beyond float16.",
                images=len(rows),
                do='Train it in float32, with arithmetic="float32".',
            )
        )


def sensitivity(
    method: str,
    model: StableDiffusion,
    weights: Mapping[str, Any],
    data: Examples,
    rows: Tensor,
    *,
    loss: Denoising | Guided,
    batch: int,
    generator: Generator,
) -> dict[str, Tensor]:
    """Σ_b |∇L_b| of each of the UNet's `weights`, b the batches of `rows`."""
    import torch

    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}

    def add() -> None:
        for name, weight in weights.items():
            if weight.grad is not None:  # None for a weight that these images do not use
                sums[name] += weight.grad.abs_()
                weight.grad = None

    model.unet.requires_grad_(False)
    for weight in weights.values():
        weight.requires_grad_(True)
    add_gradients(method, model, data, rows, loss=loss, batch=batch, generator=generator, after=add)
    model.unet.requires_grad_(False)
    return sums


def balanced(concepts: Sequence[str], count: int, *, generator: Generator) -> Tensor:
    """`count` rows, balanced over concepts (± 1): concepts alternate, each concept's rows in a random order."""
    import torch

    names = list(dict.fromkeys(concepts))
    own = {name: [row for row, other in enumerate(concepts) if other == name] for name in names}
    order = {name: [own[name][i] for i in torch.randperm(len(own[name]), generator=generator)] for name in names}
    turns = [names[i] for i in torch.randperm(len(names), generator=generator)]
    taken = ((turns[place % len(turns)], place // len(turns)) for place in range(count))
    return torch.tensor([order[name][round_ % len(order[name])] for name, round_ in taken])


class Cut(NamedTuple):
    """The threshold of the k largest of many numbers."""

    value: float
    """The k-th largest."""
    ties: int
    """Number of entries equal to it among the k."""


def kth_largest(scores: Callable[[], Iterable[Tensor]], k: int) -> Cut:
    """The k-th largest of all entries of float32 tensors ≥ 0, 1 ≤ k ≤ their number; `scores()` is iterated three times.

    BuildError for an entry that is NaN or infinite.
    """
    import torch

    prefix, remaining = 0, k
    for shift, width in ((20, 11), (10, 10), (0, 10)):
        counts = torch.zeros(2**width, dtype=torch.int64)
        for score in scores():
            bits = score.detach().contiguous().view(torch.int32).flatten()
            if shift < 20:
                bits = bits[(bits >> (shift + width)) == prefix]
            counts += torch.bincount((bits >> shift) & (2**width - 1), minlength=2**width).cpu()
        if shift == 20 and counts[0x7F8:].any():
            raise BuildError(
                sentence(
                    "A gradient is not finite.",
                    entries=f"{int(counts[0x7F8:].sum()):,} of {int(counts.sum()):,}",
                    do="Check the model that it starts from.",
                )
            )
        above = counts.flip(0).cumsum(0)
        place = int((above < remaining).sum())
        remaining -= int(above[place - 1]) if place else 0
        prefix = (prefix << width) | (2**width - 1 - place)
    return Cut(torch.tensor(prefix, dtype=torch.int32).view(torch.float32).item(), remaining)


def largest(gradients: Mapping[str, Tensor], fraction: float) -> dict[str, Tensor]:
    """Bit masks that are 1 on the `fraction` of all entries with the largest |·|; the first ones among equals."""
    keep = max(1, round(fraction * sum(gradient.numel() for gradient in gradients.values())))
    value, ties = kth_largest(lambda: (gradient.abs() for gradient in gradients.values()), keep)
    bits = {}
    for name, gradient in gradients.items():
        size = gradient.abs().flatten()
        mask = size > value
        if ties:
            equal = size == value
            equal &= equal.cumsum(0) <= ties
            ties -= int(equal.sum())
            mask |= equal
        bits[name] = packed(mask)
    return bits


def packed(mask: Tensor) -> Tensor:
    """A mask of any shape as bits, uint8 [⌈n / 8⌉], the first in the lowest."""
    import torch

    flat = torch.nn.functional.pad(mask.flatten().to(torch.uint8), (0, -mask.numel() % 8)).view(-1, 8)
    return (flat << torch.arange(8, dtype=torch.uint8, device=mask.device)).sum(1, dtype=torch.uint8)


def unpacked(bits: Tensor, shape: Sequence[int]) -> Tensor:
    """Inverse of `packed`: the mask as uint8 0 or 1 of this shape."""
    import torch

    flat = (bits[:, None] >> torch.arange(8, dtype=torch.uint8, device=bits.device)) & 1
    return flat.flatten()[: prod(shape)].view(tuple(shape))


def ones(bits: Iterable[Tensor]) -> int:
    """Number of bits that are 1."""
    return sum(int(unpacked(part, (8 * len(part),)).sum()) for part in bits)
