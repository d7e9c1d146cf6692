"""What a layer of one's own does with its weights, found by calling it with weights of another scale."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from bmrs_torch.layer import MultiplicativeNoise

__all__ = ["linear_axes", "scales_outputs"]

_TOLERANCE = 1e-2
"""Relative to the largest number. Weights are scaled by powers of 2, which no dtype rounds; what isn't
proportional to them is off by much more."""

_found: dict[str, Any] = {"axes": WeakIdKeyDictionary(), "scales": WeakIdKeyDictionary()}


def linear_axes(module: nn.Module) -> tuple[int, int] | None:
    """Axes of the outputs and of the inputs of a module's `weight`, if it multiplies its input by it.

    Parameters
    ----------
    module : nn.Module
        With a parameter called `weight` of two axes, outputs first or inputs first, a `bias` or none, and a
        forward method of its own: it may multiply by any of torch's operations and apply an activation. One
        that does something else with its weight gives None.
    """
    known: Any = _found["axes"]
    if module not in known:
        known[module] = _linear_axes(module)
    return known[module]  # type: ignore[no-any-return]


def _linear_axes(module: nn.Module) -> tuple[int, int] | None:
    weight = module._parameters.get("weight")
    alone = all(isinstance(child, MultiplicativeNoise) for child in module.children())
    if weight is None or weight.ndim != 2 or not weight.is_floating_point() or not alone:
        return None
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return None
    for outputs, inputs in ((0, 1), (1, 0)):
        for before in ((), (1,)):  # some take only samples of tokens
            shape = (*before, 2, weight.shape[inputs])
            if _proportional(module, shape, -1, weight_axis=inputs, of_inputs=True):
                return outputs, inputs
    return None


def scales_outputs(module: nn.Module, shape: Sequence[int], axis: int, weight_axis: int) -> bool:
    """Whether each output is multiplied by a positive factor when its weights and its bias are.

    Parameters
    ----------
    module : nn.Module
        With a parameter called `weight` and a `bias` or none.
    shape : sequence of int
        Of an input that it takes.
    axis, weight_axis : int
        Of its output and of its weight, which count the outputs.
    """
    known: Any = _found["scales"]
    if module not in known:
        known[module] = _proportional(module, shape, axis, weight_axis=weight_axis)
    return known[module]  # type: ignore[no-any-return]


@torch.no_grad()
def _proportional(
    module: nn.Module, shape: Sequence[int], axis: int, *, weight_axis: int, of_inputs: bool = False
) -> bool:
    """Of inputs: whether it stays the same when an input is divided by what its weights are multiplied by."""
    weight = module._parameters.get("weight")
    if weight is None:
        return False
    random = partial(torch.randn, generator=torch.Generator().manual_seed(0))
    x, fresh = random(*shape).to(weight), random(*weight.shape).to(weight)
    own = module._parameters.get("bias")
    bias = None if own is None else random(*own.shape).to(weight)
    factor = (2.0 ** (torch.arange(weight.shape[weight_axis]) % 3 + 1)).to(weight)
    scaled = fresh * factor.view(tuple(-1 if d == weight_axis else 1 for d in range(weight.ndim)))
    try:
        with torch.random.fork_rng():
            y = _called(module, fresh, bias, x)
            along = tuple(-1 if d == axis % y.ndim else 1 for d in range(y.ndim))
            if of_inputs:
                wanted, found = y, _called(module, scaled, bias, x / factor)
            else:
                bias = None if bias is None else bias * factor
                wanted, found = y * factor.view(along), _called(module, scaled, bias, x)
    except Exception:  # noqa: BLE001 - the user's forward method, which may want other inputs than these
        return False
    largest = float(wanted.abs().max())
    return (
        largest > 0
        and wanted.shape == found.shape
        and float((found - wanted).abs().max()) <= _TOLERANCE * largest
    )


def _called(module: nn.Module, weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """What the module's own forward method gives, without hooks, with other weights, in evaluation mode."""
    twin = copy.copy(module)
    twin._parameters = {**module._parameters, "weight": nn.Parameter(weight)}
    if bias is not None:
        twin._parameters["bias"] = nn.Parameter(bias)
    twin.training = False
    answer: Tensor = type(twin).forward(twin, x)
    return answer
