"""States of a model's gates: wide open, of any strength, closed in part."""

from __future__ import annotations

import torch
from torch import nn

from bmrs_torch import noise_layers


def open_wide(model: nn.Module) -> nn.Module:
    """E[θ] within 1e-5 of 1 everywhere: log θ lies within some 1e-6 of −1e-6, below the bound 0."""
    with torch.no_grad():
        for layer in noise_layers(model).values():
            layer.mask.fill_(1)
            layer.mu.fill_(-1e-6)
            layer.log_sigma.fill_(-16.0)
    return model


def scatter(model: nn.Module) -> nn.Module:
    """E[θ] between about 0.1 and 0.9, another for each structure: no two may be mistaken for each other."""
    with torch.no_grad():
        for layer in noise_layers(model).values():
            layer.mu.copy_(torch.linspace(-2.0, -0.1, layer.num_structures))
            layer.log_sigma.fill_(-2.0)
    return model


def close(model: nn.Module, share: float = 0.4) -> nn.Module:
    """Mask that share of each layer's structures, at least one, the first ones."""
    for layer in noise_layers(model).values():
        layer.mask[: max(1, int(share * layer.num_structures))] = 0
    return model
