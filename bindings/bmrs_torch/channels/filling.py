"""A tensor that is filled part by part, each with all channels: the modes of a Fourier operator, windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bmrs_torch.channels.trace import Call, Trace, UnknownUseError

if TYPE_CHECKING:
    from bmrs_torch.channels.axes import Axis

__all__ = ["fill"]


def fill(trace: Trace, call: Call) -> None:
    """Tell what is known of a tensor after a slice of it was written to with all its channels.

    Raises
    ------
    UnknownUseError
        If it was written to in another way; nothing is told then.
    """
    target, source = call["self"], call["src"]
    whole, cut = trace.part(target)
    before, written = trace.state(whole).axes, trace.state(source).axes
    if whole is target or source.shape != target.shape or all(axis is None for axis in written):
        raise UnknownUseError("it isn't a slice that is written to with channels")
    others = list(trace.aliases(whole))
    if any(trace.part(other)[0] is not whole for other in others):
        raise UnknownUseError("other tensors share its memory")
    if not all(_fits(whole, target, d, before, written, cut) for d in range(whole.ndim)):
        raise UnknownUseError("only some channels are written to")
    axes: list[Axis | None] = []
    for d, (old, new) in enumerate(zip(before, written, strict=True)):
        if new is not None and old is not None:
            trace.labels.unite(old.labels, new.labels)
        zero = None if new is None else new.zero if old is None else new.zero & old.zero
        axes.append(None if new is None or zero is None else trace.carried(whole, d, new.labels, zero))
    trace.set(whole, axes, dynamic=True)
    for other in others:
        trace.set(other, [a and trace.axis(a.labels) for a in trace.state(other).axes], dynamic=True)
    trace.set(target, written, dynamic=True)


def _fits(
    whole: Tensor,
    target: Tensor,
    d: int,
    before: Sequence[Axis | None],
    written: Sequence[Axis | None],
    cut: frozenset[int],
) -> bool:
    """Whether an axis has channels neither before nor now, or all of them now and before, or constants."""
    if written[d] is None:
        return before[d] is None
    if d in cut:
        return False
    return before[d] is not None or _is_uniform_beside(whole, target, d)


def _is_uniform_beside(whole: Tensor, target: Tensor, axis: int) -> bool:
    """Whether what wasn't written to is the same at each entry of an axis."""
    rest = whole.detach().clone()
    if rest.stride() != whole.stride():
        return False
    offset = target.storage_offset() - whole.storage_offset()
    torch.as_strided(rest, target.shape, target.stride(), offset).zero_()
    # Along the axis the part is whole: it is 0 there, the rest as it was.
    return bool((rest == rest.narrow(axis, 0, 1)).all())
