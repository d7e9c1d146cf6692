"""Masses, moments and divergences against integrals of the density itself, by quadrature."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given

import bmrs_core

from .posteriors import QUADRATURE, Posterior, floats, posteriors, trained

WIDE = posteriors() | trained()
FRACTION = floats(0.0, 1.0)


def log_integral(q: Posterior) -> float:
    """log ∫ of the density of the untruncated normal over the support."""
    return -0.5 * ((q.mode - q.mu) / q.sigma) ** 2 - 0.5 * math.log(2 * math.pi) + math.log(q.integral())


@given(WIDE)
def test_log_normalizer_is_the_log_of_the_mass_in_the_support(q: Posterior) -> None:
    value = bmrs_core.log_normalizer(q.mu, q.sigma, **q.bounds)
    assert value == pytest.approx(log_integral(q), rel=QUADRATURE, abs=QUADRATURE)


@given(WIDE)
def test_kl_divergence_is_the_mean_log_ratio_to_the_uniform(q: Posterior) -> None:
    log_height = math.log(q.width / q.sigma / q.integral())
    expected = q.expectation(lambda offset: q.log_ratio_to_mode(offset) + log_height)
    # The terms of a small divergence nearly cancel: the quadrature is only good to QUADRATURE in absolute
    # value.
    value = bmrs_core.kl_divergence(q.mu, q.sigma, **q.bounds)
    assert value == pytest.approx(expected, rel=QUADRATURE, abs=QUADRATURE)


@given(WIDE)
def test_mean_and_log_mean(q: Posterior) -> None:
    reduced = q.theta_expectation(1.0)
    assume(reduced > 1e-250)  # below, the quadrature misses the part of the support that matters
    expected = q.log_b + math.log(reduced)
    assert bmrs_core.log_mean(q.mu, q.sigma, **q.bounds) == pytest.approx(
        expected, rel=QUADRATURE, abs=QUADRATURE
    )
    assert bmrs_core.mean(q.mu, q.sigma, **q.bounds) == pytest.approx(
        math.exp(expected), rel=100 * QUADRATURE
    )


@given(posteriors(widest=3.0))
def test_variance_and_snr(q: Posterior) -> None:
    at_mode = math.exp(q.mode)
    centre = q.expectation(math.expm1)  # of θ/at_mode − 1: what the variance needs, without the 1
    spread = q.expectation(lambda offset: (math.expm1(offset) - centre) ** 2)
    variance = bmrs_core.variance(q.mu, q.sigma, **q.bounds)
    assert variance == pytest.approx(at_mode**2 * spread, rel=QUADRATURE)
    snr = bmrs_core.snr(q.mu, q.sigma, **q.bounds)
    assert snr == pytest.approx((1.0 + centre) / math.sqrt(spread), rel=QUADRATURE)


@given(WIDE, FRACTION, FRACTION)
def test_log_mass_is_the_log_of_a_ratio_of_integrals(q: Posterior, one: float, other: float) -> None:
    lower, upper = (q.log_a + q.width * fraction for fraction in sorted((one, other)))
    part = q.integral(lower=lower, upper=upper)
    assume(upper - lower > 1e-6 * q.width and part > 1e-300)  # else beyond the reach of the quadrature
    value = bmrs_core.log_mass(lower, min(upper, q.log_b), q.mu, q.sigma, **q.bounds)
    # x itself is rounded: to eps·|x|, which the slope of the log density turns into a change of the log mass.
    slope = (q.width + abs(q.mode - q.mu)) / q.sigma**2
    slack = QUADRATURE + 1e-15 * max(abs(q.log_a), abs(q.log_b)) * slope
    assert value == pytest.approx(math.log(part / q.integral()), rel=QUADRATURE, abs=slack)


@given(WIDE, floats(0.001, 0.999))
def test_logcdf_is_the_log_mass_below(q: Posterior, fraction: float) -> None:
    x = q.log_a + q.width * fraction
    theta = math.exp(x)
    value = bmrs_core.logcdf(theta, q.mu, q.sigma, **q.bounds)
    expected = bmrs_core.log_mass(q.log_a, math.log(theta), q.mu, q.sigma, **q.bounds)
    # log θ may be rounded either way: to eps·|x|, times the slope of the log probability.
    density = math.exp(q.log_ratio_to_mode(math.log(theta) - q.mode)) / (q.sigma * q.integral())
    slack = 1e-15 + 5e-16 * abs(x) * density * math.exp(min(-expected, 700.0))
    assert value == pytest.approx(expected, rel=1e-12, abs=slack)


@given(WIDE, floats(0.0, 1.0))
def test_logpdf_is_the_density_of_theta(q: Posterior, fraction: float) -> None:
    theta = math.exp(q.log_a + q.width * fraction)
    x = math.log(theta)
    assume(q.log_a < x < q.log_b)
    expected = q.log_ratio_to_mode(x - q.mode) - math.log(q.sigma * q.integral()) - x
    slope = (q.width + abs(q.mode - q.mu)) / q.sigma**2  # log θ is rounded, to eps·|x|
    slack = QUADRATURE + 1e-15 * abs(x) * slope
    assert bmrs_core.logpdf(theta, q.mu, q.sigma, **q.bounds) == pytest.approx(
        expected, rel=QUADRATURE, abs=slack
    )


def test_outside_the_support_there_is_no_density() -> None:
    below, above = math.exp(-21.0), math.exp(0.5)
    assert bmrs_core.logpdf(below, -3.0, 1.0) == -math.inf
    assert bmrs_core.logpdf(above, -3.0, 1.0) == -math.inf
    assert bmrs_core.logcdf(below, -3.0, 1.0) == -math.inf
    assert bmrs_core.logcdf(above, -3.0, 1.0) == 0.0


def test_densities_outside_the_support_and_of_what_is_no_number() -> None:
    theta = np.array([0.0, -1.0, np.inf, -np.inf, 1e-320, 2.0])
    assert np.array_equal(bmrs_core.logpdf(theta, -3.0, 2.0), np.full(6, -np.inf))
    assert np.array_equal(bmrs_core.logcdf(theta, -3.0, 2.0), [-np.inf, -np.inf, 0.0, -np.inf, -np.inf, 0.0])
    assert np.array_equal(bmrs_core.log_uniform_pdf(theta), np.zeros(6))
    assert not np.signbit(bmrs_core.log_uniform_pdf(theta)).any()
    assert np.array_equal(bmrs_core.log_uniform_cdf(theta), [0.0, 0.0, 1.0, 0.0, 0.0, 1.0])
    for function in (bmrs_core.logpdf, bmrs_core.logcdf):
        assert np.isnan(function(np.nan, -3.0, 2.0))
        assert np.isnan(function(0.5, np.nan, 2.0))
    assert np.isnan(bmrs_core.log_uniform_pdf(np.nan))


def test_the_distribution_function_reaches_down_to_subnormal_numbers() -> None:
    theta = np.array([1e-303, 1e-305, 1e-310])
    bounds: dict[str, Any] = {"log_a": -720.0, "log_b": 0.0}
    masses = bmrs_core.log_mass(-720.0, np.log(theta), -700.0, 5.0, **bounds)
    # The last is subnormal: its logarithm is known to 1e-13 only, and the mass no better.
    assert bmrs_core.logcdf(theta, -700.0, 5.0, **bounds) == pytest.approx(masses, rel=1e-11)


def test_a_quantile_lies_where_its_density_is() -> None:
    bounds: dict[str, Any] = {"log_a": -3.3, "log_b": 1.7}
    for u in (0.0, 0.5, 1.0):
        assert bmrs_core.log_uniform_pdf(bmrs_core.log_uniform_quantile(u, **bounds), **bounds) > 0
        assert bmrs_core.logpdf(bmrs_core.quantile(u, -1.0, 0.5, **bounds), -1.0, 0.5, **bounds) > -np.inf


def test_samples_in_single_precision_are_the_rounded_ones() -> None:
    mu, sigma = np.float32(-3.0), np.float32(0.5)
    single = bmrs_core.sample(np.full(2000, mu), sigma, seed=1)
    double = bmrs_core.sample(np.full(2000, float(mu)), float(sigma), seed=1)
    assert single.dtype == np.float32
    assert np.array_equal(single, double.astype(np.float32))
