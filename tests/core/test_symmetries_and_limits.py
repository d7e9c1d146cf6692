"""What must hold between answers: reflection, translation, limits, order, and which prior makes ΔF zero."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given

import bmrs_core

from .posteriors import Posterior, floats, log_spaced, on_a_grid, posteriors, trained

WIDE = posteriors() | trained()
# Two evaluations of one value by different roundings: each is held to 4 eps·max(1, κ) by the tables, κ here
# at most about 2e4.
ROUNDING = 1e-11


def reflected(q: Posterior) -> Posterior:
    """The distribution of −x."""
    return Posterior(-q.mu, q.sigma, -q.log_b, -q.log_a)


def moved(q: Posterior, shift: float) -> Posterior:
    return Posterior(q.mu + shift, q.sigma, q.log_a + shift, q.log_b + shift)


@given(WIDE)
def test_reflection_leaves_normalizer_and_divergence(q: Posterior) -> None:
    mirror = reflected(q)
    # Reflection is exact in floating point: what is left is the rounding of two formulas for one number.
    for function in (bmrs_core.log_normalizer, bmrs_core.kl_divergence):
        value = function(q.mu, q.sigma, **q.bounds)
        assert function(mirror.mu, mirror.sigma, **mirror.bounds) == pytest.approx(
            value, rel=ROUNDING, abs=0.0
        )


@given(WIDE)
def test_reflection_turns_gradients_with_respect_to_mu(q: Posterior) -> None:
    mirror = reflected(q)
    for function in (bmrs_core.log_normalizer_grad, bmrs_core.kl_divergence_grad):
        _, d_mu, d_sigma = function(q.mu, q.sigma, **q.bounds)
        _, mirror_d_mu, mirror_d_sigma = function(mirror.mu, mirror.sigma, **mirror.bounds)
        # A derivative that vanishes by symmetry keeps the rounding of the terms that cancel: 1/σ times eps.
        slack = 1e-14 / q.sigma
        assert mirror_d_mu == pytest.approx(-d_mu, rel=1e-9, abs=slack)
        assert mirror_d_sigma == pytest.approx(d_sigma, rel=1e-9, abs=slack)


@given(WIDE, floats(0.0, 1.0))
def test_reflection_turns_quantiles(q: Posterior, level: float) -> None:
    u = round(level * 2**20) / 2**20  # 1 − u is exact
    mirror = reflected(q)
    x = bmrs_core.log_quantile(u, q.mu, q.sigma, **q.bounds)
    y = bmrs_core.log_quantile(1.0 - u, mirror.mu, mirror.sigma, **mirror.bounds)
    assert -y == pytest.approx(x, rel=ROUNDING, abs=ROUNDING * q.width)


@given(on_a_grid(), floats(-16.0, 16.0))
def test_translation_moves_x_and_nothing_else(q: Posterior, by: float) -> None:
    shift = round(by * 2**20) / 2**20
    other = moved(q, shift)  # exact: every number is a multiple of 2⁻²⁰
    for function in (bmrs_core.log_normalizer, bmrs_core.kl_divergence, bmrs_core.snr):
        value = function(q.mu, q.sigma, **q.bounds)
        assert function(other.mu, other.sigma, **other.bounds) == pytest.approx(value, rel=ROUNDING, abs=0.0)
    before = bmrs_core.log_mean(q.mu, q.sigma, **q.bounds)
    after = bmrs_core.log_mean(other.mu, other.sigma, **other.bounds)
    assert after - shift == pytest.approx(before, rel=ROUNDING, abs=ROUNDING)


@given(floats(-15.0, -5.0), log_spaced(1e-6, 0.1))
def test_nothing_is_cut_off_when_the_support_is_wide(mu: float, sigma: float) -> None:
    # At least 50 σ on either side: Z differs from 1 by less than e^-1250, and θ is an ordinary log-normal.
    assert -1e-300 < bmrs_core.log_normalizer(mu, sigma) <= 0.0
    assert bmrs_core.log_mean(mu, sigma) == pytest.approx(mu + sigma**2 / 2, rel=1e-14)
    # e^σ² − 1 has relative rounding 1/σ²·eps in no formula that uses expm1; the last digits go to e^μ.
    assert bmrs_core.snr(mu, sigma) == pytest.approx(1.0 / math.sqrt(math.expm1(sigma**2)), rel=1e-12)
    entropy = math.log(sigma) + 0.5 * math.log(2 * math.pi * math.e)
    assert bmrs_core.kl_divergence(mu, sigma) == pytest.approx(math.log(20.0) - entropy, rel=1e-13)


@given(WIDE)
def test_divergence_is_never_negative(q: Posterior) -> None:
    assert bmrs_core.kl_divergence(q.mu, q.sigma, **q.bounds) >= 0.0


@given(posteriors(widest=10.0), log_spaced(1.5, 1e3))
def test_divergence_shrinks_to_zero_only_as_q_becomes_uniform(q: Posterior, factor: float) -> None:
    value = bmrs_core.kl_divergence(q.mu, q.sigma, **q.bounds)
    flatter = bmrs_core.kl_divergence(q.mu, q.sigma * factor, **q.bounds)
    assert 0.0 < flatter < value
    # Far out it is the divergence of an exponential or a parabola, which falls as the second or fourth
    # power of σ.
    flattest = bmrs_core.kl_divergence(q.mu, q.sigma * 1e8, **q.bounds)
    tilt = abs(q.log_a + q.log_b - 2 * q.mu) * q.width / (2 * (q.sigma * 1e8) ** 2)
    curve = (q.width / (q.sigma * 1e8)) ** 2
    assert 0.0 < flattest <= tilt**2 / 24 + curve**2 / 720 + tilt * curve


@given(WIDE, floats(0.01, 2.0))
def test_mean_rises_with_mu(q: Posterior, step: float) -> None:
    further = q.mu + step * q.width
    low, high = (bmrs_core.log_mean(mu, q.sigma, **q.bounds) for mu in (q.mu, further))
    # Once the mode is out of the support by many σ the mean only creeps towards the bound.
    assert low <= high + 1e-14 * max(abs(q.log_a), abs(q.log_b))
    assert q.log_a <= low
    assert high <= q.log_b


@given(WIDE, floats(0.0, 1.0), floats(0.0, 1.0))
def test_cdf_rises_with_theta(q: Posterior, one: float, other: float) -> None:
    low, high = (math.exp(q.log_a + q.width * fraction) for fraction in sorted((one, other)))
    below, above = (bmrs_core.logcdf(theta, q.mu, q.sigma, **q.bounds) for theta in (low, high))
    assert below <= above <= 0.0


@given(WIDE, floats(0.1, 0.9))
def test_log_masses_of_a_partition_add_up(q: Posterior, fraction: float) -> None:
    cut = q.log_a + q.width * fraction
    below = bmrs_core.log_mass(q.log_a, cut, q.mu, q.sigma, **q.bounds)
    above = bmrs_core.log_mass(cut, q.log_b, q.mu, q.sigma, **q.bounds)
    assert np.logaddexp(below, above) == pytest.approx(0.0, abs=1e-13)


@given(floats(-40.0, 40.0), log_spaced(1e-12, 30.0))
def test_log_ndtr_diff_is_the_normalizer_of_a_standard_normal(lower: float, width: float) -> None:
    upper = lower + width
    assume(upper > lower)
    value = bmrs_core.log_ndtr_diff(lower, upper)
    assert value == pytest.approx(bmrs_core.log_normalizer(0.0, 1.0, log_a=lower, log_b=upper), rel=1e-14)
    # Φ and erf differ by a factor in the argument, whose rounding the tail magnifies by upper².
    erf = bmrs_core.log_erf_diff(lower / math.sqrt(2), upper / math.sqrt(2))
    narrowness = 1.0 + max(abs(lower), abs(upper)) / width
    slack = 1e-15 * (1.0 + max(lower**2, upper**2) + narrowness)
    assert erf == pytest.approx(math.log(2.0) + value, rel=1e-14, abs=slack)
