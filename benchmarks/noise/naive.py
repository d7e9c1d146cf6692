"""The formulas as people write them: Eq. 7 by inverse cdf with erf and erfinv, in eager torch, with autograd.

They are the published approach, and they are inaccurate: Φ(β) − Φ(α) cancels in a tail, erfinv overflows
next to ±1, and float32 makes both worse. They are right for mild parameters only, where they are checked.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ROOT_2 = math.sqrt(2.0)
ROOT_2PI = math.sqrt(2.0 * math.pi)


def cdf(t: Tensor) -> Tensor:
    """Φ."""
    return 0.5 * (1.0 + torch.erf(t / ROOT_2))


def density(t: Tensor) -> Tensor:
    """φ."""
    return torch.exp(-0.5 * t * t) / ROOT_2PI


def noise(
    x: Tensor,
    mu: Tensor,
    log_sigma: Tensor,
    noise_shape: tuple[int, ...],
    axis: int,
    *,
    hoisted: bool = False,
    log_a: float = -20.0,
    log_b: float = 0.0,
) -> Tensor:
    """x·θ with θ = exp(μ + σ Φ⁻¹(Φ(α) + u (Φ(β) − Φ(α)))), u uniform of `noise_shape`.

    The published code gives the parameters the shape of θ before anything else; `hoisted` computes what
    depends on the structure alone once per structure.
    """
    along = tuple(-1 if i == axis else 1 for i in range(x.ndim))
    shape = along if hoisted else noise_shape
    mu, log_sigma = (parameter.view(along).expand(shape) for parameter in (mu, log_sigma))
    sigma = log_sigma.exp()
    start, stop = cdf((log_a - mu) / sigma), cdf((log_b - mu) / sigma)
    u = torch.rand(noise_shape, dtype=mu.dtype, device=x.device)
    # Without the clamp erfinv(±1) is infinite, and one such draw makes every gradient NaN.
    eps = torch.finfo(mu.dtype).eps
    p = (start + u * (stop - start)).clamp(eps, 1.0 - eps)
    theta = torch.exp(mu + sigma * ROOT_2 * torch.erfinv(2.0 * p - 1.0))
    return x * theta.to(x.dtype)


def kl_divergence(mu: Tensor, log_sigma: Tensor, *, log_a: float = -20.0, log_b: float = 0.0) -> Tensor:
    """Σ log(b − a) − log(√(2πe) σ Z) − (αφ(α) − βφ(β))/(2Z), over the structures of one layer."""
    sigma = log_sigma.exp()
    alpha, beta = (log_a - mu) / sigma, (log_b - mu) / sigma
    mass = cdf(beta) - cdf(alpha)
    entropy = torch.log(ROOT_2PI * math.sqrt(math.e) * sigma * mass)
    entropy = entropy + (alpha * density(alpha) - beta * density(beta)) / (2.0 * mass)
    return (math.log(log_b - log_a) - entropy).sum()
