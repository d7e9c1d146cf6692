"""Multiply the outputs or the inputs of a layer by a factor for each structure, in its weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bmrs_torch.attachment import takes_state
from bmrs_torch.channels.weights import weight_axes

__all__ = ["scale_inputs", "scale_outputs", "scale_own_state", "scale_parameter"]


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
        _set(layer, "weight", weight.double() * rows.view(*rows.shape, *([1] * (weight.ndim - 2))))
    else:
        _set(layer, "weight", weight.double() * _along(factor, axis, weight.ndim))
    bias = getattr(layer, "bias", None)
    if isinstance(bias, Tensor):
        _set(layer, "bias", bias.double() * factor)


@torch.no_grad()
def scale_inputs(layer: nn.Module, factor: Tensor) -> None:
    """Multiply the weights for each input by its factor, rounding once; see :func:`scale_outputs`."""
    if isinstance(layer, nn.RNNBase):
        for name in ("weight_ih_l0", "weight_ih_l0_reverse")[: 2 if layer.bidirectional else 1]:
            _set(layer, name, getattr(layer, name).double() * _along(factor, 1, 2))
        return
    _, axis = weight_axes(layer)
    groups = int(getattr(layer, "groups", 1))
    weight = _weight(layer)
    if axis == 1 and groups > 1:
        columns = factor.view(groups, 1, -1).expand(-1, weight.shape[0] // groups, -1).flatten(0, 1)
        _set(layer, "weight", weight.double() * columns.view(*columns.shape, *([1] * (weight.ndim - 2))))
    elif axis is None:
        raise ValueError(f"a {type(layer).__name__} has no weights for each input")
    else:
        _set(layer, "weight", weight.double() * _along(factor, axis, weight.ndim))


@torch.no_grad()
def scale_own_state(layer: nn.RNNBase, factor: Tensor) -> None:
    """Multiply a recurrent layer's weights for each unit of its own state by its factor, rounding once."""
    for name, times in takes_state(layer):
        _set(layer, name, getattr(layer, name).double() * _along(factor.repeat(times), 1, 2))


@torch.no_grad()
def scale_parameter(parameter: nn.Parameter, axis: int, factor: Tensor) -> None:
    """Multiply the entries along one axis of a parameter, rounding once."""
    parameter.copy_(parameter.double() * _along(factor, axis, parameter.ndim))


def _weight(layer: nn.Module) -> Tensor:
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"a {type(layer).__name__} has no weights")
    return weight


def _set(layer: nn.Module, name: str, value: Tensor) -> None:
    if parametrize.is_parametrized(layer, name):
        if _takes_on(layer, name, value):
            return
        _take_off(layer, name)
    parameter = getattr(layer, name)
    if not isinstance(parameter, nn.Parameter):
        raise ValueError(f"the {name} of a {type(layer).__name__} is no parameter of its own")
    # A parameter of its own: what other layers share of it stays what it is.
    setattr(layer, name, nn.Parameter(value.to(parameter.dtype), parameter.requires_grad))


def _take_off(layer: nn.Module, name: str) -> None:
    """Give a layer a parameter in the place of a parametrized tensor, with its value.

    torch's own remove_parametrizations takes the attribute off the layer's class, which copies share.
    """
    value = getattr(layer, name).detach().clone()
    sets: Any = layer.parametrizations
    learns = any(parameter.requires_grad for parameter in sets[name].parameters())
    del sets[name]
    kind = type(layer)
    if len(sets):
        others = {
            key: item for key, item in vars(kind).items() if key not in (name, "__dict__", "__weakref__")
        }
        layer.__class__ = type(kind.__name__, kind.__bases__, others)
    else:
        del layer.parametrizations
        layer.__class__ = kind.__bases__[0]
    layer.register_parameter(name, nn.Parameter(value, requires_grad=learns))


def _takes_on(layer: nn.Module, name: str, value: Tensor) -> bool:
    """Whether a parametrized tensor, given a value, has it then."""
    try:
        setattr(layer, name, value.to(getattr(layer, name).dtype))
    except (NotImplementedError, ValueError, RuntimeError):  # it can't be turned round, or not at this value
        return False
    off = (getattr(layer, name).double() - value).abs().max()
    return bool(off <= _ROUNDING * value.abs().max())


_ROUNDING = 1e-6
"""Of the largest weight: float32's own, some ten times over. A weight that isn't taken on is off by more."""


def _along(factor: Tensor, axis: int, ndim: int) -> Tensor:
    return factor.to(torch.float64).view(tuple(-1 if d == axis else 1 for d in range(ndim)))
