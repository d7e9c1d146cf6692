"""How channels fare where entries are picked or reordered: by their order, by their values, by positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bmrs_torch.channels.axes import Axis
from bmrs_torch.channels.trace import Call, Trace, UnknownUseError, give_up

Rule = Callable[[Trace, Call], None]


def along(*names: str) -> Rule:
    """Make a rule for what reorders or mixes entries along the axes in these arguments only.

    After a sort along the channels the entries at one position are no longer of one channel, and on another
    input they are of others: these channels stay, and what comes out has none on that axis.
    """

    def rule(trace: Trace, call: Call) -> None:
        state = trace.state(call["self"])
        dims = _dims(call, names, call["self"].ndim)
        reason = f"{call.name} goes over them {trace.place}"
        if "softmax" in call.name:
            reason += ", so removing one changes the others; sigmoid in its place would let them go"
        trace.pin(tuple(state.axes[d] for d in dims), reason)
        for tensor in call.outputs:
            axes = [None if d in dims else a for d, a in enumerate(state.axes)]
            checked = [a and trace.carried(tensor, d, a.labels, a.zero) for d, a in enumerate(axes)]
            trace.set(tensor, checked, state.dynamic)

    return rule


def _dims(call: Call, names: Sequence[str], ndim: int) -> set[int]:
    dims: set[int] = set()
    for name in names:
        given: Any = call[name]
        dims |= {d % ndim for d in ([given] if isinstance(given, int) else given)}
    return dims


def roll(trace: Trace, call: Call) -> None:
    """Entries moved round along some axes, or along all of them as if they were one."""
    if not call["dims"]:
        raise UnknownUseError("without dims it goes over all axes as if they were one")
    along("dims")(trace, call)


def index(trace: Trace, call: Call) -> None:
    """Entries picked by tensors of positions or by masks; axes that are not indexed keep their channels."""
    x, out, positions = call["self"], call.out, call["indices"]
    state, used = trace.state(x), _indexed(positions)
    trace.pin(tuple(state.axes[d] for d in used), f"they are picked by their positions {trace.place}")
    dynamic = any(trace.state(t).dynamic for t in call.tensors)
    given = [p for p in positions if p is not None]
    if used != list(range(used[0], used[0] + len(used))):
        raise UnknownUseError("they are picked by positions on several axes")
    added = _positions(trace, given, out.ndim - (x.ndim - len(used)))
    trace.set(out, (*state.axes[: used[0]], *added, *state.axes[used[-1] + 1 :]), dynamic)


def _indexed(positions: Sequence[Tensor | None]) -> list[int]:
    """The axes that are indexed: a mask takes as many as it has, positions one, a blank passes one by."""
    used: list[int] = []
    d = 0
    for given in positions:
        width = given.ndim if given is not None and given.dtype in (torch.bool, torch.uint8) else 1
        if given is not None:
            used += range(d, d + width)
        d += width
    return used


def _positions(trace: Trace, given: Sequence[Tensor], number: int) -> list[Axis | None]:
    """The axes that come in the place of those that are indexed: those of the positions."""
    if len(given) == 1 and given[0].ndim == number and given[0].dtype not in (torch.bool, torch.uint8):
        return [a and trace.axis(a.labels) for a in trace.state(given[0]).axes]
    for tensor in given:
        trace.pin_tensor(tensor, f"they are used as positions {trace.place}")
    return [None] * number


def index_select(trace: Trace, call: Call) -> None:
    """Entries of one axis picked by position."""
    x = call["self"]
    state, d = trace.state(x), call["dim"] % x.ndim
    trace.pin((state.axes[d],), f"they are picked by their positions {trace.place}")
    axes = list(state.axes)
    axes[d : d + 1] = _positions(trace, [call["index"]], 1)
    trace.set(call.out, axes, any(trace.state(t).dynamic for t in call.tensors))


def gather(trace: Trace, call: Call) -> None:
    """Entries of one axis picked by position, at each place of the other axes by positions of its own."""
    x, positions, out = call["self"], call["index"], call.out
    state, own = trace.state(x), trace.state(positions)
    d = call["dim"] % x.ndim
    trace.pin((state.axes[d],), f"they are picked by their positions {trace.place}")
    picked = own.axes[d]
    axes = [
        (picked and trace.axis(picked.labels)) if i == d else _beside(trace, x, positions, i)
        for i in range(x.ndim)
    ]
    checked = [a and trace.carried(out, i, a.labels, a.zero) for i, a in enumerate(axes)]
    trace.set(out, checked, state.dynamic or own.dynamic)


def _beside(trace: Trace, x: Tensor, positions: Tensor, axis: int) -> Axis | None:
    """The channels of an axis on which each entry has its own positions."""
    ours, theirs = trace.state(x).axes[axis], trace.state(positions).axes[axis]
    if ours is None and theirs is None:
        return None
    if ours is not None and x.shape[axis] == positions.shape[axis]:
        if theirs is not None:
            trace.labels.unite(ours.labels, theirs.labels)
            return ours
        # Positions repeated for each channel, by expand, will be so for those that are left.
        if positions.stride(axis) == 0:
            return ours
    trace.pin((ours, theirs), f"they meet positions without channels {trace.place}")
    return None


def embedding(trace: Trace, call: Call) -> None:
    """Rows of a table, picked by number."""
    rows, columns = trace.state(call["weight"]).axes
    trace.pin((rows,), "they are rows of an embedding")
    places = [a and trace.axis(a.labels) for a in trace.state(call["indices"]).axes]
    trace.set(call.out, (*places, columns), dynamic=True)


def singly(trace: Trace, call: Call) -> None:
    """Single entries, wherever they are: no axis of what comes in keeps its channels."""
    give_up(trace, call, f"{call.name} picks single entries of them {trace.place}")


def read(trace: Trace, call: Call) -> None:
    """Values that the model's own code looks at."""
    give_up(trace, call, f"the model's own code looks at their values {trace.place}")


PICKING: dict[str, Rule] = {
    "flip": along("dims"),
    "roll": roll,
    **dict.fromkeys(("_fft_r2c", "_fft_c2r", "_fft_c2c"), along("dim")),
    **dict.fromkeys("_softmax _safe_softmax _log_softmax".split(), along("dim")),
    **dict.fromkeys("cumsum cumprod logcumsumexp cummax cummin sort topk".split(), along("dim")),
    "index": index,
    "index_select": index_select,
    "gather": gather,
    "embedding": embedding,
    **dict.fromkeys(
        "scatter scatter_add scatter_reduce index_put _index_put_impl index_add index_copy index_fill "
        "index_reduce masked_scatter masked_select take put nonzero _unique2 unique_dim unique_consecutive "
        "searchsorted bucketize bincount histc".split(),
        singly,
    ),
    **dict.fromkeys(("equal", "_local_scalar_dense", "is_nonzero"), read),
}
