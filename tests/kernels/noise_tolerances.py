"""How far an implementation may be from the exact result, derived from what it may round.

With eps that of the arithmetic (float32 unless x is float64) and κ the condition of log θ, the sum of
|input ∂ log θ/∂input| and at least 1:

θ                       16 eps κ, relative: the bar of the package for quantiles
dθ/dμ = θ ∂x/∂μ         ∂x/∂μ, which lies in [0, 1], to 32 eps
dθ/dlog σ = θ σ ∂x/∂σ   σ ∂x/∂σ, a term of κ, to 32 eps κ
sums                    64 eps of the sum of magnitudes: stretches of at most 2,048 products, added up in
                        at least 32 partial sums, are carried in the arithmetic, all else in float64
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmrs_core import logpdf
from bmrs_kernels.contract import NoiseLayout
from bmrs_torch.operation.reference import draw_noise_and_derivatives, draw_uniforms

__all__ = ["Tolerances", "tolerances"]

THETA = 16.0
DERIVATIVE = 32.0
SUM = 64.0


class Tolerances(NamedTuple):
    """Largest absolute error of each result, of its shape."""

    y: Tensor
    dx: Tensor
    d_mu: Tensor
    d_log_sigma: Tensor


def tolerances(
    x: Tensor, dy: Tensor, parameters: tuple[Tensor, Tensor], mask: Tensor, seed: Tensor, layout: NoiseLayout
) -> Tolerances:
    """Tolerances of one forward and backward pass."""
    arithmetic = torch.float64 if x.dtype == torch.float64 else torch.float32
    eps = torch.finfo(arithmetic).eps
    view = tuple(-1 if i == layout.axis else 1 for i in range(x.ndim))
    masks = (mask != 0).view(view)
    kept = mask != 0
    mu, log_sigma = (torch.where(kept, parameter, 0.0).double() for parameter in parameters)
    uniforms = draw_uniforms(x.shape, mu, log_sigma, seed, layout)
    theta, by_mu, by_log_sigma = (
        torch.from_numpy(np.ascontiguousarray(part)) for part in draw_noise_and_derivatives(uniforms, layout)
    )
    kappa = _condition(
        uniforms.u, theta, by_mu / theta, by_log_sigma / theta, (mu.view(view), log_sigma.view(view)), layout
    )
    relative = THETA * eps * kappa + torch.finfo(x.dtype).eps / 2 + eps / 2
    # A θ below the normal numbers may become 0, and so may a result below those of the format of x.
    flushed = torch.finfo(arithmetic).tiny
    least = torch.finfo(x.dtype).smallest_normal * torch.finfo(x.dtype).eps

    def of_product(factor: Tensor) -> Tensor:
        size = torch.where(masks, factor.double().abs(), 0.0)
        return size * (theta * relative + flushed) + least

    products = torch.where(masks, dy.double() * x.double(), 0.0).abs()
    shared = [i for i, size in enumerate(theta.shape) if size != x.shape[i]]
    weight = products.sum(shared, keepdim=True) if shared else products

    def of_sum(derivative: Tensor, own: Tensor, dtype: torch.dtype) -> Tensor:
        each = theta * own + (THETA * kappa + SUM) * derivative.abs()
        others = [i for i in range(x.ndim) if i != layout.axis]
        total = (weight * (eps * each + flushed)).sum(others) if others else weight * (eps * each + flushed)
        exact = (weight * derivative.abs()).sum(others) if others else weight * derivative.abs()
        return total + torch.finfo(dtype).eps * exact

    return Tolerances(
        of_product(x),
        of_product(dy),
        of_sum(by_mu, torch.full_like(kappa, DERIVATIVE), parameters[0].dtype),
        of_sum(by_log_sigma, DERIVATIVE * kappa, parameters[1].dtype),
    )


def _condition(
    u: NDArray[np.float64],
    theta: Tensor,
    by_mu: Tensor,
    by_log_sigma: Tensor,
    parameters: tuple[Tensor, Tensor],
    layout: NoiseLayout,
) -> Tensor:
    """κ: ∂x/∂a and ∂x/∂b are not negative and add up to 1 − ∂x/∂μ; ∂x/∂u is 1/density."""
    mu, sigma = parameters[0], parameters[1].exp()
    log_density = np.log(theta.numpy()) + logpdf(
        theta.numpy(), mu.numpy(), sigma.numpy(), log_a=layout.log_a, log_b=layout.log_b
    )
    by_u = torch.from_numpy(np.minimum(u, 1.0 - u) * np.exp(-log_density))
    farthest = max(abs(layout.log_a), abs(layout.log_b))
    terms = mu.abs() * by_mu + by_log_sigma.abs() + farthest * (1.0 - by_mu).clamp_min(0.0) + by_u
    return terms.clamp_min(1.0)
