"""Descent stops at the first loss that is no number, and the order of samples is fair and seeded."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.diffusion.ranges import at_least, positive, whole
from resurgence_harness.diffusion.training import PASS, Losses, batches, descend, fast_products, passes
from resurgence_harness.errors import BuildError, SpecError

pytestmark = pytest.mark.slow


def _ignore(done: int, total: int, loss: float | None) -> None:
    """A listener that does not listen."""


def test_descent_reports_both_ends_and_every_step() -> None:
    """A parabola is descended; progress and `after` are told in order."""
    x = torch.tensor([2.0], requires_grad=True)
    told: list[tuple[int, int, float | None]] = []
    after: list[int] = []

    def losses() -> Iterator[torch.Tensor]:
        while True:
            yield (x**2).sum()

    result = descend(
        "Test",
        torch.optim.SGD([x], lr=0.1),
        losses(),
        steps=3,
        progress=lambda *args: told.append(args),
        after=after.append,
    )

    assert [done for done, _, _ in told] == after == [1, 2, 3]
    assert result == Losses(told[0][2], told[-1][2])  # type: ignore[arg-type]
    assert result.last < result.first == 4.0


def test_a_loss_may_come_in_terms() -> None:
    """Each term's gradient is taken before the next is made; the step and the loss are those of the sum."""
    steps = []
    for parts in (1, 2):
        x = torch.tensor([2.0, -3.0], requires_grad=True)
        held: list[bool] = []

        def terms(x: torch.Tensor = x, held: list[bool] = held) -> Iterator[torch.Tensor]:
            yield (x[0] ** 2) * 0.5
            held.append(x.grad is not None)
            yield x[1] ** 2 - x[0]

        losses: Iterator[torch.Tensor | Iterator[torch.Tensor]]
        losses = iter([(x[0] ** 2) * 0.5 + x[1] ** 2 - x[0]] if parts == 1 else [terms()])
        result = descend("Test", torch.optim.SGD([x], lr=0.1), losses, steps=1, progress=_ignore)
        steps.append((result, x.tolist()))
        assert held == [True] * (parts - 1)

    assert steps[0] == steps[1]


def test_a_term_that_is_no_number_moves_no_weight() -> None:
    """Also where an earlier term was sound."""
    x = torch.tensor([1.0], requires_grad=True)

    with pytest.raises(BuildError, match="diverged at step 1 of 1"):
        descend(
            "ESD",
            torch.optim.SGD([x], lr=0.1),
            iter([iter([(x**2).sum(), (x * math.nan).sum()])]),
            steps=1,
            progress=_ignore,
        )

    assert x.item() == 1.0


@pytest.mark.parametrize(
    ("rows", "side", "sizes"), [(16, 8, [16]), (16, 64, [8, 8]), (9, 64, [8, 1]), (2, 512, [1, 1])]
)
def test_passes_hold_every_row_once(rows: int, side: int, sizes: list[int]) -> None:
    """The microworld's batches go through at once, those of 512 pixels by eight; a row is never divided."""
    found = [list(range(rows))[one] for one in passes(rows, side * side)]

    assert [len(one) for one in found] == sizes
    assert [row for one in found for row in one] == list(range(rows))
    assert side == 512 or max(sizes) * side * side <= PASS


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_build(value: float) -> None:
    """The error names the step, the loss and the last good value, and the bad step moves no weight."""
    x = torch.tensor([1.0], requires_grad=True)

    def losses() -> Iterator[torch.Tensor]:
        yield (x**2).sum()
        yield (x * value).sum()

    with pytest.raises(BuildError) as caught:
        descend("ESD", torch.optim.SGD([x], lr=0.1), losses(), steps=9, progress=_ignore)

    text = str(caught.value)
    assert "ESD's training diverged at step 2 of 9" in text
    assert f"{value}" in text and "1 at step 1" in text
    assert x.item() == pytest.approx(0.8)


def test_gradients_are_clipped_together() -> None:
    """The norm over all parameters is bounded."""
    x = torch.tensor([3.0, 4.0], requires_grad=True)

    descend("Test", torch.optim.SGD([x], lr=1.0), iter([(x**2).sum() / 2]), steps=1, clip=1.0, progress=_ignore)

    torch.testing.assert_close(x.detach(), torch.tensor([2.4, 3.2]), atol=1e-5, rtol=0)


def test_parameter_groups_are_clipped_apart() -> None:
    """A large gradient in one group takes nothing from another's."""
    x, y = torch.tensor([3.0, 4.0], requires_grad=True), torch.tensor([0.5], requires_grad=True)
    sgd = torch.optim.SGD([{"params": [x]}, {"params": [y]}], lr=1.0)

    descend("Test", sgd, iter([((x**2).sum() + (y**2).sum()) / 2]), steps=1, clip=1.0, progress=_ignore)

    torch.testing.assert_close(x.detach(), torch.tensor([2.4, 3.2]), atol=1e-5, rtol=0)
    assert y.item() == 0.0


@pytest.mark.parametrize(("size", "batch"), [(5, 2), (3, 7), (4, 4)])
def test_every_sample_comes_before_any_comes_again(size: int, batch: int) -> None:
    """After k batches no sample was seen two times more often than another; the same seed gives the same order."""

    def taken() -> list[int]:
        order = batches(size, batch, generator=torch.Generator().manual_seed(1))
        return [int(i) for _ in range(10) for i in next(order)]

    rows = taken()
    counts = [rows.count(i) for i in range(size)]

    assert max(counts) - min(counts) <= 1
    assert rows == taken()


def test_ranges_are_worded_with_the_value() -> None:
    """Fractions, booleans, NaN, infinity and values under the bound are refused."""
    whole("X", 1, steps=1)
    at_least("X", 0, scale=0.0)
    positive("X", rate=1e-9)
    for value in (0, 1.5, True):
        with pytest.raises(SpecError, match=f"X.steps must be a whole number of at least 1, got {value}"):
            whole("X", 1, steps=value)  # type: ignore[arg-type]
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(SpecError, match=r"X\.scale must be at least 0"):
            at_least("X", 0, scale=bad)
        with pytest.raises(SpecError, match=r"X\.rate must be above 0"):
            positive("X", rate=bad)


def test_products_are_fast_only_while_it_lasts(model: StableDiffusion) -> None:
    """The process's own choice comes back, after an error too."""
    before = torch.backends.cuda.matmul.allow_tf32
    with pytest.raises(ZeroDivisionError), fast_products(model):
        assert torch.backends.cuda.matmul.allow_tf32
        1 / 0  # noqa: B018
    assert torch.backends.cuda.matmul.allow_tf32 == before
