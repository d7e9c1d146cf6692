"""What noise costs that is free to draw: the floor for any layer that multiplies in torch.

θ and the KL are made once, gradients of the parameters are constants; what is left is one multiplication a
layer forward, two backward, one autograd.Function for all layers, and the optimizer's work for μ and log σ.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.training_step.insertion import placements
from benchmarks.training_step.networks import BATCH
from bmrs_core import kl_divergence
from bmrs_torch.layer import INITIAL_LOG_SIGMA, INITIAL_MU


class _Free(torch.autograd.Function):
    """θ of all layers and the KL, as they lie there; gradients that are not zero."""

    @staticmethod
    def forward(ctx: Any, sources: FreeSources, *_parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.sources = sources
        return (*[theta.detach() for theta in sources.theta], sources.kl.detach())

    @staticmethod
    def backward(ctx: Any, *_grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        sources: FreeSources = ctx.sources
        return None, *sources.gradients.clone().split(sources.splits)


class FreeSources:
    """θ, KL and gradients of the layers of a model, made at their first use.

    Parameters
    ----------
    layers : list of FreeNoise
        In the order of the forward pass; the first asks for all.
    """

    theta: list[Tensor]
    kl: Tensor
    gradients: Tensor

    def __init__(self, layers: list[FreeNoise]) -> None:
        self._layers = layers
        self.splits = 2 * [layer.mu.numel() for layer in layers]
        self.parameters = [*(layer.mu for layer in layers), *(layer.log_sigma for layer in layers)]
        self.given: tuple[Tensor, ...] = ()

    def give(self) -> None:
        """Hand out for one step."""
        if not self.given:
            self._make()
        self.given = _Free.apply(self, *self.parameters)  # type: ignore[no-untyped-call]

    def _make(self) -> None:
        device = self.parameters[0].device
        self.theta = [torch.ones(BATCH, layer.mu.numel(), device=device) for layer in self._layers]
        mu, sigma = (
            torch.cat([one.detach().double().cpu() for one in half])
            for half in (self.parameters[: len(self._layers)], self.parameters[len(self._layers) :])
        )
        self.kl = kl_divergence(mu, sigma.exp()).sum().to(device)
        self.gradients = torch.full((sum(self.splits),), 1e-4, device=device)


class FreeNoise(nn.Module):
    """Multiply by noise that lies ready.

    Parameters
    ----------
    num_structures : int
        Neurons or filters.
    axis : int
        Axis of the activations that counts them.
    """

    def __init__(self, num_structures: int, axis: int) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.full((num_structures,), INITIAL_MU))
        self.log_sigma = nn.Parameter(torch.full((num_structures,), INITIAL_LOG_SIGMA))
        self.axis, self.place = axis, 0
        self.sources: FreeSources | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Multiply."""
        assert self.sources is not None
        if self.place == 0:
            self.sources.give()
        theta = self.sources.given[self.place]
        axis = self.axis % x.ndim
        return x * theta.view(tuple(n if i in (0, axis) else 1 for i, n in enumerate(x.shape)))


def insert_free_noise(model: nn.Module, images: Tensor) -> nn.Module:
    """Put free noise where the package's goes."""
    layers = []
    for placement in placements(model, images):
        noise = FreeNoise(placement.num_structures, placement.axis)
        model.set_submodule(placement.name, nn.Sequential(model.get_submodule(placement.name), noise))
        layers.append(noise)
    sources = FreeSources(layers)
    for place, noise in enumerate(layers):
        noise.sources, noise.place = sources, place
    return model


def free_loss(nll_mean: Tensor, model: nn.Module, num_samples: int) -> Tensor:
    """Add the KL, made once, over the number of samples."""
    sources = next(module.sources for module in model.modules() if isinstance(module, FreeNoise))
    assert sources is not None
    return torch.add(nll_mean, sources.given[-1].to(nll_mean.dtype), alpha=1 / num_samples)
