"""How channels fare where numbers are only moved: views, permutations, slices, concatenation, padding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from bmrs_torch.channels.axes import Axis, Split, blocks, channel_axis
from bmrs_torch.channels.picking import PICKING
from bmrs_torch.channels.trace import Balance, Call, Reshape, Trace, UnknownUseError

if TYPE_CHECKING:
    from bmrs_torch.channels.labels import Bools

Rule = Callable[[Trace, Call], None]


def same(trace: Trace, call: Call) -> None:
    """The output is the input, copied or not."""
    state = trace.state(call["self"])
    trace.set(call.out, state.axes, state.dynamic)


def like(trace: Trace, call: Call) -> None:
    """The output is new, but made in the shape of a tensor."""
    axes = trace.state(call["self"]).axes
    if call.out.shape == call["self"].shape:
        trace.set(call.out, [a if a is None else trace.axis(a.labels) for a in axes], dynamic=False)
    else:
        trace.set(call.out, (None,) * call.out.ndim, dynamic=False)


def permute(trace: Trace, call: Call) -> None:
    """Axes in another order."""
    x = call["self"]
    order = list(range(x.ndim))
    if call.name == "permute":
        order = [d % x.ndim for d in call["dims"]]
    elif call.name == "t":
        order.reverse()
    elif x.ndim:
        a, b = call["dim0"] % x.ndim, call["dim1"] % x.ndim
        order[a], order[b] = b, a
    state = trace.state(x)
    trace.set(call.out, [state.axes[d] for d in order], state.dynamic)


def view(trace: Trace, call: Call) -> None:
    """The same numbers under another shape."""
    x, out = call["self"], call.out
    state = trace.state(x)
    if x.numel() != out.numel():
        raise UnknownUseError("the same memory is read as numbers of another size")
    if x.numel() == 0:
        trace.pin(state.axes, f"an empty tensor is reshaped {trace.place}")
        return trace.set(out, (None,) * out.ndim, state.dynamic)
    axes: list[Axis | None] = [None] * out.ndim
    for before, after in blocks(x.shape, out.shape):
        labelled = [d for d in before if state.axes[d] is not None and (x.shape[d] > 1 or len(before) == 1)]
        dropped = [d for d in before if state.axes[d] is not None and d not in labelled]
        if len(before) > 1:
            trace.pin(tuple(state.axes[d] for d in dropped), f"a single channel is reshaped {trace.place}")
        if len(labelled) > 1:
            reason = f"several axes of channels are merged {trace.place}"
            trace.pin(tuple(state.axes[d] for d in labelled), reason)
        elif not after:
            gone = tuple(state.axes[d] for d in labelled)
            trace.pin(gone, f"the axis of a single channel is removed {trace.place}")
        elif labelled:
            axis = _merged(
                state.axes[labelled[0]], [x.shape[d] for d in before], list(before).index(labelled[0])
            )
            _divide(trace, axis, after, out, axes, last=before[-1] == x.ndim - 1)
    return trace.set(out, axes, state.dynamic)


def _merged(axis: Axis | None, shape: Sequence[int], position: int) -> Axis:
    assert axis is not None
    inner, outer = math.prod(shape[position + 1 :]), math.prod(shape[:position])
    return axis.moved(lambda values: np.tile(np.repeat(values, inner), outer))


def _divide(
    trace: Trace, axis: Axis, after: range, out: Tensor, axes: list[Axis | None], *, last: bool
) -> None:
    """Lay merged channels out on the axes of a block, on one of them if they can be told apart by it."""
    shape = tuple(out.shape[d] for d in after)
    roots = trace.labels.roots(axis.labels)
    for kept in sorted(range(len(shape)), key=lambda i: shape[i]):
        table = Split(axis, shape, kept).rows(roots)
        if (table == table[:, :1]).all() and (shape[kept] > 1 or axis.size == 1):
            break
    else:
        kept = channel_axis(shape, last)
    split = Split(axis, shape, kept)
    rows = split.rows(axis.labels)
    trace.labels.unite(rows, np.broadcast_to(rows[:, :1], rows.shape))
    zero: Bools = np.logical_and.reduce(split.rows(axis.zero), axis=1)
    axes[after[kept]] = Axis(rows[:, 0].copy(), zero)
    if sum(size > 1 for size in shape) > 1:
        trace.reshapes.append(Reshape(trace.module, split))


def pixel_shuffle(trace: Trace, call: Call) -> None:
    """Blocks of r² channels become one each, of r times as many rows and columns: they go as a whole."""
    x, axes = call["self"], list(trace.state(call["self"]).axes)
    trace.pin(tuple(axes[-2:]), f"pixels are shuffled into them {trace.place}")
    axes[-2:] = None, None
    if axes[-3] is not None:
        rows = axes[-3].labels.reshape(-1, call["upscale_factor"] ** 2)
        trace.labels.unite_rows(rows, f"pixel_shuffle makes one channel of {rows.shape[1]} {trace.place}")
        axes[-3] = Axis(rows[:, 0].copy(), np.logical_and.reduce(axes[-3].zero.reshape(rows.shape), axis=1))
    trace.set(call.out, axes, trace.state(x).dynamic)


def pixel_unshuffle(trace: Trace, call: Call) -> None:
    """The reverse: each channel becomes r² channels."""
    x, axes = call["self"], list(trace.state(call["self"]).axes)
    trace.pin(tuple(axes[-2:]), f"pixels are shuffled out of them {trace.place}")
    axes[-2:] = None, None
    if axes[-3] is not None:
        times = call["downscale_factor"] ** 2
        axes[-3] = axes[-3].moved(lambda values: np.repeat(values, times))
    trace.set(call.out, axes, trace.state(x).dynamic)


def channel_shuffle(trace: Trace, call: Call) -> None:
    """The first channels of all groups, then the second: those at one place in their groups go together."""
    x, axes = call["self"], list(trace.state(call["self"]).axes)
    if axes[1] is not None:
        groups = axes[1].labels.reshape(call["groups"], -1)
        trace.labels.unite_rows(groups.T, f"channel_shuffle takes one of each group in turn {trace.place}")
        axes[1] = axes[1].moved(lambda values: values.reshape(groups.shape).T.ravel())
    trace.set(call.out, axes, trace.state(x).dynamic)


def unsqueeze(trace: Trace, call: Call) -> None:
    """A new axis of size 1."""
    state, out = trace.state(call["self"]), call.out
    axes = list(state.axes)
    axes.insert(call["dim"] % out.ndim, None)
    trace.set(out, axes, state.dynamic)


def squeeze(trace: Trace, call: Call) -> None:
    """Axes of size 1 removed."""
    x = call["self"]
    state = trace.state(x)
    dims = call["dim"]
    chosen = range(x.ndim) if dims is None else [dims] if isinstance(dims, int) else dims
    gone = {d % x.ndim for d in chosen if x.shape[d % x.ndim] == 1} if x.ndim else set()
    trace.pin(tuple(state.axes[d] for d in gone), f"the axis of a single channel is removed {trace.place}")
    trace.set(call.out, [a for d, a in enumerate(state.axes) if d not in gone], state.dynamic)


def expand(trace: Trace, call: Call) -> None:
    """Axes of size 1 repeated, without copies."""
    x, out = call["self"], call.out
    state, new = trace.state(x), out.ndim - x.ndim
    axes: list[Axis | None] = [None] * new
    for d, axis in enumerate(state.axes):
        grown = x.shape[d] != out.shape[new + d]
        if grown:
            trace.pin((axis,), f"a single channel is repeated {trace.place}")
        axes.append(None if grown else axis)
    trace.set(out, axes, state.dynamic)


def repeat(trace: Trace, call: Call) -> None:
    """Axes repeated as a whole."""
    x, out = call["self"], call.out
    state, new = trace.state(x), out.ndim - x.ndim
    times = call["repeats"]
    axes: list[Axis | None] = [None] * new
    for d, axis in enumerate(state.axes):
        number = times[new + d]
        axes.append(axis and axis.moved(lambda values, n=number: np.tile(values, n)))  # type: ignore[misc]
    trace.set(out, axes, state.dynamic)


def take_slice(trace: Trace, call: Call) -> None:
    """A run of entries of an axis."""
    x = call["self"]
    state, axes = trace.state(x), list(trace.state(x).axes)
    d = call["dim"] % x.ndim
    axis = axes[d]
    if axis is not None:
        chosen = slice(call["start"], call["end"], call["step"])
        axes[d] = axis.moved(lambda values: values[chosen])
    trace.set(call.out, axes, state.dynamic)


def select(trace: Trace, call: Call) -> None:
    """One entry of an axis, or each of them apart: its channels are addressed by number."""
    x = call["self"]
    state = trace.state(x)
    d = call["dim"] % x.ndim
    trace.pin((state.axes[d],), f"single channels are picked out {trace.place}")
    for out in call.outputs:
        trace.set(out, [a for i, a in enumerate(state.axes) if i != d], state.dynamic)


def split(trace: Trace, call: Call) -> None:
    """Runs of entries of an axis, each a tensor of its own."""
    x = call["self"]
    state = trace.state(x)
    d = call["dim"] % x.ndim
    axis, start, pieces = state.axes[d], 0, []
    for out in call.outputs:
        axes, stop = list(state.axes), start + out.shape[d]
        if axis is not None:
            axes[d] = axis.moved(lambda values, a=start, b=stop: values[a:b])
            pieces.append(axis.labels[start:stop])
        trace.set(out, axes, state.dynamic)
        start = stop
    if len({piece.size for piece in pieces}) == 1:
        shape = (len(pieces), pieces[0].size)
        trace.balances.append(Balance((tuple(pieces),), f"they are split evenly {trace.place}"))
        assert axis is not None
        trace.reshapes.append(Reshape(trace.module, Split(axis, shape, 1)))


def cat(trace: Trace, call: Call) -> None:
    """Tensors one after another along an axis."""
    # A tensor of one axis without entries is allowed beside any others.
    tensors = [t for t in call["tensors"] if t.numel() or t.ndim == call.out.ndim]
    d = call["dim"] % call.out.ndim
    states = [trace.state(t) for t in tensors]
    axes = [
        _concatenated(trace, [s.axes[i] for s in states], [t.shape[i] for t in tensors])
        if i == d
        else _joined(trace, [s.axes[i] for s in states], size)
        for i, size in enumerate(call.out.shape)
    ]
    trace.set(call.out, axes, any(s.dynamic for s in states))


def stack(trace: Trace, call: Call) -> None:
    """Tensors beside one another along a new axis."""
    states = [trace.state(t) for t in call["tensors"]]
    shape = call["tensors"][0].shape
    axes = [_joined(trace, [s.axes[i] for s in states], size) for i, size in enumerate(shape)]
    axes.insert(call["dim"] % call.out.ndim, None)
    trace.set(call.out, axes, any(s.dynamic for s in states))


def _joined(trace: Trace, parts: Sequence[Axis | None], size: int) -> Axis | None:
    labelled = [axis for axis in parts if axis is not None]
    if not labelled:
        return None
    if len(labelled) < len(parts):
        trace.pin(tuple(labelled), f"they lie beside something without channels {trace.place}")
    zero = np.full(size, len(labelled) == len(parts))
    for axis in labelled:
        trace.labels.unite(labelled[0].labels, axis.labels)
        zero &= axis.zero
    return Axis(labelled[0].labels, zero)


def _concatenated(trace: Trace, parts: Sequence[Axis | None], sizes: Sequence[int]) -> Axis | None:
    if all(axis is None for axis in parts):
        return None
    filled = []
    for axis, size in zip(parts, sizes, strict=True):
        fresh = axis or trace.axis(trace.labels.new(size))
        if axis is None:
            trace.pin((fresh,), f"they come without channels of a layer into a concatenation {trace.place}")
        filled.append(fresh)
    return Axis(np.concatenate([a.labels for a in filled]), np.concatenate([a.zero for a in filled]))


def pad(trace: Trace, call: Call) -> None:
    """Padding at the ends of some axes, the last first."""
    x, out = call["self"], call.out
    state = trace.state(x)
    # Not by the sizes: entries cut off at one end and added at the other leave it as it is.
    ends = call["pad"] if call["pad"] is not None else call["padding"]
    padded = {x.ndim - 1 - i // 2 for i, number in enumerate(ends) if number}
    trace.pin(tuple(state.axes[d] for d in padded), f"they are padded {trace.place}")
    axes = [None if d in padded else a for d, a in enumerate(state.axes)]
    trace.set(out, [a and trace.carried(out, d, a.labels, a.zero) for d, a in enumerate(axes)], state.dynamic)


MOVEMENT: dict[str, Rule] = {
    **dict.fromkeys(
        ("clone", "_to_copy", "detach", "alias", "contiguous", "lift_fresh", "lift_fresh_copy"), same
    ),
    **dict.fromkeys(
        "zeros_like ones_like empty_like full_like rand_like randn_like "
        "new_zeros new_ones new_empty new_full".split(),
        like,
    ),
    **dict.fromkeys(("permute", "transpose", "t"), permute),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias"), view),
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), channel_shuffle),
    "unsqueeze": unsqueeze,
    "squeeze": squeeze,
    "expand": expand,
    "repeat": repeat,
    "slice": take_slice,
    **dict.fromkeys(("select", "unbind"), select),
    **dict.fromkeys(("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "chunk"), split),
    "cat": cat,
    "stack": stack,
    **dict.fromkeys(("constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad2d"), pad),
    **PICKING,
}
