"""What depends on the parameters alone: the KL of the noise from its prior, and E[theta], with gradients."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from bmrs_kernels.gpu.draws import LIMIT, precise_exp
from bmrs_kernels.gpu.formulas import FORMULAS, TEXTS

__all__ = ["divergence", "noise_mean"]

_interpreted = triton.knobs.runtime.interpret
_constant: Any = (lambda value: value) if _interpreted else tl.constexpr
# Of a bound from mu, in sigma: the density is 0 there, and cubes do not overflow.
FAR = _constant(1e9)
# Farther outside the support, in sigma, squares overflow: the answer is NaN there. Training ends long before.
REACH = _constant(1e17)
# So wide a normal is uniform on any support: E[theta] would be a ratio of two overflows.
WIDEST = _constant(1e13)

kl_divergence_common = TEXTS["kl_divergence_common"]
kl_divergence_is_rare = TEXTS["kl_divergence_is_rare"]
kl_divergence_rare = TEXTS["kl_divergence_rare"]
effective_support = TEXTS["effective_support"]
raw_moments = TEXTS["raw_moments"]
central_moments = TEXTS["central_moments"]
kl_gradient = TEXTS["kl_gradient"]
mean = FORMULAS["mean"]
log_mean_grad = FORMULAS["log_mean_grad"]


@triton.jit
def usable(mu, log_sigma):
    """Tell which parameters the noise can be computed with."""
    return (tl.abs(mu) < float("inf")) & (tl.abs(log_sigma) <= LIMIT)


@triton.jit
def divergence(
    mu_ptr,
    log_sigma_ptr,
    mask_ptr,
    starts_ptr,
    bounds_ptr,
    sums_ptr,
    gradients_ptr,
    structures,
    WANT_GRADIENTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One block of one layer: its KL and kept structures to `sums` [2, layers, blocks], and its gradients.

    The parameters of all layers lie end to end, those of layer i from starts[i] on; bounds are [2, layers].
    """
    layer = tl.program_id(0)
    layers = tl.num_programs(0)
    c = tl.load(starts_ptr + layer) + tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = c < tl.load(starts_ptr + layer + 1)
    a = tl.load(bounds_ptr + layer)
    b = tl.load(bounds_ptr + layers + layer)
    kept = tl.load(mask_ptr + c, mask=there, other=0.0) != 0.0
    mu = tl.load(mu_ptr + c, mask=there, other=0.0)
    log_sigma = tl.load(log_sigma_ptr + c, mask=there, other=0.0)
    good = usable(mu, log_sigma)
    mu = tl.where(good, mu, 0.0)
    sigma = precise_exp(tl.where(good, log_sigma, 0.0))
    good = good & (tl.maximum(a - mu, mu - b) <= REACH * sigma)
    factor = tl.where(kept, tl.where(good, 1.0, float("nan")), 0.0)
    value = tl.where(
        kl_divergence_is_rare(mu, sigma, a, b),
        kl_divergence_rare(mu, sigma, a, b),
        kl_divergence_common(mu, sigma, a, b),
    )
    place = layer * tl.num_programs(1) + tl.program_id(1)
    tl.store(sums_ptr + place, tl.sum(tl.where(kept, value * factor, 0.0)))
    tl.store(sums_ptr + layers * tl.num_programs(1) + place, tl.sum(kept.to(tl.float32)))
    if WANT_GRADIENTS:
        alpha = tl.maximum((a - mu) / sigma, -FAR)
        beta = tl.minimum((b - mu) / sigma, FAR)
        w = tl.minimum((b - a) / sigma, FAR)
        m, start, end = effective_support((a - mu) / sigma, (b - mu) / sigma, (b - a) / sigma)
        _j, tau, square = raw_moments(m, start, end, m)
        covariance, variance = central_moments(m, start, end, tau, square)
        by_mu, by_sigma = kl_gradient(alpha, beta, w, sigma, covariance, variance)
        tl.store(gradients_ptr + c, tl.where(kept, by_mu * factor, 0.0), mask=there)
        second = gradients_ptr + structures + c
        tl.store(second, tl.where(kept, sigma * by_sigma * factor, 0.0), mask=there)


@triton.jit
def noise_mean(
    mu_ptr, log_sigma_ptr, out_ptr, structures, a, b, GRADIENTS: tl.constexpr, BLOCK: tl.constexpr
):
    """E[theta] of every structure, or its derivatives by mu and log sigma, [2, structures]."""
    c = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = c < structures
    mu = tl.load(mu_ptr + c, mask=there, other=0.0)
    log_sigma = tl.load(log_sigma_ptr + c, mask=there, other=0.0)
    good = usable(mu, log_sigma)
    mu = tl.where(good, mu, 0.0)
    sigma = tl.minimum(precise_exp(tl.where(good, log_sigma, 0.0)), WIDEST)
    value = mean(mu, sigma, a, b) * tl.where(good, 1.0, float("nan"))
    if GRADIENTS:
        _log_mean, by_mu, by_sigma = log_mean_grad(mu, sigma, a, b)
        tl.store(out_ptr + c, value * by_mu, mask=there)
        tl.store(out_ptr + structures + c, value * by_sigma * sigma, mask=there)
    else:
        tl.store(out_ptr + c, value, mask=there)
