"""The noise of a divided network, whole, without the network: all that most criteria look at."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bmrs_torch.distributed.sharding import is_divided, is_sharded, put_back
from bmrs_torch.layer import MultiplicativeNoise, noise_layers
from bmrs_torch.wrapping import unwrapped

__all__ = ["noise_alone"]


def noise_alone(model: nn.Module) -> nn.Module:
    """A module that has the noise layers of a divided model by their names; a model that is whole as it is.

    A collective of all processes among which the model is divided: μ, log σ and masks are gathered.

    Parameters
    ----------
    model : nn.Module
        With noise layers; left as it is.
    """
    model = unwrapped(model)
    if not is_divided(model):
        return model
    put_back(model)
    alone = nn.Module()
    for name, layer in noise_layers(model).items():
        if not name:
            return _whole(layer)
        *parents, own = name.split(".")
        place = alone
        for parent in parents:
            if parent not in place._modules:
                place.add_module(parent, nn.Module())
            place = place.get_submodule(parent)
        place.add_module(own, _whole(layer))
    return alone


@torch.no_grad()
def _whole(layer: MultiplicativeNoise) -> MultiplicativeNoise:
    bounds = {"log_a": layer.log_a, "log_b": layer.log_b}
    alone = MultiplicativeNoise(layer.num_structures, axis=layer.axis, share=layer.share, **bounds)
    alone.mu, alone.log_sigma = nn.Parameter(_gathered(layer.mu)), nn.Parameter(_gathered(layer.log_sigma))
    alone.mask.copy_(layer.mask)
    return alone.to(layer.mask.device)


def _gathered(parameter: Tensor) -> Tensor:
    return parameter.full_tensor() if is_sharded(parameter) else parameter
