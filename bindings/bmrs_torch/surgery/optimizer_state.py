"""Let an optimizer go on with a model whose parameters have become smaller."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bmrs_torch.channels.computed import computed_tensors
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
    # Weights that are no longer computed, such as spectral_norm's, take the place of what they were made of.
    made_of = {name: t.full_name for t in computed_tensors(model) for name in t.originals()}
    for group in optimizer.param_groups:
        for i, parameter in enumerate(group["params"]):
            name = names.get(parameter)
            if name is None:
                continue
            state = optimizer.state.pop(parameter, None)
            group["params"][i] = successors[name if name in successors else made_of[name]]
            if name in successors and state is not None:
                optimizer.state[successors[name]] = _cut(state, parameter.shape, name, cut)
        group["params"] = list(dict.fromkeys(group["params"]))


def _cut(state: dict[str, Any], shape: torch.Size, name: str, cut: Cut) -> dict[str, Any]:
    def smaller(value: Any) -> Any:
        moment = isinstance(value, Tensor) and value.ndim and value.shape == shape
        return cut.apply(name, value) if moment and cut.changes(name) else value

    return {key: smaller(value) for key, value in state.items()}
