"""The noise layer as people write it: a draw per activation, eager formulas, the KL layer by layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.noise import naive
from benchmarks.training_step.insertion import placements
from bmrs_torch.layer import INITIAL_LOG_SIGMA, INITIAL_MU


class NaiveNoise(nn.Module):
    """Multiply each activation by noise of its own, spatial positions included.

    Parameters
    ----------
    num_structures : int
        Neurons or filters.
    axis : int
        Axis of the activations that counts the structures.
    """

    def __init__(self, num_structures: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.mu = nn.Parameter(torch.full((num_structures,), INITIAL_MU))
        self.log_sigma = nn.Parameter(torch.full((num_structures,), INITIAL_LOG_SIGMA))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply by θ."""
        return naive.noise(x, self.mu, self.log_sigma, tuple(x.shape), self.axis % x.ndim)


def insert_naive_noise(model: nn.Module, images: Tensor) -> nn.Module:
    """Put naive noise where the package's goes."""
    for placement in placements(model, images):
        layer = model.get_submodule(placement.name)
        noise = NaiveNoise(placement.num_structures, placement.axis)
        model.set_submodule(placement.name, nn.Sequential(layer, noise))
    return model


def naive_loss(nll_mean: Tensor, model: nn.Module) -> Tensor:
    """Add the mean over layers of the mean KL over structures, as the published code does."""
    layers = [layer for layer in model.modules() if isinstance(layer, NaiveNoise)]
    divergences = [naive.kl_divergence(layer.mu, layer.log_sigma) / layer.mu.numel() for layer in layers]
    return nll_mean + torch.stack(divergences).mean()
