"""Density and distribution function of theta under q, and the log-uniform prior (paper Eq. 7)."""

from __future__ import annotations

from bmrs_core.formulas.constants import HALF, ONE, ZERO
from bmrs_core.formulas.delta_f import log_mass
from bmrs_core.formulas.normal import J_any, oriented
from bmrs_core.formulas.primitives import Real, absolute, exp, log, maximum, minimum, where

__all__ = ["log_density", "log_uniform_cdf", "log_uniform_pdf", "log_uniform_quantile", "logcdf", "logpdf"]


def log_density(x: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return log q(x) of x = log theta per unit of x; outside the support that of the bound."""
    y = minimum(maximum(x, a), b)
    lower, upper, h = oriented((a - mu) / sigma, (b - mu) / sigma)
    mode = minimum(maximum(mu, a), b)
    exponent = -HALF * ((y - mode) / sigma) * ((y - mu) / sigma + (mode - mu) / sigma)
    return exponent - log(sigma * J_any(lower, upper, (b - a) / sigma, h))


def logpdf(theta: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return log q(theta), -inf outside the support; what is NaN stays so by way of the density."""
    x = minimum(maximum(log(maximum(theta, ZERO)), a), b)
    density = log_density(x, mu, sigma, a, b) - x
    inside = (theta >= exp(a)) & (theta <= exp(b)) & (theta > ZERO)
    return where(inside, density, density + log(ZERO * sigma))


def logcdf(theta: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return log P(Theta <= theta)."""
    return log_mass(a, minimum(maximum(log(maximum(theta, ZERO)), a), b), mu, sigma, a, b)


def log_uniform_pdf(theta: Real, a: Real, b: Real) -> Real:
    """Return p(theta) = 1 / (theta (b - a)) on the support, else 0."""
    inside = (theta >= exp(a)) & (theta <= exp(b))
    outside = ZERO * minimum(absolute(theta), ONE)
    return where(inside, ONE / (maximum(theta, exp(a)) * (b - a)), outside)


def log_uniform_cdf(theta: Real, a: Real, b: Real) -> Real:
    """Return P(Theta <= theta) under the prior."""
    return (minimum(maximum(log(maximum(theta, ZERO)), a), b) - a) / (b - a)


def log_uniform_quantile(u: Real, a: Real, b: Real) -> Real:
    """Return theta with P(Theta <= theta) = u under the prior, rounded into the support."""
    return minimum(exp(a + u * (b - a)), exp(b))
