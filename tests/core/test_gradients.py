"""Analytic derivatives against mpmath's numerical ones of an independent closed form, in 80 digits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from mpmath import MPContext

import bmrs_core

mp = MPContext()
mp.dps = 80

# μ inside, at the edges of and outside the default support; σ from far narrower than it to far wider.
POINTS = [
    (mu, sigma)
    for mu in (-33.0, -20.5, -19.9, -12.25, -10.0, -3.5, -0.125, 0.0, 0.75, 14.0)
    for sigma in (math.exp(-5.0), 0.3, 2.0, 9.0, 120.0)
]
LEVELS = (1e-6, 0.3, 0.5, 0.999)


def upper_tail(t: Any) -> Any:
    return mp.erfc(t / mp.sqrt(2)) / 2


def mass_between(alpha: Any, beta: Any) -> Any:
    """Φ(β) − Φ(α), in the tail that keeps its digits."""
    return upper_tail(alpha) - upper_tail(beta) if alpha > 0 else upper_tail(-beta) - upper_tail(-alpha)


def log_normalizer(mu: Any, sigma: Any, shift: Any = 0) -> Any:
    """log Z, of the normal whose standardised bounds are moved by ``shift``."""
    return mp.log(mass_between((-20 - mu) / sigma - shift, -mu / sigma - shift))


def kl_divergence(mu: Any, sigma: Any) -> Any:
    alpha, beta = (-20 - mu) / sigma, -mu / sigma
    boundary = alpha * mp.npdf(alpha) - beta * mp.npdf(beta)
    log_z = log_normalizer(mu, sigma)
    entropy = mp.log(mp.sqrt(2 * mp.pi * mp.e) * sigma) + log_z + boundary / (2 * mp.exp(log_z))
    return mp.log(20) - entropy


def log_mean(mu: Any, sigma: Any) -> Any:
    return mu + sigma**2 / 2 + log_normalizer(mu, sigma, sigma) - log_normalizer(mu, sigma)


def partial_derivatives(function: Any, mu: float, sigma: float) -> tuple[Any, Any, Any]:
    at = (mp.mpf(mu), mp.mpf(sigma))
    return function(*at), mp.diff(function, at, (1, 0)), mp.diff(function, at, (0, 1))


def assert_close(found: Any, expected: Any, relative: float, absolute: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert float(one) == pytest.approx(float(other), rel=relative, abs=absolute)


@pytest.mark.parametrize(("mu", "sigma"), POINTS)
def test_log_normalizer_grad(mu: float, sigma: float) -> None:
    found = bmrs_core.log_normalizer_grad(mu, sigma)
    # κ ≈ α² reaches 4e6 where Z is next to 1 (σ = e⁻⁵): 32 eps·κ = 3e-8 there; the derivative is then below
    # 1e-100.
    distance = min(abs(mu), abs(mu + 20.0)) / sigma
    relative = 7e-15 * max(1.0, distance**2)
    # Symmetric supports have ∂log Z/∂μ = 0 as a difference of two densities, each rounded.
    assert_close(found, partial_derivatives(log_normalizer, mu, sigma), relative, 1e-16 / sigma)


@pytest.mark.parametrize(("mu", "sigma"), POINTS)
def test_kl_divergence_grad(mu: float, sigma: float) -> None:
    found = bmrs_core.kl_divergence_grad(mu, sigma)
    distance = min(abs(mu), abs(mu + 20.0)) / sigma
    relative = 7e-15 * max(1.0, distance**2)
    assert_close(found, partial_derivatives(kl_divergence, mu, sigma), relative, 1e-16 / sigma)


@pytest.mark.parametrize(("mu", "sigma"), POINTS)
def test_log_mean_grad(mu: float, sigma: float) -> None:
    found = bmrs_core.log_mean_grad(mu, sigma)
    # ∂log E/∂σ is a difference of second moments over σ: eps/σ is what can be had, as documented.
    absolute = 4 * 2.2e-16 * (1.0 + 1.0 / sigma)
    assert_close(found, partial_derivatives(log_mean, mu, sigma), 1e-13, absolute)


@pytest.mark.parametrize(("mu", "sigma"), POINTS)
@pytest.mark.parametrize("u", LEVELS)
def test_log_quantile_grad(u: float, mu: float, sigma: float) -> None:
    x, d_mu, d_sigma = bmrs_core.log_quantile_grad(u, mu, sigma)
    level, mean, deviation = mp.mpf(u), mp.mpf(mu), mp.mpf(sigma)
    alpha, beta = (-20 - mean) / deviation, -mean / deviation
    mass = mass_between(alpha, beta)

    def excess(root: Any) -> Any:
        """Probability below the root less u, from the side where it is small."""
        xi = (root - mean) / deviation
        return (
            mass_between(alpha, xi) / mass - level if u < 0.5 else 1 - level - mass_between(xi, beta) / mass
        )

    ends = (mp.mpf(-20), mp.mpf(0))
    low, high = (max(ends[0], x - 1e-6), min(ends[1], x + 1e-6))
    root = mp.findroot(excess, (low, high), solver="anderson", tol=1e-100, maxsteps=200)
    xi = (root - mean) / deviation
    # Φ(ξ) = (1 − u)Φ(α) + uΦ(β), differentiated.
    at_a, at_b = (weight * mp.npdf(end) / mp.npdf(xi) for weight, end in ((1 - level, alpha), (level, beta)))
    expected = (root, 1 - at_a - at_b, xi - alpha * at_a - beta * at_b)
    # 1 and the boundary terms cancel where the support is short in σ: the package must do without that
    # difference.
    # κ of these derivatives is at most about α² where α matters.
    distance = max(0.0, mu, -20.0 - mu) / sigma
    assert_close(
        (x, d_mu, d_sigma), expected, 1e-13 * (1.0 + distance), 1e-14 * (1.0 + min(1.0, 1.0 / sigma))
    )


def test_values_beside_gradients_are_the_functions_own() -> None:
    mu, sigma = (np.array(column) for column in zip(*POINTS, strict=True))
    for with_gradient, alone in (
        (bmrs_core.log_normalizer_grad, bmrs_core.log_normalizer),
        (bmrs_core.kl_divergence_grad, bmrs_core.kl_divergence),
        (bmrs_core.log_mean_grad, bmrs_core.log_mean),
    ):
        # Both are held to 4 eps·max(1, κ); log Z next to 0 has κ up to 4e6.
        np.testing.assert_allclose(with_gradient(mu, sigma)[0], alone(mu, sigma), rtol=4e-9, atol=0.0)
    u = np.full(mu.shape, 0.3)
    values = bmrs_core.log_quantile_grad(u, mu, sigma)[0]
    np.testing.assert_allclose(values, bmrs_core.log_quantile(u, mu, sigma), rtol=1e-14)


def test_divergence_is_least_where_its_derivative_with_respect_to_mu_vanishes() -> None:
    # By symmetry: the middle of the support.
    _, d_mu, d_sigma = bmrs_core.kl_divergence_grad(-10.0, np.array([0.1, 1.0, 10.0]))
    assert np.abs(d_mu).max() <= 1e-15
    assert (d_sigma < 0).all()
