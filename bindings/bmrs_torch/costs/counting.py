"""What a network costs whatever machine it runs on: parameters, multiply-accumulates, bytes in a file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bmrs_torch.channels.calling import call
from bmrs_torch.channels.network import plain_attention
from bmrs_torch.channels.recurrent import in_single_operations
from bmrs_torch.layer import MultiplicativeNoise
from bmrs_torch.shipping import save_pruned


def count_parameters(model: nn.Module) -> int:
    """Number of entries of all parameters, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def stored_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers that are saved, by name, shared ones once, those of noise layers left out."""
    noise = {
        id(t)
        for layer in (m for m in model.modules() if isinstance(m, MultiplicativeNoise))
        for t in (*layer.parameters(), *layer.buffers())
    }
    saved = model.state_dict(keep_vars=True).keys()
    stored = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor for name, tensor in stored if id(tensor) not in noise and name in saved}


def count_bytes(model: nn.Module) -> int:
    """Bytes of its parameters and of the buffers that are saved, those of noise layers left out."""
    return sum(tensor.nbytes for tensor in stored_tensors(model).values())


def count_plain_parameters(model: nn.Module) -> int:
    """Number of entries of its parameters, those of noise layers left out, as :func:`fold` does."""
    return sum(t.numel() for t in stored_tensors(model).values() if isinstance(t, nn.Parameter))


@torch.no_grad()
def count_macs(model: nn.Module, example_inputs: Any) -> dict[str, int]:
    """Multiply-accumulates of matrix products, convolutions and attention, in total and by module.

    Parameters
    ----------
    model : nn.Module
        In the mode in which it is to be counted.
    example_inputs : Tensor, tuple, list or dict
        What it is run on; the count is of all samples in it.

    Returns
    -------
    dict of str to int
        By name of the module, children included; the whole model's is ``""``. A module without any is left
        out.

    Examples
    --------
    >>> import torch
    >>> from bmrs_torch.costs.counting import count_macs
    >>> count_macs(torch.nn.Linear(3, 2), torch.ones(5, 3))[""]
    30
    """
    counter = FlopCounterMode(display=False)
    # Fused attention, encoder layers and recurrence aren't in the counter's list; their products are.
    with plain_attention(), in_single_operations(model), _not_learning(model), counter:
        call(model, example_inputs)
    root = type(model).__name__
    counts = {
        name.removeprefix(root).removeprefix("."): sum(operations.values()) // 2
        for name, operations in counter.get_flop_counts().items()
        if name == root or name.startswith(f"{root}.")
    }
    return {**counts, "": counter.get_total_flops() // 2}


@contextmanager
def _not_learning(model: nn.Module) -> Iterator[None]:
    """The counter hooks gradients of what modules are given: under no_grad, views of parameters have none."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in learning:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_()


def count_file_bytes(model: nn.Module) -> int:
    """Size of the file that :func:`save_pruned` makes of a model."""
    with tempfile.TemporaryDirectory() as folder:
        return save_pruned(model, Path(folder) / "model.safetensors").stat().st_size
