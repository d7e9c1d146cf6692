"""The paper's formulas as they are printed, vectorised in NumPy and nothing more.

Each works in the precision of its arguments. What goes wrong, goes wrong silently: Φ(β) − Φ(α) is 0 in a
tail, and the
squares of Eq. 8 are near 4·10¹⁴ at σ̃_p = 1e-6.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, ndtri

Array = NDArray[Any]
Bound = float | Array

ROOT2 = 2.0**0.5
TWO_PI = 2.0 * float(np.pi)
LOG2 = float(np.log(2.0))


def _cdf(t: Array) -> Array:
    return np.asarray(0.5 * (1.0 + erf(t / ROOT2)))


def _density(t: Array) -> Array:
    return np.asarray(np.exp(-0.5 * t * t) / TWO_PI**0.5)


def _ends(mu: Array, sigma: Array, log_a: Bound, log_b: Bound) -> tuple[Array, Array]:
    return np.asarray((log_a - mu) / sigma), np.asarray((log_b - mu) / sigma)


def _mass(mu: Array, sigma: Array, log_a: Bound, log_b: Bound) -> Array:
    alpha, beta = _ends(mu, sigma, log_a, log_b)
    return _cdf(beta) - _cdf(alpha)


def log_normalizer(mu: Array, sigma: Array, *, log_a: Bound = -20.0, log_b: Bound = 0.0) -> Array:
    """log(Φ(β) − Φ(α))."""
    return np.asarray(np.log(_mass(mu, sigma, log_a, log_b)))


def kl_divergence(mu: Array, sigma: Array, *, log_a: Bound = -20.0, log_b: Bound = 0.0) -> Array:
    """log(b − a) − log(√(2πe) σ Z) − (αφ(α) − βφ(β))/(2Z), as Neklyudov et al. (2017) print it."""
    alpha, beta = _ends(mu, sigma, log_a, log_b)
    mass = _cdf(beta) - _cdf(alpha)
    entropy = np.log((TWO_PI * float(np.e)) ** 0.5 * sigma * mass)
    entropy += (alpha * _density(alpha) - beta * _density(beta)) / (2.0 * mass)
    return np.asarray(np.log(log_b - log_a) - entropy)


def mean(mu: Array, sigma: Array, *, log_a: Bound = -20.0, log_b: Bound = 0.0) -> Array:
    """exp(μ + σ²/2)·(Φ(σ − α) − Φ(σ − β))/Z."""
    alpha, beta = _ends(mu, sigma, log_a, log_b)
    ratio = (_cdf(sigma - alpha) - _cdf(sigma - beta)) / (_cdf(beta) - _cdf(alpha))
    return np.asarray(np.exp(mu + 0.5 * sigma * sigma) * ratio)


def snr(mu: Array, sigma: Array, *, log_a: Bound = -20.0, log_b: Bound = 0.0) -> Array:
    """E[θ]/√Var[θ] from the same differences of Φ."""
    alpha, beta = _ends(mu, sigma, log_a, log_b)
    first = _cdf(sigma - alpha) - _cdf(sigma - beta)
    second = np.exp(sigma * sigma) * (_cdf(2.0 * sigma - alpha) - _cdf(2.0 * sigma - beta))
    return np.asarray(first / np.sqrt((_cdf(beta) - _cdf(alpha)) * second - first * first))


def quantile(u: Array, mu: Array, sigma: Array, *, log_a: Bound = -20.0, log_b: Bound = 0.0) -> Array:
    """exp(μ + σ Φ⁻¹(Φ(α) + u Z))."""
    alpha, beta = _ends(mu, sigma, log_a, log_b)
    start = _cdf(alpha)
    return np.asarray(np.exp(mu + sigma * ndtri(start + u * (_cdf(beta) - start))))


def delta_f_normal(
    mu: Array, sigma: Array, *, sigma_p: Bound = 1e-6, log_a: Bound = -20.0, log_b: Bound = 0.0
) -> Array:
    """Eq. 8, μ̃_p = log a."""
    variance, prior_variance = sigma * sigma, sigma_p * sigma_p
    reduced_variance = 1.0 / (1.0 / variance + 1.0 / prior_variance)
    reduced_mu = reduced_variance * (mu / variance + log_a / prior_variance)
    reduced = _mass(reduced_mu, np.sqrt(reduced_variance), log_a, log_b)
    prior = _mass(np.asarray(log_a), np.asarray(sigma_p), log_a, log_b)
    squares = mu * mu / variance + log_a * log_a / prior_variance - reduced_mu * reduced_mu / reduced_variance
    scale = np.log(reduced_variance / (TWO_PI * prior_variance * variance))
    evidence = np.log(reduced * (log_b - log_a) / (prior * _mass(mu, sigma, log_a, log_b)))
    return np.asarray(evidence + 0.5 * scale - 0.5 * squares)


def delta_f_uniform(
    mu: Array,
    sigma: Array,
    *,
    log_a: Bound = -20.0,
    log_b: Bound = 0.0,
    log_a_reduced: Bound = -23.0 * LOG2,
    log_b_reduced: Bound = -8.0 * LOG2,
) -> Array:
    """Log of Eq. 10."""
    part = _mass(mu, sigma, log_a_reduced, log_b_reduced) / _mass(mu, sigma, log_a, log_b)
    return np.asarray(np.log((log_b - log_a) / (log_b_reduced - log_a_reduced) * part))
