"""Recurrent layers: how they are followed, and the sizes that they keep beside their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from bmrs_torch.channels.trace import Call, Trace

Rule = Callable[[Trace, Call], None]

RECURRENT = (nn.RNNBase, nn.RNNCellBase)


@contextmanager
def step_by_step(model: nn.Module) -> Iterator[None]:
    """Recurrent layers in single operations that can be followed, not in one of cuDNN or oneDNN."""
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
