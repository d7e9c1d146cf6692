"""Give a layer other weights, whether it stores them or computes them from something else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, remove_spectral_norm
from torch.nn.utils.weight_norm import WeightNorm

from bmrs_torch.channels.computed import Computed

__all__ = ["put"]

_ROUNDING = 8.0
"""In units of the dtype's eps at the largest weight. A weight that isn't taken on is off by more."""


@torch.no_grad()
def put(layer: nn.Module, name: str, value: Tensor) -> None:
    """Let a layer's tensor have a value, rounded to its dtype.

    Parameters
    ----------
    layer : nn.Module
        One that computes the tensor goes on computing it if that can give the value: with weight_norm it can.
        Else, as with spectral_norm, the tensor becomes a parameter.
    name : str
        Of a parameter, or of what a parametrization, or weight_norm and spectral_norm of old, compute.
    value : Tensor

    Raises
    ------
    ValueError
        If it is neither.
    """
    hook = Computed("", layer, name).hook
    if parametrize.is_parametrized(layer, name):
        if not (_has(layer, name, value) or _takes_on(layer, name, value)):
            _take_off(layer, name, value)
    elif hook is not None and isinstance(hook[1], WeightNorm):
        axes = [d for d in range(value.ndim) if d != hook[1].dim % value.ndim]
        length = torch.linalg.vector_norm(value, dim=None if hook[1].dim == -1 else axes, keepdim=True)
        direction, norm = layer.get_parameter(f"{name}_v"), layer.get_parameter(f"{name}_g")
        direction.copy_(torch.where(length == 0, direction.double(), value.double()))  # 0 has no direction
        norm.copy_(length.view(norm.shape))
        setattr(layer, name, value.to(getattr(layer, name).dtype))
    else:
        if hook is not None:
            _take_off_hook(layer, name, hook[1])
        parameter = getattr(layer, name)
        if not isinstance(parameter, nn.Parameter):
            raise ValueError(f"the {name} of a {type(layer).__name__} is no parameter of its own")
        # A parameter of its own: what other layers share of it stays what it is.
        setattr(layer, name, nn.Parameter(value.to(parameter.dtype), parameter.requires_grad))


def _has(layer: nn.Module, name: str, value: Tensor) -> bool:
    """Whether what a layer computes is this value."""
    try:
        now = getattr(layer, name)
    except (
        RuntimeError,
        ValueError,
        TypeError,
        IndexError,
    ):  # it can't be computed from parts of other sizes
        return False
    if now.shape != value.shape:
        return False
    rounding = _ROUNDING * torch.finfo(now.dtype).eps
    return bool((now.double() - value).abs().max() <= rounding * value.abs().max())


def _takes_on(layer: nn.Module, name: str, value: Tensor) -> bool:
    """Whether a parametrized tensor, given a value, has it then."""
    lists: Any = layer.parametrizations
    dtype = next(iter(lists[name].parameters())).dtype
    try:
        setattr(layer, name, value.to(dtype))
    except (NotImplementedError, ValueError, RuntimeError):  # it can't be turned round, or not at this value
        return False
    return _has(layer, name, value)


def _take_off(layer: nn.Module, name: str, value: Tensor) -> None:
    """Give a layer a parameter in the place of a parametrized tensor.

    torch's own remove_parametrizations takes the attribute off the layer's class, which copies share.
    """
    sets: Any = layer.parametrizations
    originals = list(sets[name].parameters())
    value = value.to(originals[0].dtype).clone()
    learns = any(parameter.requires_grad for parameter in originals)
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


def _take_off_hook(layer: nn.Module, name: str, hook: Any) -> None:
    """Take spectral_norm of old off, whatever sizes its vectors have."""
    original = getattr(layer, f"{name}_orig")
    rows, columns = hook.reshape_weight_to_matrix(original).shape
    for key, size in (("u", rows), ("v", columns)):
        setattr(layer, f"{name}_{key}", original.new_ones(size))
    remove_spectral_norm(layer, name)
