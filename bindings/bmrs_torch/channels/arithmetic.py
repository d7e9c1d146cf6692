"""How channels fare where numbers are computed: element by element, in sums and products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from bmrs_torch.channels.axes import Axis
from bmrs_torch.channels.convolution import contract, convolution
from bmrs_torch.channels.norms import SPATIAL, batch_norm, group_norm, layer_norm, spatial, weight_norm
from bmrs_torch.channels.trace import Call, Trace, Use, give_up
from bmrs_torch.channels.work import FACTORS

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
    roots = trace.labels.roots
    # What is of the same channels already makes no stream: the recurrence of a state-space model.
    added = [p.axis.labels for p in parts if p.axis is not None and p.dynamic] if call.name in _SUMS else []
    if any((roots(other) != roots(added[0])).any() for other in added[1:]):
        trace.sums.append(labels)
    for axis in labelled[1:]:
        trace.labels.unite(labels, axis.labels)
    for part in parts:
        if part.axis is None:
            _check_unlabelled(trace, part, labels)
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
    if uniform:
        return
    if trace.is_given(tensor):
        what, advice = "the model's input", "with a layer between the two they could go"
    elif part.dynamic:
        what, advice = "something computed", "what computes it can't be followed, or has no structures"
    else:
        what, advice = "a constant", "as a parameter it could shrink with them"
    trace.labels.pin(labels, f"{what} has an entry for each of them {trace.place}; {advice}")


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
    first, second = FACTORS[call.name]
    return call[first], call[second]


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
            reason = f"{call.name} goes over them {trace.place}, so removing one changes what the others get"
            trace.pin((axis,), f"{reason}; what doesn't come there can go")
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


def copy(trace: Trace, call: Call) -> None:
    """The target takes the source's channels; a part of a larger tensor has none of its own."""
    source, target = call["src"], call["self"]
    if source.shape != target.shape:
        return give_up(trace, call, f"a tensor is filled with something of another shape {trace.place}")
    state = trace.state(source)
    for before, after in zip(trace.state(target).axes, state.axes, strict=True):
        if before is not None and after is not None:
            trace.labels.unite(before.labels, after.labels)
        else:
            trace.pin((before,), f"they are overwritten by something without channels {trace.place}")
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
    **dict.fromkeys(FACTORS, matmul),
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
    **dict.fromkeys(SPATIAL, spatial),
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
