"""The multiply-adds of an operation, and the axes of channels in proportion to which they shrink."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils.flop_counter import flop_registry

from bmrs_torch.channels.axes import Axis
from bmrs_torch.channels.trace import Call, Trace

if TYPE_CHECKING:
    from bmrs_torch.channels.labels import Ints

__all__ = ["FACTORS", "Count", "Work", "note_work"]

FACTORS = {
    "mm": ("self", "mat2"),
    "bmm": ("self", "mat2"),
    "mv": ("self", "vec"),
    "addmm": ("mat1", "mat2"),
    "baddbmm": ("batch1", "batch2"),
}
"""Names of the two factors of products of matrices."""


@dataclass(frozen=True)
class Count:
    """How many channels an axis has.

    Attributes
    ----------
    labels : ndarray of int64
    groups : int
        More than 1 where they lie in so many groups of equal size and only the places within one count.
    """

    labels: Ints
    groups: int = 1


@dataclass(frozen=True)
class Work:
    """What an operation costs.

    Attributes
    ----------
    macs : int
        Multiply-adds, as torch's counter has them.
    counts : tuple of Count
        Their product is what it is proportional to.
    module : str
        Name of the module whose forward method it is part of.
    """

    macs: int
    counts: tuple[Count, ...]
    module: str


def note_work(
    trace: Trace,
    noted: list[Work],
    call: Call,
    operation: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> None:
    """Add the work of an operation, if it is one whose multiply-adds torch counts."""
    formula = flop_registry.get(operation.overloadpacket)
    if formula is not None:
        macs = formula(*args, **kwargs, out_val=call.out) // 2
        noted.append(Work(macs, tuple(_counts(trace, call)), trace.module))


def _counts(trace: Trace, call: Call) -> list[Count]:
    if call.name in FACTORS:
        first, second = (call[name] for name in FACTORS[call.name])
        return _labelled(*trace.state(first).axes, *trace.state(second).axes[-1:])
    if "weight" in call.given and "transposed" in call.given:
        return _of_convolution(trace, call)
    return []


def _of_convolution(trace: Trace, call: Call) -> list[Count]:
    """Samples, and the first two axes of the weight, the second of which may count the places of a group."""
    weight: Tensor = call["weight"]
    rows, columns = trace.state(weight).axes[:2]
    found = _labelled(trace.state(call["input"]).axes[0], rows)
    grouped = [trace.grouped[name] for name in trace.names_of(weight) if name in trace.grouped]
    if call["groups"] == 1 or not grouped:
        return [*found, *_labelled(columns)]
    labels, groups = grouped[0].labels, grouped[0].groups
    return found if labels.size == groups else [*found, Count(labels, groups)]


def _labelled(*axes: Axis | None) -> list[Count]:
    return [Count(axis.labels) for axis in axes if axis is not None]
