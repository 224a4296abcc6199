"""c, everything that f_θ(x_t, t, c) reads besides x_t and t: text states, and what a family adds to them.

    states [n, L, d]     text states                          cross-attention reads them
    pooled [n, p]        pooled state of the text             None where the family adds nothing
    sizes  [n, 6]        height and width of the original,    None: the image's own size, uncropped
                         top and left of the crop, height
                         and width of the image, in pixels

A plain tensor of text states stands for conditions without anything added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from torch import Tensor


@final
@dataclass(frozen=True, eq=False)
class Conditions:
    """The conditions of n images, row by row."""

    states: Tensor
    pooled: Tensor | None = None
    sizes: Tensor | None = None

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, rows: Any) -> Conditions:
        """Some of the rows, by a slice, a list or a tensor of indices."""
        return self._each(lambda value: value[rows])

    def expand(self, rows: int) -> Conditions:
        """One row, `rows` times; no memory is copied."""
        return self._each(lambda value: value.expand(rows, *value.shape[1:]))

    def to(self, device: Any) -> Conditions:
        """The same on a device."""
        return self._each(lambda value: value.to(device))

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that there are."""
        return tuple(value for value in (self.states, self.pooled, self.sizes) if value is not None)

    def of(self, tensors: Sequence[Tensor]) -> Conditions:
        """Conditions of the same kind from other tensors, in the order of `tensors`."""
        rest: Iterator[Tensor] = iter(tensors)
        return self._each(lambda _: next(rest))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Conditions:
        return Conditions(
            change(self.states),
            None if self.pooled is None else change(self.pooled),
            None if self.sizes is None else change(self.sizes),
        )


def conditions_of(given: Conditions | Tensor) -> Conditions:
    """The conditions, from them or from text states alone."""
    return given if isinstance(given, Conditions) else Conditions(given)


def joined(parts: Sequence[Any]) -> Any:
    """Tensors or conditions one after the other; all are of one kind."""
    import torch

    if not isinstance(parts[0], Conditions):
        return torch.cat(list(parts))
    columns = zip(*(part.tensors() for part in parts), strict=True)
    return parts[0].of([torch.cat(column) for column in columns])
