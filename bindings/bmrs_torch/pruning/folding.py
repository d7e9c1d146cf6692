"""Fold E[θ] into the weights, so that what ships is an ordinary network without noise layers."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bmrs_torch.insertion import WithNoise
from bmrs_torch.layer import MultiplicativeNoise, noise_layers
from bmrs_torch.module_graph import ModuleGraph, NotFoldableError
from bmrs_torch.pruning.verification import verify

M = TypeVar("M", bound=nn.Module)


def fold(model: M, example_inputs: Any = None) -> M:
    """Return a copy of a model with every noise layer folded into the layer before it.

    The weights and biases of structure c are multiplied by E[θ_c]·mask_c, which is exact: the result answers
    as the model does in evaluation mode and needs nothing of this package. Layers replaced by
    :func:`insert_noise` get their own names back.

    Parameters
    ----------
    model : nn.Module
        A model with noise layers; it is left untouched.
    example_inputs : Tensor, tuple, list or dict, optional
        If given, both models are compared on them in evaluation mode.

    Returns
    -------
    nn.Module
        In the training mode of `model`.

    Raises
    ------
    NotFoldableError
        A ValueError: a noise layer doesn't follow a Linear, Conv or BatchNorm layer with weights of its own
        that feeds nothing else, or lies on another axis than its structures. It is named.
    SurgeryError
        If the folded model answers differently on the example inputs.
    ValueError
        If the model has no noise layer.

    Examples
    --------
    >>> from torch import nn
    >>> from bmrs_torch import fold, insert_noise
    >>> fold(insert_noise(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))))
    Sequential(
      (0): Linear(in_features=4, out_features=3, bias=True)
      (1): ReLU()
      (2): Linear(in_features=3, out_features=2, bias=True)
    )
    """
    noise_layers(model)
    folded = copy.deepcopy(model)
    graph = ModuleGraph(folded)
    layers = noise_layers(folded)
    targets = {name: folded.get_submodule(graph.feeding(name)) for name in layers}
    for name, noise in layers.items():
        _check_target(name, noise, targets[name], folded)
    for name, noise in layers.items():
        _scale(targets[name], noise.expected_noise().detach())
    for noise in layers.values():
        folded = _without(folded, noise)
    if example_inputs is not None:
        verify(model, folded, example_inputs, "folding the noise into the weights")
    return folded


def _check_target(name: str, noise: MultiplicativeNoise, layer: nn.Module, model: nn.Module) -> None:
    kind = type(layer).__name__
    if not isinstance(layer.weight, nn.Parameter):
        raise NotFoldableError(
            f"noise layer {name!r} can't be folded: the {kind} before it has no weight parameter of its own"
        )
    names = [
        n for n, p in model.named_parameters(remove_duplicate=False) if p is layer.weight or p is layer.bias
    ]
    if len(names) > 2 - (layer.bias is None):
        raise NotFoldableError(
            f"noise layer {name!r} can't be folded: the weights before it are shared by {', '.join(names)}"
        )
    axes = (
        (1, -1)
        if isinstance(layer, nn.Linear)
        else (1, 1 - layer.weight.ndim)
        if layer.weight.ndim > 1
        else (1,)
    )
    if noise.axis not in axes:
        raise NotFoldableError(
            f"noise layer {name!r} can't be folded: it lies on axis {noise.axis}, but the {kind} before it "
            f"has its structures on axis {' or '.join(map(str, axes))}"
        )


@torch.no_grad()
def _scale(layer: nn.Module, scale: Tensor) -> None:
    """Multiply the weights and biases of each structure by its scale, rounding once."""
    for parameter in (layer.weight, layer.bias):
        if isinstance(parameter, nn.Parameter):
            factor = scale.view(-1, *([1] * (parameter.ndim - 1)))
            parameter.copy_(parameter.double() * factor)


def _without(model: M, noise: MultiplicativeNoise) -> M:
    """Take a noise layer out of the model that holds it."""
    path = next(name for name, module in model.named_modules() if module is noise)
    parent_path, _, own_name = path.rpartition(".")
    parent = model.get_submodule(parent_path)
    if isinstance(parent, WithNoise):
        if not parent_path:
            return parent.layer  # type: ignore[return-value]
        model.set_submodule(parent_path, parent.layer)
    elif isinstance(parent, nn.Sequential):
        _drop_item(parent, own_name)
    else:
        model.set_submodule(path, nn.Identity())
    return model


def _drop_item(sequence: nn.Sequential, name: str) -> None:
    if all(key.isdigit() for key in dict(sequence.named_children())):
        del sequence[int(name)]
    else:
        delattr(sequence, name)
