"""Parameters, statistics and masks with which a wrong channel shows."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from bmrs_torch import MultiplicativeNoise, noise_layers
from bmrs_torch.channels.calling import call

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def _uniform(like: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator) * (high - low) + low


@torch.no_grad()
def randomize(model: nn.Module, seed: int = 0) -> None:
    """Give every parameter of a model different values from channel to channel.

    Fresh networks hide errors: their norms have no offsets, their biases are 0, and so are the heads of many
    transformers, which then answer 0 whatever comes in.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, MultiplicativeNoise):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim > 1 and isinstance(module, _LAYERS):
                # Of a size that neither dies out nor explodes through many layers (He et al., 2015).
                scale = math.sqrt(2.0 / (parameter.numel() / parameter.shape[0]))
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
            elif parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
                offset = name.endswith("bias")
                low, high = (-0.3, 0.3) if offset or parameter.ndim > 1 else (0.5, 1.5)
                parameter.copy_(_uniform(parameter, low, high, generator))


@torch.no_grad()
def randomize_noise(model: nn.Module, seed: int = 0) -> None:
    """Give every gate another factor."""
    generator = torch.Generator().manual_seed(seed)
    for layer in noise_layers(model).values():
        layer.mu.copy_(_uniform(layer.mu, -0.7, 0.0, generator))
        layer.log_sigma.copy_(_uniform(layer.log_sigma, -4.0, -2.0, generator))


@torch.no_grad()
def randomize_statistics(model: nn.Module, inputs: Any, seed: int = 0) -> None:
    """Give every BatchNorm statistics near those of its inputs, so that signals pass, but not the same."""
    generator = torch.Generator().manual_seed(seed)
    norms = [m for m in model.modules() if isinstance(m, _NORMS)]
    for norm in norms:
        norm.momentum = None  # the statistics of this one evaluation
    call(model.train(), inputs)
    for norm in norms:
        norm.momentum = 0.1
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None
        assert variance is not None
        variance.clamp_(min=0.1).mul_(torch.rand(variance.shape, generator=generator) + 0.5)
        mean.add_(variance.sqrt() * (torch.rand(mean.shape, generator=generator) - 0.5))
    model.eval()


@torch.no_grad()
def mask(model: nn.Module, dead: float, seed: int = 0) -> None:
    """Mask that part of each noise layer's structures, to the nearest number, but never all of them."""
    generator = torch.Generator().manual_seed(seed)
    for layer in noise_layers(model).values():
        number = min(round(dead * layer.num_structures), layer.num_structures - 1)
        layer.mask.fill_(1)
        layer.mask[torch.randperm(layer.num_structures, generator=generator)[:number]] = 0
