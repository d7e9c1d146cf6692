"""Multiply the outputs or the inputs of a layer by a factor for each structure, in its weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bmrs_torch.channels.weights import weight_axes
from bmrs_torch.surgery.computed_weights import put

__all__ = ["scale_inputs", "scale_outputs", "scale_parameter"]


@torch.no_grad()
def scale_outputs(layer: nn.Module, factor: Tensor) -> None:
    """Multiply the weights and the bias of each output by its factor, rounding once.

    Parameters
    ----------
    layer : nn.Module
        Linear, convolution or BatchNorm. Of a parametrized one, whose parametrization can't take on the new
        weights, the weights become a parameter of its own.
    factor : Tensor of float64, shape (outputs,)
        Of each.
    """
    axis, _ = weight_axes(layer)
    groups = int(getattr(layer, "groups", 1))
    weight = _weight(layer)
    if axis == 1 and groups > 1:
        # A transposed convolution's weight: (inputs, outputs of a group, …).
        rows = factor.view(groups, 1, -1).expand(-1, weight.shape[0] // groups, -1).flatten(0, 1)
        put(layer, "weight", weight.double() * rows.view(*rows.shape, *([1] * (weight.ndim - 2))))
    else:
        put(layer, "weight", weight.double() * _along(factor, axis, weight.ndim))
    bias = getattr(layer, "bias", None)
    if isinstance(bias, Tensor):
        put(layer, "bias", bias.double() * factor)


@torch.no_grad()
def scale_inputs(layer: nn.Module, factor: Tensor) -> None:
    """Multiply the weights for each input by its factor, rounding once; see :func:`scale_outputs`."""
    _, axis = weight_axes(layer)
    groups = int(getattr(layer, "groups", 1))
    weight = _weight(layer)
    if axis == 1 and groups > 1:
        columns = factor.view(groups, 1, -1).expand(-1, weight.shape[0] // groups, -1).flatten(0, 1)
        put(layer, "weight", weight.double() * columns.view(*columns.shape, *([1] * (weight.ndim - 2))))
    elif axis is None:
        raise ValueError(f"a {type(layer).__name__} has no weights for each input")
    else:
        put(layer, "weight", weight.double() * _along(factor, axis, weight.ndim))


@torch.no_grad()
def scale_parameter(parameter: nn.Parameter, axis: int, factor: Tensor) -> None:
    """Multiply the entries along one axis of a parameter, rounding once."""
    parameter.copy_(parameter.double() * _along(factor, axis, parameter.ndim))


def _weight(layer: nn.Module) -> Tensor:
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"a {type(layer).__name__} has no weights")
    return weight


def _along(factor: Tensor, axis: int, ndim: int) -> Tensor:
    return factor.to(torch.float64).view(tuple(-1 if d == axis else 1 for d in range(ndim)))
