"""The rivals in the KL divergence of a model of many layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.noise import naive
from benchmarks.noise.problem import MILD, TRAINING, Problem, Ranges, draw_parameters
from benchmarks.noise.variant import (
    COMPILED,
    NAIVE,
    OURS,
    Variant,
    WrongResultError,
    compiled,
    differentiate,
)
from bmrs_core import kl_divergence_grad
from bmrs_torch import MultiplicativeNoise, kl_divergence

# Of the sum; and of the largest gradient. The naive formula cancels in float32, even for mild parameters.
TOLERANCE = {OURS: 1e-4, NAIVE: 1e-2, COMPILED: 1e-2}


def rivals(problem: Problem, *, with_compiled: bool) -> Iterator[tuple[str, Callable[[], Variant]]]:
    """Names, and what makes and checks each rival, raising where it must not be reported."""
    yield OURS, partial(_ours, problem)
    yield NAIVE, partial(_naive, problem, NAIVE)
    if with_compiled:
        yield COMPILED, partial(_naive, problem, COMPILED)


def draw_model(problem: Problem, ranges: Ranges) -> nn.Module:
    """Make a model that is nothing but noise layers."""
    layers, structures = problem.shape
    generator = torch.Generator().manual_seed(problem.seed)
    noise = [MultiplicativeNoise(structures) for _ in range(layers)]
    with torch.no_grad():
        for layer in noise:
            mu, log_sigma = draw_parameters((structures,), ranges, generator)
            layer.mu.copy_(mu)
            layer.log_sigma.copy_(log_sigma)
    return nn.Sequential(*noise).to(device=problem.device, dtype=problem.torch_dtype)


def _ours(problem: Problem) -> Variant:
    model = draw_model(problem, TRAINING)
    variant = differentiate(OURS, partial(kl_divergence, model), tuple(model.parameters()), None)
    check(variant, model)
    return variant


def _naive(problem: Problem, name: str) -> Variant:
    formula = compiled(naive.kl_divergence, problem.device) if name == COMPILED else naive.kl_divergence
    mild, model = draw_model(problem, MILD), draw_model(problem, TRAINING)
    check(_bind(name, formula, mild), mild)
    return _bind(name, formula, model)


def _bind(name: str, formula: Callable[..., Tensor], model: nn.Module) -> Variant:
    pairs = [(layer.mu, layer.log_sigma) for layer in model.children()]
    return differentiate(
        name, lambda: torch.stack([formula(*pair) for pair in pairs]).sum(), tuple(model.parameters()), None
    )


def check(variant: Variant, model: nn.Module) -> None:
    """Raise WrongResultError unless value and gradients are those of bmrs_core, summed."""
    parameters = [parameter.detach().double().cpu().numpy() for parameter in model.parameters()]
    mu, sigma = np.concatenate(parameters[0::2]), np.exp(np.concatenate(parameters[1::2]))
    values, d_mu, d_sigma = kl_divergence_grad(mu, sigma)
    total = variant.forward()
    gradients = [one.detach().double().cpu().numpy() for one in variant.backward(total)]
    for what, found, expected in (
        ("KL", np.array([float(total.detach())]), np.array([values.sum()])),
        ("dμ", np.concatenate(gradients[0::2]), d_mu),
        ("dlog σ", np.concatenate(gradients[1::2]), sigma * d_sigma),
    ):
        worst = float(np.max(np.abs(found - expected)) / np.max(np.abs(expected)))
        if not worst <= TOLERANCE[variant.name]:
            raise WrongResultError(f"{what} is off by {worst:.1e}, more than {TOLERANCE[variant.name]:.0e}")
