"""How channels fare where numbers are computed: element by element, in sums, convolutions and norms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from bmrs_torch.channels.axes import Axis, Split
from bmrs_torch.channels.trace import Balance, Call, Grouped, Reshape, Trace, Use, give_up

if TYPE_CHECKING:
    from bmrs_torch.channels.labels import Bools, Ints

Rule = Callable[[Trace, Call], None]

_SUMS = ("add", "add_", "sub", "sub_")
_PRODUCTS = ("mul", "mul_", "multiply", "div", "div_")


def pointwise(trace: Trace, call: Call) -> None:
    """Entry by entry: what meets in an entry goes together."""
    tensors, (out, *extras) = call.tensors, call.outputs
    axes = [_met(trace, call, tensors, out, d) for d in range(out.ndim)]
    dynamic = any(trace.state(t).dynamic for t in tensors)
    trace.set(out, axes, dynamic)
    for extra in extras:  # of the same entries, or empty
        again = axes if extra.shape == out.shape else [None] * extra.ndim
        trace.set(extra, [a and trace.axis(a.labels) for a in again], dynamic)


@dataclass(frozen=True)
class _Part:
    """A tensor that takes part in an operation entry by entry, as one axis of the result sees it."""

    tensor: Tensor
    own: int
    axis: Axis | None
    dynamic: bool


def _met(trace: Trace, call: Call, tensors: Sequence[Tensor], out: Tensor, d: int) -> Axis | None:
    """Unite the channels that meet on one axis of the result."""
    parts = [_part(trace, tensor, d - out.ndim, out.shape[d]) for tensor in tensors]
    labelled = [part.axis for part in parts if part.axis is not None]
    if not labelled:
        return None
    labels = labelled[0].labels
    for axis in labelled[1:]:
        trace.labels.unite(labels, axis.labels)
    for part in parts:
        if part.axis is None:
            _check_unlabelled(trace, part, labels)
    if call.name in _SUMS and sum(part.dynamic and part.axis is not None for part in parts) > 1:
        trace.sums.append(labels)
    return trace.carried(out, d, labels, _still_zero(call, parts, labels.size))


def _part(trace: Trace, tensor: Tensor, offset: int, size: int) -> _Part:
    state, own = trace.state(tensor), offset + tensor.ndim
    axis = state.axes[own] if own >= 0 else None
    if axis is not None and axis.size != size:
        trace.pin((axis,), f"a single channel meets several {trace.place}")
        axis = None
    return _Part(tensor, own, axis, state.dynamic)


def _still_zero(call: Call, parts: Sequence[_Part], size: int) -> Bools:
    """Which entries may be 0: of products where one factor is; else where all that the input decides is."""
    candidates = np.zeros(size, dtype=np.bool_)
    varying = [part for part in parts if part.dynamic]
    if varying and all(part.axis is not None for part in varying):
        candidates |= np.logical_and.reduce([part.axis.zero for part in varying if part.axis is not None])
    if call.name in _PRODUCTS:
        divisor = call["other"] if call.name.startswith("div") else None
        for part in parts:
            if part.axis is not None and part.tensor is not divisor:
                candidates |= part.axis.zero
    return candidates


def _check_unlabelled(trace: Trace, part: _Part, labels: Ints) -> None:
    """What has entries for these channels but no channels of its own can't shrink, unless it is constant."""
    tensor, own = part.tensor, part.own
    if own < 0 or tensor.shape[own] != labels.size or labels.size == 1:
        return
    uniform = not part.dynamic and bool((tensor == tensor.narrow(own, 0, 1)).all())
    if not uniform:
        reason = "the model's input" if part.dynamic else "a constant"
        trace.labels.pin(labels, f"{reason} has an entry for each of them {trace.place}")


def matmul(trace: Trace, call: Call) -> None:
    """mm, bmm, mv and the like, with or without something added: sums over the inner axis."""
    first, second = _factors(call)
    a, b = trace.state(first), trace.state(second)
    contract(trace, a.axes[-1], b.axes[-2 if second.ndim > 1 else -1])
    axes = [*a.axes[:-1], *(b.axes[-1:] if second.ndim > 1 else ())]
    if len(axes) == 3:
        axes[0] = _batch(trace, a.axes[0], b.axes[0])
    dynamic = a.dynamic or b.dynamic
    if call.name in ("addmm", "baddbmm"):
        return _plus(trace, call, axes, dynamic)
    return trace.set(call.out, axes, dynamic)


def _factors(call: Call) -> tuple[Tensor, Tensor]:
    first, second = _FACTORS[call.name]
    return call[first], call[second]


_FACTORS = {
    "mm": ("self", "mat2"),
    "bmm": ("self", "mat2"),
    "mv": ("self", "vec"),
    "addmm": ("mat1", "mat2"),
    "baddbmm": ("batch1", "batch2"),
}


def _batch(trace: Trace, first: Axis | None, second: Axis | None) -> Axis | None:
    """Factors multiplied matrix by matrix: a matrix of the product is 0 where one of the two is."""
    if first is None or second is None:
        trace.pin((first, second), f"they are multiplied by something without channels {trace.place}")
        return None
    trace.labels.unite(first.labels, second.labels)
    return Axis(first.labels, first.zero | second.zero)


def _plus(trace: Trace, call: Call, axes: Sequence[Axis | None], dynamic: bool) -> None:
    added, out = call["self"], call.out
    state = trace.state(added)
    result: list[Axis | None] = []
    for d, axis in enumerate(axes):
        own = d - out.ndim + added.ndim
        other = state.axes[own] if own >= 0 and added.shape[own] == out.shape[d] else None
        if axis is None or other is None:
            trace.pin(
                (axis,) if own >= 0 and added.shape[own] > 1 else (), f"a constant is added {trace.place}"
            )
            trace.pin((other,), f"they are added to something without channels {trace.place}")
        else:
            trace.labels.unite(axis.labels, other.labels)
        zero_after = axis is not None and not state.dynamic
        result.append(
            axis
            and (trace.carried(out, d, axis.labels, axis.zero) if zero_after else trace.axis(axis.labels))
        )
    trace.set(out, result, dynamic or state.dynamic)


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


def _channelwise(trace: Trace, call: Call, x: Tensor, out: Tensor) -> None:
    """Samples and channels stay what they are; what comes after them has no channels."""
    state = trace.state(x)
    first = x.ndim - _SPATIAL.get(call.name, x.ndim - 2)
    for extra in call.outputs:  # statistics of each channel, or the positions of maxima
        same = extra.ndim == out.ndim
        before = [a and trace.axis(a.labels) for a in state.axes[:first]] if same else []
        trace.set(extra, (*before, *(None,) * (extra.ndim - len(before))), state.dynamic)
    trace.pin(state.axes[first:], f"{call.name} goes over them {trace.place}")
    axes = [a and trace.carried(out, d, a.labels, a.zero) for d, a in enumerate(state.axes[:first])]
    trace.set(out, (*axes, *(None,) * (out.ndim - first)), state.dynamic)


def spatial(trace: Trace, call: Call) -> None:
    """Pooling and interpolation."""
    _channelwise(trace, call, call["self"] if call["self"] is not None else call["input"], call.outputs[0])


_SPATIAL = {
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


def reduction(trace: Trace, call: Call) -> None:
    """Sums, means, extremes over axes."""
    x = call["self"]
    state, given = trace.state(x), call["dim"]
    dims = (
        set(range(x.ndim))
        if given is None or given == []
        else {d % x.ndim for d in np.atleast_1d(given).tolist()}
    )
    for d in dims:
        axis = state.axes[d]
        if axis is not None and call.name == "sum":
            trace.uses.append(Use(axis.labels, axis.zero, trace.module))
        else:
            trace.pin((axis,), f"{call.name} goes over them {trace.place}")
    for out in call.outputs:
        kept = out.ndim == x.ndim
        axes = [None if d in dims else a for d, a in enumerate(state.axes) if kept or d not in dims]
        checked = [a and trace.carried(out, d, a.labels, a.zero) for d, a in enumerate(axes)]
        trace.set(out, checked, state.dynamic)


def glu(trace: Trace, call: Call) -> None:
    """Half of the channels, gated by the other half."""
    x, out = call["self"], call.out
    state = trace.state(x)
    d = call["dim"] % x.ndim
    axes = list(state.axes)
    axis = axes[d]
    if axis is not None:
        values, gates = np.split(axis.labels, 2)
        trace.labels.unite(values, gates)
        axes[d] = trace.carried(out, d, values, axis.zero[: values.size])
    trace.set(out, axes, state.dynamic)


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


def copy(trace: Trace, call: Call) -> None:
    """The target takes the source's channels; a part of a larger tensor has none of its own."""
    source, target = call["src"], call["self"]
    if source.shape != target.shape:
        return give_up(trace, call, f"a tensor is filled with something of another shape {trace.place}")
    before = trace.state(target)
    if any(a is not None for a in before.axes):
        trace.pin(before.axes, f"they are overwritten {trace.place}")
    state = trace.state(source)
    return trace.set(call.out, state.axes, state.dynamic)


ARITHMETIC: dict[str, Rule] = {
    "pointwise": pointwise,
    # Entry by entry too, but not marked so by torch.
    **dict.fromkeys(
        "hardswish hardsigmoid hardtanh leaky_relu elu softplus mish log_sigmoid_forward threshold "
        "_prelu_kernel rrelu_with_noise clamp where masked_fill nan_to_num "
        "bernoulli uniform normal fill zero".split(),
        pointwise,
    ),
    **dict.fromkeys(_FACTORS, matmul),
    "convolution": convolution,
    **dict.fromkeys(
        (
            "native_batch_norm",
            "_native_batch_norm_legit",
            "_native_batch_norm_legit_no_training",
            "_batch_norm_with_update",
            "_batch_norm_no_update",
            "cudnn_batch_norm",
            "miopen_batch_norm",
        ),
        batch_norm,
    ),
    **dict.fromkeys(_SPATIAL, spatial),
    "native_layer_norm": layer_norm,
    "native_group_norm": group_norm,
    **dict.fromkeys(
        "sum mean amax amin aminmax max min argmax argmin median nanmedian mode kthvalue var std var_mean "
        "prod".split(),
        reduction,
    ),
    **dict.fromkeys(("norm", "linalg_vector_norm", "logsumexp", "any", "all"), reduction),
    "glu": glu,
    "_weight_norm_interface": weight_norm,
    "copy": copy,
}
