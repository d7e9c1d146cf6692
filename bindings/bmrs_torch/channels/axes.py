"""What is known of a tensor while a network is traced: the channels on each axis, and which are surely 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bmrs_torch.channels.labels import Bools, Ints


T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class Axis:
    """The channels along one axis.

    Attributes
    ----------
    labels : ndarray of int64, shape (size,)
        One label for each entry.
    zero : ndarray of bool, shape (size,)
        Entries that are 0 whatever the model's input.
    """

    labels: Ints
    zero: Bools

    @property
    def size(self) -> int:
        """Length of the axis."""
        return int(self.labels.size)

    def moved(self, move: Callable[[NDArray[Any]], NDArray[Any]]) -> Axis:
        """The axis after its entries were selected, repeated or reordered."""
        return Axis(move(self.labels), move(self.zero))


Axes = tuple[Axis | None, ...]
"""For each axis of a tensor its channels, or None where it has none: samples, positions, pixels."""


@dataclass(frozen=True)
class State:
    """What is known of a tensor.

    Attributes
    ----------
    axes : tuple of Axis or None
    dynamic : bool
        Whether its values depend on the model's input.
    """

    axes: Axes
    dynamic: bool


@dataclass(frozen=True)
class Split:
    """An axis of channels that a view divides among several axes: the channels stay on one of these."""

    axis: Axis
    shape: tuple[int, ...]
    kept: int

    def rows(self, values: NDArray[T]) -> NDArray[T]:
        """The entries as a table: one row for each channel that is left, its members in the columns."""
        table = values.reshape(self.shape)
        return np.moveaxis(table, self.kept, 0).reshape(self.shape[self.kept], -1)


def blocks(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[range, range]]:
    """Pair the axes of two shapes of the same number of elements into the smallest blocks of equal size.

    Examples
    --------
    >>> from bmrs_torch.channels.axes import blocks
    >>> [(list(a), list(b)) for a, b in blocks((2, 3, 4), (6, 2, 2))]
    [([0, 1], [0]), ([2], [1, 2])]
    """
    i = j = 0
    while i < len(old) or j < len(new):
        first_i, first_j = i, j
        # An axis of size 1 stays with the block before it unless it stands alone on both sides.
        i, j = min(i + 1, len(old)), min(j + 1, len(new))
        while math.prod(old[first_i:i]) != math.prod(new[first_j:j]):
            if math.prod(old[first_i:i]) < math.prod(new[first_j:j]):
                i += 1
            else:
                j += 1
        yield range(first_i, i), range(first_j, j)


def channel_axis(shape: Sequence[int], last: bool) -> int:
    """Which of the axes that a view makes of one axis of channels is to keep the channels.

    On the last axis of tokens it is the heads: (heads, size) or (3, heads, size). On the channels of images,
    where a view makes (groups, size), it is the positions within a group.
    """
    wide = [i for i, size in enumerate(shape) if size > 1]
    if not wide:
        return 0
    if not last:
        return wide[-1]
    return wide[1] if len(wide) > 2 and shape[wide[0]] == 3 else wide[0]
