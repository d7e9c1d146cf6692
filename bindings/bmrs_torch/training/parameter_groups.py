"""Parameter groups for the optimizer: the noise learns faster than the weights."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from bmrs_torch.distributed.sharding import is_divided, put_back
from bmrs_torch.layer import noise_layers
from bmrs_torch.operation.arguments import check_real
from bmrs_torch.wrapping import unwrapped

NOISE_LR_MULTIPLIER = 10.0
"""With it each structure decides early, and ends far from the rule; at 1 all drift across it together."""


def parameter_groups(
    model: nn.Module, lr: float, noise_lr_multiplier: float = NOISE_LR_MULTIPLIER
) -> list[dict[str, Any]]:
    """Split the parameters of a model into weights and noise, each with its learning rate.

    Parameters
    ----------
    model : nn.Module
        A model with noise layers.
    lr : float
        Learning rate of the weights.
    noise_lr_multiplier : float
        The noise parameters learn at ``lr * noise_lr_multiplier``. At 10 each structure decides early, and
        ends far from the rule; at 1 all drift across it together.

    Returns
    -------
    list of two dict
        Groups named ``"weights"`` and ``"noise"``, for any optimizer of torch.optim. Parameters that don't
        require gradients are left out. The noise is exempt from weight decay, which would pull log σ towards
        0, and asks for the fused update, where the optimizer has one: its parameters are many and short. Of a
        model that ``fully_shard`` divided it doesn't: not every fused update takes DTensors.

    Raises
    ------
    ValueError
        If a learning rate is not positive and finite, or the model has no noise layer.
    TypeError
        If it is no number.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import MultiplicativeNoise, parameter_groups
    >>> groups = parameter_groups(nn.Sequential(nn.Linear(2, 3), MultiplicativeNoise(3)), lr=1e-3)
    >>> [(group["name"], len(group["params"]), group["lr"]) for group in groups]
    [('weights', 2, 0.001), ('noise', 2, 0.01)]
    >>> optimizer = torch.optim.Adam(groups)
    """
    for name, value in (("lr", lr), ("noise_lr_multiplier", noise_lr_multiplier)):
        check_real(name, value)
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive and finite, got {value}")
    put_back(unwrapped(model))
    noise = {id(p) for layer in noise_layers(model).values() for p in (layer.mu, layer.log_sigma)}
    fused = {} if is_divided(unwrapped(model)) else {"fused": True}
    trainable = [p for p in model.parameters() if p.requires_grad]
    return [
        {"name": "weights", "params": [p for p in trainable if id(p) not in noise], "lr": lr},
        {
            "name": "noise",
            "params": [p for p in trainable if id(p) in noise],
            "lr": lr * noise_lr_multiplier,
            "weight_decay": 0.0,
            **fused,
        },
    ]
