"""Density and distribution function of theta under q, and the log-uniform prior (paper Eq. 7)."""

from __future__ import annotations

from bmrs_core.formulas.constants import HALF, TINY, ZERO
from bmrs_core.formulas.delta_f import log_mass
from bmrs_core.formulas.normal import J_any, oriented
from bmrs_core.formulas.primitives import Real, exp, log, maximum, minimum, where

__all__ = ["log_density", "log_uniform_cdf", "log_uniform_pdf", "log_uniform_quantile", "logcdf", "logpdf"]


def log_density(x: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return log q(x) of x = log theta per unit of x, -inf outside the support."""
    lower, upper, h = oriented((a - mu) / sigma, (b - mu) / sigma)
    mode = minimum(maximum(mu, a), b)
    exponent = -HALF * ((x - mode) / sigma) * ((x - mu) / sigma + (mode - mu) / sigma)
    density = exponent - log(sigma * J_any(lower, upper, (b - a) / sigma, h))
    return where(x < a, log(ZERO * density), where(x > b, log(ZERO * density), density))


def logpdf(theta: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return log q(theta), -inf outside the support."""
    x = log(maximum(theta, ZERO))
    return log_density(x, mu, sigma, a, b) - where(x < a, ZERO, x)


def logcdf(theta: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return log P(Theta <= theta)."""
    x = minimum(maximum(log(maximum(theta, TINY)), a), b)
    return where(x > a, log_mass(a, x, mu, sigma, a, b), log(ZERO * theta))


def log_uniform_pdf(theta: Real, a: Real, b: Real) -> Real:
    """Return p(theta) = 1 / (theta (b - a)) on the support, else 0."""
    inside = (theta >= exp(a)) & (theta <= exp(b))
    return where(inside, 1 / (maximum(theta, TINY) * (b - a)), ZERO * theta)


def log_uniform_cdf(theta: Real, a: Real, b: Real) -> Real:
    """Return P(Theta <= theta) under the prior."""
    return (minimum(maximum(log(maximum(theta, TINY)), a), b) - a) / (b - a)


def log_uniform_quantile(u: Real, a: Real, b: Real) -> Real:
    """Return theta with P(Theta <= theta) = u under the prior."""
    return exp(a + u * (b - a))
