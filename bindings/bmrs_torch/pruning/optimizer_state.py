"""Let an optimizer go on with a model whose parameters have become smaller."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def rebind_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, smaller: nn.Module, surviving: dict[str, Tensor]
) -> None:
    """Replace a model's parameters in an optimizer by those of a smaller model, and cut their state to match.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Changed in place; parameters that aren't the model's stay.
    model, smaller : nn.Module
        The model before and after; their parameters have the same names.
    surviving : dict of str to int64 Tensor
        For each parameter the indices of its surviving entries, in their new shape.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    successors = dict(smaller.named_parameters())
    for group in optimizer.param_groups:
        for i, parameter in enumerate(group["params"]):
            name = names.get(parameter)
            if name is None:
                continue
            group["params"][i] = successors[name]
            if parameter in optimizer.state:
                state = optimizer.state.pop(parameter)
                optimizer.state[successors[name]] = _cut(state, parameter.shape, surviving[name])


def _cut(state: dict[str, Any], shape: torch.Size, surviving: Tensor) -> dict[str, Any]:
    def cut(value: Any) -> Any:
        if isinstance(value, Tensor) and value.ndim and value.shape == shape:
            return value.flatten()[surviving.to(value.device)]
        return value

    return {key: cut(value) for key, value in state.items()}
