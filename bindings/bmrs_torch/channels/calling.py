"""Calling a model on an example, in a mode that is put back, and what it answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

__all__ = ["answers", "call", "check_has_values", "in_mode", "tensors_of"]


def call(model: nn.Module, example_inputs: Any) -> Any:
    """Call a model on a tensor, a tuple or list of positional inputs, or a dict of keyword inputs."""
    if isinstance(example_inputs, Tensor):
        return model(example_inputs)
    if isinstance(example_inputs, dict):
        return model(**example_inputs)
    if isinstance(example_inputs, (tuple, list)):
        return model(*example_inputs)
    raise TypeError(
        "example_inputs must be a tensor, a tuple or list of positional inputs or a dict of keyword inputs, "
        f"got {type(example_inputs).__name__}"
    )


def tensors_of(answer: Any) -> list[Tensor]:
    """Every tensor of floating-point numbers in what a model returns."""
    if isinstance(answer, dict):
        answer = list(answer.values())
    if isinstance(answer, (tuple, list)):
        return [tensor for part in answer for tensor in tensors_of(part)]
    return [t for t in tree_leaves(answer) if isinstance(t, Tensor) and t.is_floating_point()]


def check_has_values(model: nn.Module) -> None:
    """Raise ValueError if something of a model is on the meta device, where it can't be run on an example."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    empty = next((name for name, tensor in tensors if tensor.is_meta), None)
    if empty is not None:
        raise ValueError(
            f"{type(model).__name__} has no values, {empty!r} is on the meta device, so it can't be run: "
            "give it some first, by to_empty(device=...) and load_state_dict, or load_pruned"
        )


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Run the block with all of a model in training or in evaluation mode; then each module is as it was.

    On the way it passes through training mode, on which modules forget what they keep for evaluation: tables
    of attention's biases, weights merged with their adapters. Nothing made of other weights is used.
    """
    modes = {module: module.training for module in model.modules()}
    try:
        model.train()
        model.train(training)
        yield
    finally:
        model.train()
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def answers(model: nn.Module, example_inputs: Any) -> list[Tensor]:
    """What a model answers in evaluation mode: its tensors of floating-point numbers."""
    with in_mode(model, training=False):
        return tensors_of(call(model, example_inputs))
