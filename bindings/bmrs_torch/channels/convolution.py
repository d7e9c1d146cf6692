"""How channels fare in convolutions, and in sums of products of any kind."""

from __future__ import annotations

import numpy as np

from bmrs_torch.channels.axes import Axis, Split
from bmrs_torch.channels.trace import Balance, Call, Grouped, Reshape, Trace, Use

__all__ = ["contract", "convolution"]


def contract(trace: Trace, first: Axis | None, second: Axis | None) -> None:
    """A sum of products over two axes."""
    if first is None and second is None:
        return
    if first is None or second is None:
        trace.pin((first, second), f"what they are multiplied with has no channels {trace.place}")
        return
    trace.labels.unite(first.labels, second.labels)
    trace.uses.append(Use(first.labels, first.zero | second.zero, trace.module))


def convolution(trace: Trace, call: Call) -> None:
    """A convolution: a sum over its input channels, each output channel its own."""
    x, weight, bias = call["input"], call["weight"], call["bias"]
    state, (rows, columns) = trace.state(x), trace.state(weight).axes[:2]
    trace.pin(trace.state(weight).axes[2:], "they are positions of a convolution's kernel")
    trace.pin(state.axes[2:], f"a convolution goes over them {trace.place}")
    if call["groups"] == 1:
        if call["transposed"]:
            rows, columns = columns, rows
        contract(trace, state.axes[1], columns)
        out_axis = rows and trace.axis(rows.labels)
    else:
        out_axis = _grouped(trace, call, state.axes[1], rows, columns)
    if bias is not None:
        own = trace.state(bias).axes[0]
        if out_axis is None or own is None:
            trace.pin((out_axis, own), f"the bias of a convolution has no channels {trace.place}")
        else:
            trace.labels.unite(out_axis.labels, own.labels)
    if out_axis is not None:
        out_axis = trace.carried(call.out, 1, out_axis.labels, out_axis.zero)
    trace.set(call.out, (state.axes[0], out_axis, *(None,) * (x.ndim - 2)), state.dynamic)


def _grouped(
    trace: Trace, call: Call, channels: Axis | None, rows: Axis | None, columns: Axis | None
) -> Axis | None:
    """Each group by itself: as many channels stay in every group that stays, and a whole group can go."""
    weight, groups = call["weight"], call["groups"]
    names = trace.names_of(weight)
    if not names and None not in (channels, rows, columns) and weight.shape[1] > 1 and not call["transposed"]:
        return _batched(trace, groups, channels, rows, columns)  # type: ignore[arg-type]
    reason = f"a grouped convolution has weights that can't be cut {trace.place}"
    if channels is None or rows is None or (weight.shape[1] > 1 and not names):
        trace.pin((channels, rows, columns), reason)
        return None
    trace.pin((columns,), "a grouped convolution has them in every group")
    outputs = trace.axis(trace.labels.new(weight.shape[1] * groups)) if call["transposed"] else rows
    if call["transposed"]:
        trace.labels.unite(rows.labels, channels.labels)
    inside = outputs.labels if call["transposed"] else channels.labels
    for name in names:
        trace.labels.unite(trace.grouped.setdefault(name, Grouped(inside, groups)).labels, inside)
    each, pieces = outputs.size // groups, np.split(channels.labels, groups)
    zero = np.repeat(channels.zero.reshape(groups, -1).all(axis=1), each)
    if channels.size == groups:  # depthwise, with one or several outputs for each channel
        trace.labels.unite(np.repeat(channels.labels, each), outputs.labels)
        trace.reshapes.append(Reshape(trace.module, Split(channels, (groups, 1), 0)))
    else:
        reason = f"a grouped convolution has to keep as many in every group that it keeps ({trace.module!r})"
        both = (tuple(pieces), tuple(np.split(outputs.labels, groups)))
        trace.balances.append(Balance(both, reason, whole=True))
        trace.uses.append(Use(channels.labels, channels.zero, trace.module))
    return Axis(outputs.labels, zero)


def _batched(trace: Trace, groups: int, channels: Axis, rows: Axis, columns: Axis) -> Axis:
    """A group for each sample, with weights that are computed: all groups have the same channels."""
    inputs = np.tile(columns.labels, groups)
    trace.labels.unite(channels.labels, inputs)
    trace.uses.append(Use(inputs, channels.zero | np.tile(columns.zero, groups), trace.module))
    reason = f"a grouped convolution has to keep as many in every group ({trace.module!r})"
    trace.balances.append(Balance((tuple(np.split(rows.labels, groups)),), reason))
    return trace.axis(rows.labels)
