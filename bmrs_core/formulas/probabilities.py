"""Density, probabilities and entropy of theta under q in natural units, and what they change by.

A density is not the exponential of its logarithm, whose rounding error grows with its size: the mass
and theta are divided by as they are.
"""

from __future__ import annotations

from bmrs_core.formulas.constants import HALF, ONE, TWO, ZERO
from bmrs_core.formulas.delta_f import log_mass
from bmrs_core.formulas.density import logpdf
from bmrs_core.formulas.gradients import UNSEEN, boundary_density, boundary_terms
from bmrs_core.formulas.moments import central_moments, effective_support, raw_moments
from bmrs_core.formulas.normal import J_any, oriented
from bmrs_core.formulas.primitives import Bool, Real, exp, log, maximum, minimum, where
from bmrs_core.formulas.truncated_lognormal import (
    ROOT_BEYOND,
    kl_divergence_common,
    kl_divergence_is_rare,
    kl_divergence_rare,
    mode_of,
)

__all__ = ["cdf", "entropy", "entropy_grad", "is_inside", "log_within", "logpdf_grad", "logsf", "pdf", "sf"]


def log_within(theta: Real, a: Real, b: Real) -> Real:
    """Return log theta, of a theta outside the support that of the nearer bound."""
    return minimum(maximum(log(maximum(theta, ZERO)), a), b)


def is_inside(theta: Real, a: Real, b: Real) -> Bool:
    """Tell whether theta lies in the support."""
    return (theta >= exp(a)) & (theta <= exp(b)) & (theta > ZERO)


def pdf(theta: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return q(theta) per unit of theta, 0 outside the support; what is NaN stays so.

    Far from the mode the exponential is the square of a root, of which one comes last: alone it may leave the
    range where it is not yet divided by theta.
    """
    x = log_within(theta, a, b)
    inside = is_inside(theta, a, b)
    lower, upper, h = oriented((a - mu) / sigma, (b - mu) / sigma)
    mode = mode_of(mu, a, b)
    exponent = -HALF * ((x - mode) / sigma) * ((x - mu) / sigma + (mode - mu) / sigma)
    far = exponent < -ROOT_BEYOND
    root = exp(where(far, HALF * exponent, exponent))
    per_x = root / (sigma * J_any(lower, upper, (b - a) / sigma, h))
    return where(inside, per_x / where(inside, theta, ONE) * where(far, root, ONE), ZERO * per_x)


def cdf(theta: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return P(Theta <= theta)."""
    return exp(log_mass(a, log_within(theta, a, b), mu, sigma, a, b))


def logsf(theta: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return log P(Theta > theta)."""
    return log_mass(log_within(theta, a, b), b, mu, sigma, a, b)


def sf(theta: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return P(Theta > theta), of which nothing is lost where it is small."""
    return exp(logsf(theta, mu, sigma, a, b))


def logpdf_grad(theta: Real, mu: Real, sigma: Real, a: Real, b: Real) -> tuple[Real, Real, Real]:
    """Return (log q(theta), d/dmu, d/dsigma): y - E[y] and y^2 - E[y^2], over sigma; 0 outside.

    Both are differences of distances from the mode, not from mu.
    """
    m, start, end = effective_support((a - mu) / sigma, (b - mu) / sigma, (b - a) / sigma)
    _j, tau_mean, square_mean = raw_moments(m, start, end, m)
    tau = (log_within(theta, a, b) - mode_of(mu, a, b)) / sigma
    inside = is_inside(theta, a, b)
    d_mu = (tau - tau_mean) / sigma
    d_sigma = (tau * (TWO * m + tau) - square_mean) / sigma
    value = logpdf(theta, mu, sigma, a, b)
    return value, where(inside, d_mu, ZERO * d_mu), where(inside, d_sigma, ZERO * d_mu)


def entropy_grad(mu: Real, sigma: Real, a: Real, b: Real) -> tuple[Real, Real, Real]:
    """Return (H, d/dmu, d/dsigma) of H = E[x] + log(b - a) - KL(q || p), the entropy of theta.

    E[x] changes by Var(y) and Cov(y, y^2). Var(tau) is a difference of raw moments: the mode is an end of
    the support or near the mean, and at most a factor of 4 is lost.
    """
    alpha = (a - mu) / sigma
    beta = (b - mu) / sigma
    w = (b - a) / sigma
    m, start, end = effective_support(alpha, beta, w)
    _j, tau, square = raw_moments(m, start, end, m)
    _total, _tau, tau_square = raw_moments(m, start, end, ZERO)
    covariance, variance = central_moments(m, start, end, tau, square)
    d_mu = (tau_square - tau * tau) + HALF * covariance / sigma
    d_sigma = covariance + HALF * variance / sigma
    return entropy(mu, sigma, a, b), d_mu, d_sigma


def entropy(mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return H = E[x] + log(b - a) - KL(q || p), the entropy of theta in nats."""
    alpha = (a - mu) / sigma
    beta = (b - mu) / sigma
    w = (b - a) / sigma
    m, start, end = effective_support(alpha, beta, w)
    _j, tau, _square = raw_moments(m, start, end, m)
    interior, _second, _third = boundary_terms(alpha, beta, w)
    outside = (alpha > ZERO) | (beta < ZERO)
    density, root = boundary_density(alpha, beta, w)
    seen = interior * (density * where(root > UNSEEN, root, ZERO))
    mean = mode_of(mu, a, b) + sigma * where(outside, tau, seen)
    rare = kl_divergence_is_rare(mu, sigma, a, b)
    divergence = where(rare, kl_divergence_rare(mu, sigma, a, b), kl_divergence_common(mu, sigma, a, b))
    return mean + (log(b - a) - divergence)
