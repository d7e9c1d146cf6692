"""Gradients of the log normaliser and of the divergence with respect to mu and sigma."""

from __future__ import annotations

from bmrs_core.formulas.constants import HUGE, ONE, QUARTER, TWO, ZERO
from bmrs_core.formulas.moments import central_moments, effective_support, raw_moments
from bmrs_core.formulas.normal import J_any, log_normal_mass, oriented
from bmrs_core.formulas.primitives import Real, decay, expm1, minimum, where
from bmrs_core.formulas.truncated_lognormal import (
    kl_divergence_common,
    kl_divergence_is_rare,
    kl_divergence_rare,
)

__all__ = [
    "boundary_density",
    "boundary_terms",
    "kl_divergence_grad",
    "kl_gradient",
    "log_normalizer_grad",
    "tail_square_excess",
]

# Beyond this distance of both bounds from mu, E[y] and Cov(y, y^2) are exponentially small: sums over
# nodes would leave rounding errors of 1e-16, boundary terms have full relative accuracy.
FAR = 2.5

# The square of a density's root below this is nothing beside 1.
UNSEEN = 1e-10


def boundary_terms(alpha: Real, beta: Real, w: Real) -> tuple[Real, Real, Real]:
    """Return (E[y], E[y^2] - 1, E[y^3] - 2 E[y]) of an interior interval, each over `boundary_density`.

    From phi(alpha) and phi(beta), which is the smaller by e^(-w h); their difference is by expm1.
    """
    lower, upper, h = oriented(alpha, beta)
    fall = decay(-w * h)
    mean = -expm1(-w * h)
    third = lower * lower - upper * (upper * fall)
    flipped = alpha + beta < ZERO
    return where(flipped, -mean, mean), lower - upper * fall, where(flipped, -third, third)


def boundary_density(alpha: Real, beta: Real, w: Real) -> tuple[Real, Real]:
    """Return two factors of phi/Z at the bound nearer to mu, 0 of a tail.

    Their product may be below the range where a gradient, over sigma, is not: the second comes last.
    """
    lower, upper, h = oriented(alpha, beta)
    root = decay(where(lower > ZERO, -HUGE, -QUARTER * lower * lower))
    return root / J_any(lower, upper, w, h), root


def tail_square_excess(alpha: Real, beta: Real, w: Real) -> Real:
    """Return E[y^2] - 1 = (A - B exp(-w h))/J of a tail; of a steep one as it stands, else with expm1."""
    lower, upper, h = oriented(alpha, beta)
    steep = w * h > ONE
    flat = -upper * expm1(-w * h) - w
    return where(steep, lower - upper * decay(-w * h), flat) / J_any(lower, upper, w, h)


def log_normalizer_grad(mu: Real, sigma: Real, a: Real, b: Real) -> tuple[Real, Real, Real]:
    """Return (log Z, d/dmu, d/dsigma): E[y]/sigma and (E[y^2] - 1)/sigma."""
    alpha = (a - mu) / sigma
    beta = (b - mu) / sigma
    w = (b - a) / sigma
    m, start, end = effective_support(alpha, beta, w)
    _j, tau, _square = raw_moments(m, start, end, m)
    mean, square_excess, _third = boundary_terms(alpha, beta, w)
    density, root = boundary_density(alpha, beta, w)
    per_sigma = density / sigma
    outside = (alpha > ZERO) | (beta < ZERO)
    d_mu = where(outside, (m + tau) / sigma, mean * per_sigma * root)
    inside = square_excess * per_sigma * root
    d_sigma = where(outside, tail_square_excess(alpha, beta, w) / sigma, inside)
    return log_normal_mass(alpha, beta, w), d_mu, d_sigma


def kl_gradient(
    alpha: Real, beta: Real, w: Real, sigma: Real, covariance: Real, variance: Real
) -> tuple[Real, Real]:
    """Return (d/dmu, d/dsigma) of KL from Cov(y, y^2) and Var(y^2) as summed over nodes."""
    mean, square_excess, third = boundary_terms(alpha, beta, w)
    density, root = boundary_density(alpha, beta, w)
    seen = square_excess * (density * where(root > UNSEEN, root, ZERO))
    at_bounds = (mean + (third - mean * seen)) * (density / (TWO * sigma)) * root
    far = minimum(-alpha, beta) > FAR
    return -where(far, at_bounds, covariance / (TWO * sigma)), -variance / (TWO * sigma)


def kl_divergence_grad(mu: Real, sigma: Real, a: Real, b: Real) -> tuple[Real, Real, Real]:
    """Return (KL, d/dmu, d/dsigma): -Cov(y, y^2)/(2 sigma) and -Var(y^2)/(2 sigma)."""
    alpha = (a - mu) / sigma
    beta = (b - mu) / sigma
    w = (b - a) / sigma
    m, start, end = effective_support(alpha, beta, w)
    _j, tau, square = raw_moments(m, start, end, m)
    covariance, variance = central_moments(m, start, end, tau, square)
    d_mu, d_sigma = kl_gradient(alpha, beta, w, sigma, covariance, variance)
    rare = kl_divergence_is_rare(mu, sigma, a, b)
    value = where(rare, kl_divergence_rare(mu, sigma, a, b), kl_divergence_common(mu, sigma, a, b))
    return value, d_mu, d_sigma
