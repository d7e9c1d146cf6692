"""Tensors that share memory: whether they meet, and along which axes they have the same entries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["is_uniform_beside", "meet", "same_axes", "same_layout", "within"]

_MOST_ENTRIES = 1 << 24
"""Of memory that is looked through entry by entry; tensors that lie further apart are taken to meet."""


def same_layout(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors in the same memory are the same."""
    return _layout(first) == _layout(second)


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.storage_offset()


def meet(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors in the same memory have an entry in common; the pieces of a split have none."""
    (a, b), (c, d) = _range(first), _range(second)
    if b <= c or d <= a:
        return False
    start, stop = min(a, c), max(b, d)
    if stop - start > _MOST_ENTRIES:
        return True
    taken = np.zeros(stop - start, dtype=np.bool_)
    _view(taken, first, start)[...] = True
    return bool(_view(taken, second, start).any())


def within(part: Tensor, whole: Tensor) -> bool:
    """Whether a tensor lies among the entries of another in the same memory."""
    (a, b), (c, d) = _range(part), _range(whole)
    return c <= a and b <= d


def _range(tensor: Tensor) -> tuple[int, int]:
    """The entries of memory that a tensor lies among: the first, and behind the last."""
    if not tensor.numel():
        return 0, 0
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    first = int(tensor.storage_offset())
    return first, first + sum((int(n) - 1) * int(step) for n, step in steps) + 1


def _view(memory: NDArray[np.bool_], tensor: Tensor, start: int) -> NDArray[np.bool_]:
    own = memory[tensor.storage_offset() - start :]
    return np.lib.stride_tricks.as_strided(own, tuple(tensor.shape), tensor.stride())


def same_axes(part: Tensor, whole: Tensor) -> Iterator[tuple[int, int]]:
    """Pairs of axes, of a tensor and of one that it is a part of, along which they have the same entries.

    Counted from the beginning of the whole, entry i of an axis of n entries s apart is where ⌊m / s⌋ mod n is
    i, for all places m of the whole; if that is so for those of the part too, the two axes are the same.
    """
    apart = part.storage_offset() - whole.storage_offset()
    for i, (size, stride) in enumerate(zip(part.shape, part.stride(), strict=True)):
        for j in range(whole.ndim):
            if size == whole.shape[j] == 1:
                if i - part.ndim == j - whole.ndim:  # of several, the one at the same place
                    yield i, j
            elif (size, stride) == (whole.shape[j], whole.stride(j)):
                own, inner = _inner(part, i), _inner(whole, j)
                if own is not None and inner is not None and apart % (size * stride) + own < stride:
                    yield i, j


def _inner(tensor: Tensor, axis: int) -> int | None:
    """How far entries of one place on an axis and outer axes lie apart, None if other axes cross it."""
    size, stride, extent = tensor.shape[axis], tensor.stride(axis), 0
    for d, (n, step) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if d == axis or n == 1 or step % (size * stride) == 0:
            continue
        if step > stride:
            return None
        extent += (n - 1) * step
    return extent if extent < stride else None


def is_uniform_beside(part: Tensor, whole: Tensor, axis: int) -> bool:
    """Whether a tensor, but for a part of it, has the same numbers at all entries of an axis."""
    if not whole.is_contiguous():
        return False
    rest = whole.clone()
    rest.as_strided(part.shape, part.stride(), part.storage_offset() - whole.storage_offset()).zero_()
    return bool((rest == rest.narrow(axis, 0, 1)).all())
