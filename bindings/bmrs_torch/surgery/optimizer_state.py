"""Let an optimizer go on with a model whose parameters have become smaller."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bmrs_torch.surgery.cutting import Cut


def rebind_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, smaller: nn.Module, cut: Cut
) -> None:
    """Replace a model's parameters in an optimizer by those of a smaller model, and cut their state to match.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Changed in place; parameters that aren't the model's stay.
    model, smaller : nn.Module
        The model before and after; their parameters have the same names.
    cut : Cut
        What was cut out of each parameter.
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
                optimizer.state[successors[name]] = _cut(state, parameter.shape, name, cut)


def _cut(state: dict[str, Any], shape: torch.Size, name: str, cut: Cut) -> dict[str, Any]:
    def smaller(value: Any) -> Any:
        moment = isinstance(value, Tensor) and value.ndim and value.shape == shape
        return cut.apply(name, value) if moment and cut.changes(name) else value

    return {key: smaller(value) for key, value in state.items()}
