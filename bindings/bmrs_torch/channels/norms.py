"""How channels fare in normalisations, pooling and interpolation."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from bmrs_torch.channels.axes import Axis, Split
from bmrs_torch.channels.trace import Call, Reshape, Trace, give_up

__all__ = ["SPATIAL", "batch_norm", "group_norm", "layer_norm", "spatial", "weight_norm"]


def batch_norm(trace: Trace, call: Call) -> None:
    """Batch normalisation by known or measured statistics of each channel."""
    x, out = call["input"], call.outputs[0]
    axis = trace.state(x).axes[1]
    for vector in (t for t in call.tensors if t is not x and t.ndim == 1):
        own = trace.state(vector).axes[0]
        if axis is None or own is None:
            trace.pin((axis, own), f"a normalisation is made of something without channels {trace.place}")
        else:
            trace.labels.unite(axis.labels, own.labels)
    _channelwise(trace, call, x, out)


def layer_norm(trace: Trace, call: Call) -> None:
    """Layer normalisation, over the last axes."""
    x, out = call["input"], call.outputs[0]
    state, number = trace.state(x), len(call["normalized_shape"])
    reason = f"LayerNorm normalises over the structures {trace.place}, so removing one changes the others"
    trace.pin(state.axes[x.ndim - number :], reason)
    for tensor in call.tensors[1:]:
        trace.pin_tensor(tensor, reason)
    axes = [*state.axes[: x.ndim - number], *state.axes[x.ndim - number :]]
    for extra in call.outputs[1:]:
        trace.set(extra, (None,) * extra.ndim, state.dynamic)
    trace.set(out, [a and trace.carried(out, d, a.labels, a.zero) for d, a in enumerate(axes)], state.dynamic)


def group_norm(trace: Trace, call: Call) -> None:
    """Group normalisation: a group goes as a whole, then the others stay what they are."""
    x, out, groups = call["input"], call.outputs[0], call["group"]
    state = trace.state(x)
    axis = state.axes[1]
    vectors = [trace.state(t).axes[0] for t in call.tensors if t is not x]
    for extra in call.outputs[1:]:  # statistics of each group
        trace.set(extra, (None,) * extra.ndim, state.dynamic)
    trace.pin(state.axes[2:], f"GroupNorm goes over them {trace.place}")
    axes: list[Axis | None] = [state.axes[0], *(None,) * (out.ndim - 1)]
    if axis is None or None in vectors:
        trace.pin((axis, *vectors), f"GroupNorm is made of something without channels {trace.place}")
        return trace.set(out, axes, state.dynamic)
    for own in vectors:
        trace.labels.unite(axis.labels, own.labels)  # type: ignore[union-attr]
    if groups == 1:
        reason = "GroupNorm with a single group normalises over all structures"
        trace.pin((axis,), f"{reason} {trace.place}, so removing one changes the others")
        axes[1] = trace.axis(axis.labels)
        return trace.set(out, axes, state.dynamic)
    rows = axis.labels.reshape(groups, -1)
    trace.labels.unite_rows(rows, f"GroupNorm normalises over groups of {rows.shape[1]} {trace.place}")
    trace.reshapes.append(Reshape(trace.module, Split(axis, (groups, rows.shape[1]), 0)))
    zero = np.repeat(axis.zero.reshape(rows.shape).all(axis=1), rows.shape[1])
    axes[1] = trace.carried(out, 1, axis.labels, zero)
    return trace.set(out, axes, state.dynamic)


def weight_norm(trace: Trace, call: Call) -> None:
    """Weight normalisation: the other axes of the weight are summed over."""
    direction, out = call["v"], call.outputs[0]
    state, d = trace.state(direction), call["dim"] % direction.ndim
    reason = f"a weight normalisation goes over them {trace.place}"
    trace.pin(tuple(a for i, a in enumerate(state.axes) if i != d), reason)
    length = trace.state(call["g"]).axes[d]
    kept = state.axes[d]
    if kept is None or length is None:
        return give_up(trace, call, reason)
    trace.labels.unite(kept.labels, length.labels)
    for extra in call.outputs[1:]:
        trace.set(extra, (None,) * extra.ndim, dynamic=False)
    return trace.set(out, state.axes, dynamic=False)


def spatial(trace: Trace, call: Call) -> None:
    """Pooling and interpolation."""
    _channelwise(trace, call, call["self"] if call["self"] is not None else call["input"], call.outputs[0])


def _channelwise(trace: Trace, call: Call, x: Tensor, out: Tensor) -> None:
    """Samples and channels stay what they are; what comes after them has no channels."""
    state = trace.state(x)
    first = x.ndim - SPATIAL.get(call.name, x.ndim - 2)
    for extra in call.outputs:  # statistics of each channel, or the positions of maxima
        same = extra.ndim == out.ndim
        before = [a and trace.axis(a.labels) for a in state.axes[:first]] if same else []
        trace.set(extra, (*before, *(None,) * (extra.ndim - len(before))), state.dynamic)
    trace.pin(state.axes[first:], f"{call.name} goes over them {trace.place}")
    axes = [a and trace.carried(out, d, a.labels, a.zero) for d, a in enumerate(state.axes[:first])]
    trace.set(out, (*axes, *(None,) * (out.ndim - first)), state.dynamic)


SPATIAL = {
    **dict.fromkeys(
        ("max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d"), 2
    ),
    **dict.fromkeys(
        ("max_pool3d_with_indices", "avg_pool3d", "_adaptive_avg_pool3d", "adaptive_max_pool3d"), 3
    ),
    **dict.fromkeys(("avg_pool1d", "adaptive_avg_pool1d", "adaptive_max_pool1d", "upsample_nearest1d"), 1),
    **dict.fromkeys(
        ("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_linear1d"), 2
    ),
    **dict.fromkeys(("_upsample_nearest_exact2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"), 2),
    **dict.fromkeys(("upsample_nearest3d", "upsample_trilinear3d"), 3),
    "upsample_linear1d": 1,
}
