"""Recurrent layers: how they are followed, and the sizes that they keep beside their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from bmrs_torch.channels.trace import Call, Trace

if TYPE_CHECKING:
    from bmrs_torch.channels.labels import Ints

Rule = Callable[[Trace, Call], None]

RECURRENT = (nn.RNNBase, nn.RNNCellBase)


@contextmanager
def steps_followed(model: nn.Module, trace: Trace, states: dict[str, Ints]) -> Iterator[None]:
    """While the block runs, recurrent layers run in single operations, and their states have channels.

    Parameters
    ----------
    model : nn.Module
    trace : Trace
        What follows the operations.
    states : dict of str to ndarray of int64
        Labels of the units of each recurrent layer that is called are added.
    """
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.RNNBase)}
    try:
        for name, layer in layers.items():
            layer.__dict__["forward"] = partial(_followed, trace, states, name, layer)
        with in_single_operations(model):
            yield
    finally:
        for layer in layers.values():
            layer.__dict__.pop("forward", None)


@contextmanager
def in_single_operations(model: nn.Module) -> Iterator[None]:
    """While the block runs, recurrent layers of a model aren't one operation of cuDNN or oneDNN each."""
    libraries: tuple[Any, ...] = ()
    if any(isinstance(module, nn.RNNBase) for module in model.modules()):
        libraries = (torch.backends.cudnn, torch.backends.mkldnn)
    enabled = [library.enabled for library in libraries]
    try:
        for library in libraries:
            library.enabled = False
        yield
    finally:
        for library, before in zip(libraries, enabled, strict=True):
            library.enabled = before


def _followed(
    trace: Trace, states: dict[str, Ints], name: str, layer: nn.RNNBase, *args: Any, **kwargs: Any
) -> Any:
    given = {**dict(zip(("input", "hx"), args, strict=False)), **kwargs}
    if given.get("hx") is None:
        given["hx"] = _zeros(trace, layer, given["input"])
    result = type(layer).forward(layer, **given)
    steps = result[0].data if isinstance(result[0], PackedSequence) else result[0]
    axis = trace.state(steps).axes[-1]
    if axis is not None:
        states[name] = axis.labels[: width_of_state(layer)]
    return result


def _zeros(trace: Trace, layer: nn.RNNBase, x: Any) -> Any:
    """The state that a layer begins with where it is given none, with channels as the later ones have."""
    rows = layer.num_layers * (2 if layer.bidirectional else 1)
    if isinstance(x, PackedSequence):
        like, batch = x.data, [int(x.batch_sizes[0])]
    else:
        like, batch = x, [x.shape[0 if layer.batch_first else 1]] if x.ndim == 3 else []
    state = _zero(trace, like, [rows, *batch, width_of_state(layer)])
    if layer.mode != "LSTM":
        return state
    return state, _zero(trace, like, [rows, *batch, layer.hidden_size])


def _zero(trace: Trace, like: Tensor, shape: Sequence[int]) -> Tensor:
    tensor, width = like.new_zeros(shape), shape[-1]
    axis = trace.axis(trace.labels.new(width), np.ones(width, dtype=np.bool_))
    trace.set(tensor, (*(None,) * (len(shape) - 1), axis), dynamic=False)
    return tensor


def width_of_state(layer: nn.RNNBase) -> int:
    """How many units the state of each layer and direction of a recurrent layer has."""
    return layer.proj_size or layer.hidden_size


def fused_cell(trace: Trace, call: Call) -> None:
    """A step of an LSTM or GRU on CUDA: the sums for its gates and its state are given, the new state comes.

    The gates of a unit lie one run of units after another, in both sums and in the biases.
    """
    state = trace.state(call["cx"] if call["cx"] is not None else call["hx"])
    unit = state.axes[-1] or trace.axis(trace.labels.new(call.outputs[0].shape[-1]))
    sums = [call[name] for name in ("input_gates", "hidden_gates", "input_bias", "hidden_bias")]
    for tensor in sums:
        axis = None if tensor is None else trace.state(tensor).axes[-1]
        if axis is not None:
            for gate in axis.labels.reshape(-1, unit.size):
                trace.labels.unite(unit.labels, gate)
        elif tensor is not None:
            trace.labels.pin(unit.labels, f"something without channels is added to them {trace.place}")
    for out in call.outputs:
        known = trace.axis(unit.labels) if out.shape[-1] == unit.size else None  # else a workspace
        trace.set(out, (*(None,) * (out.ndim - 1), known), dynamic=True)


def pack(trace: Trace, call: Call) -> None:
    """Padded sequences to one axis of all their steps."""
    state, (data, batch_sizes) = trace.state(call["input"]), call.outputs
    trace.pin(state.axes[:2], f"they are packed as steps of sequences {trace.place}")
    trace.set(data, (None, *state.axes[2:]), state.dynamic)
    trace.set(batch_sizes, (None,), dynamic=False)


RECURRENCE: dict[str, Rule] = {
    **dict.fromkeys(("_thnn_fused_lstm_cell", "_thnn_fused_gru_cell"), fused_cell),
    "_pack_padded_sequence": pack,
}


def tell_recurrent_sizes(module: nn.RNNBase | nn.RNNCellBase) -> None:
    """Set the sizes that a recurrent layer keeps to those of its weights.

    Parameters
    ----------
    module : nn.RNNBase or nn.RNNCellBase
        Its weights have been cut, alike in all its layers and directions.
    """
    first = "_l0" if isinstance(module, nn.RNNBase) else ""
    inputs, recurrent = (getattr(module, f"weight_{kind}{first}") for kind in ("ih", "hh"))
    gates = (
        inputs.shape[0] // module.hidden_size if isinstance(module, nn.RNNCellBase) else _GATES[module.mode]
    )
    module.input_size, module.hidden_size = inputs.shape[1], inputs.shape[0] // gates
    if getattr(module, "proj_size", 0):
        module.proj_size = recurrent.shape[1]


_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
"""Rows of a recurrent layer's weights for each of its units, by the layer's mode."""
