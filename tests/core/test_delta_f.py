"""ΔF_N and ΔF_U against integrals, limits, and each other."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

import bmrs_core

from .posteriors import QUADRATURE, Posterior, floats, log_spaced, posteriors, trained

WIDE = posteriors() | trained()
SMOOTH = posteriors(narrowest=0.1, widest=100.0).filter(lambda q: q.sigma > 0.01 * q.width)
FRACTION = floats(0.0, 1.0)


def log_density_over_prior(q: Posterior, x: float) -> float:
    """log of q's density of x over that of the log-uniform prior on the same support."""
    return q.log_ratio_to_mode(x - q.mode) + math.log(q.width / (q.sigma * q.integral()))


def log_overlap(q: Posterior, p: Posterior) -> float:
    """log ∫ of the product of two densities, each relative to its own mode, by quadrature."""
    precision, prior_precision = q.sigma**-2, p.sigma**-2
    centre = (q.mu * precision + p.mu * prior_precision) / (precision + prior_precision)
    top = min(max(centre, q.log_a), q.log_b)
    scale = (precision + prior_precision) ** -0.5

    def log_product(x: float) -> float:
        return q.log_ratio_to_mode(x - q.mode) + p.log_ratio_to_mode(x - p.mode)

    offsets = (-40, -6, -1, 0, 1, 6, 40)
    inner = [top + k * scale for k in offsets if q.log_a < top + k * scale < q.log_b]
    ends = [q.log_a, *inner, q.log_b]
    height = log_product(top)
    total = math.fsum(
        quad(lambda x: math.exp(log_product(x) - height), *piece, epsabs=0.0, epsrel=1e-12, full_output=1)[0]
        for piece in pairwise(ends)
    )
    return height + math.log(total)


@given(SMOOTH, FRACTION, log_spaced(1e-3, 100.0))
def test_delta_f_normal_is_the_log_mean_density_ratio(q: Posterior, place: float, spread: float) -> None:
    mu_p = min(q.log_a + place * q.width, q.log_b)
    p = Posterior(mu_p, spread * q.width, q.log_a, q.log_b)
    normalisation = math.log(q.width) - math.log(p.sigma * p.integral()) - math.log(q.sigma * q.integral())
    value = bmrs_core.delta_f_normal(q.mu, q.sigma, mu_p=mu_p, sigma_p=p.sigma, **q.bounds)
    # x is rounded inside the quadrature: to 1e-14 at most, times a slope of at most 4e4/width.
    slack = QUADRATURE + 4e-10 / q.width
    assert value == pytest.approx(normalisation + log_overlap(q, p), rel=QUADRATURE, abs=slack)


@given(WIDE)
def test_delta_f_normal_tends_to_the_savage_dickey_ratio_at_the_lower_bound(q: Posterior) -> None:
    slope = (abs(q.log_a - q.mu) + q.width) / q.sigma**2
    sigma_p = min(1e-9 / slope, 1e-9 * q.width)
    expected = log_density_over_prior(q, q.log_a)
    value = bmrs_core.delta_f_normal(q.mu, q.sigma, sigma_p=sigma_p, **q.bounds)
    # The half-normal reduced prior sees the slope of log q over a distance of about σ_p: 1e-9 nats.
    assert value == pytest.approx(expected, rel=QUADRATURE, abs=2 * QUADRATURE)


@given(SMOOTH, floats(0.1, 0.9))
def test_delta_f_normal_tends_to_the_savage_dickey_ratio_inside(q: Posterior, place: float) -> None:
    mu_p = q.log_a + place * q.width
    slope = (abs(mu_p - q.mu) + q.width) / q.sigma**2
    sigma_p = 1e-6 * min(1.0 / slope, q.width)
    value = bmrs_core.delta_f_normal(q.mu, q.sigma, mu_p=mu_p, sigma_p=sigma_p, **q.bounds)
    # Both sides cancel the slope; what is left is of second order, 1e-12, and the rounding of mu_p as above.
    slack = QUADRATURE + 4e-10 / q.width
    assert value == pytest.approx(log_density_over_prior(q, mu_p), rel=QUADRATURE, abs=slack)


@given(WIDE, FRACTION)
def test_delta_f_normal_vanishes_as_the_reduced_prior_becomes_the_prior(q: Posterior, place: float) -> None:
    mu_p = min(q.log_a + place * q.width, q.log_b)
    value = bmrs_core.delta_f_normal(q.mu, q.sigma, mu_p=mu_p, sigma_p=1e8 * q.width, **q.bounds)
    # The reduced prior departs from the uniform by (width/σ_p)²/2 = 5e-17; the rest is rounding of logs
    # near log(w).
    assert value == pytest.approx(0.0, abs=1e-13)


@given(posteriors(), FRACTION, log_spaced(1e-6, 10.0))
def test_evidence_does_not_change_where_the_posterior_is_the_prior(
    q: Posterior, place: float, spread: float
) -> None:
    flat = q.width * 1e9
    mu_p = min(q.log_a + place * q.width, q.log_b)
    normal = bmrs_core.delta_f_normal(q.mu, flat, mu_p=mu_p, sigma_p=spread * q.width, **q.bounds)
    reduced: dict[str, Any] = {"log_a_reduced": q.log_a, "log_b_reduced": q.log_a + 0.5 * q.width}
    uniform = bmrs_core.delta_f_uniform(q.mu, flat, **reduced, **q.bounds)
    # Over the support log q varies by (distance to μ)·width/σ² ≤ 4e-18, which is also how large ΔF may be.
    assert abs(normal) <= 5e-18
    assert abs(uniform) <= 5e-18


@given(WIDE, FRACTION, FRACTION)
def test_delta_f_uniform_is_the_log_mass_over_the_prior_mass(q: Posterior, one: float, other: float) -> None:
    lower, upper = sorted((q.log_a + one * q.width, min(q.log_a + other * q.width, q.log_b)))
    if upper - lower < 1e-9 * q.width:
        return
    value = bmrs_core.delta_f_uniform(q.mu, q.sigma, log_a_reduced=lower, log_b_reduced=upper, **q.bounds)
    mass = bmrs_core.log_mass(lower, upper, q.mu, q.sigma, **q.bounds)
    expected = mass + math.log(q.width / (upper - lower))
    assert value == pytest.approx(expected, rel=1e-12, abs=1e-13 * (1 + abs(mass)))


@given(WIDE)
def test_delta_f_uniform_is_zero_for_the_full_support(q: Posterior) -> None:
    whole: dict[str, Any] = {"log_a_reduced": q.log_a, "log_b_reduced": q.log_b}
    assert bmrs_core.delta_f_uniform(q.mu, q.sigma, **whole, **q.bounds) == 0.0


@given(WIDE, floats(0.05, 0.95))
def test_delta_f_uniform_of_a_partition_adds_up_to_one(q: Posterior, place: float) -> None:
    cut = q.log_a + place * q.width
    below = bmrs_core.delta_f_uniform(q.mu, q.sigma, log_a_reduced=q.log_a, log_b_reduced=cut, **q.bounds)
    above = bmrs_core.delta_f_uniform(q.mu, q.sigma, log_a_reduced=cut, log_b_reduced=q.log_b, **q.bounds)
    total = math.exp(below) * (cut - q.log_a) / q.width + math.exp(above) * (q.log_b - cut) / q.width
    assert total == pytest.approx(1.0, rel=1e-13)


@given(trained(), st.integers(0, 14), st.integers(1, 14))
def test_bits_name_a_support_in_powers_of_two(q: Posterior, p1: int, more: int) -> None:
    p2 = p1 + more
    reduced: dict[str, Any] = {"log_a_reduced": -p2 * math.log(2.0), "log_b_reduced": -p1 * math.log(2.0)}
    value = bmrs_core.delta_f_uniform(q.mu, q.sigma, p1=p1, p2=p2)
    # −p·log 2 may be rounded differently: eps·20, which the slope of log q magnifies.
    slope = (abs(q.mu) + 20.0) / q.sigma**2
    expected = bmrs_core.delta_f_uniform(q.mu, q.sigma, **reduced)
    assert value == pytest.approx(expected, rel=1e-12, abs=1e-13 + 1e-14 * slope)


@given(trained())
def test_without_p2_the_reduced_support_reaches_down_to_the_bound(q: Posterior) -> None:
    value = bmrs_core.delta_f_uniform(q.mu, q.sigma, p1=8, p2=None)
    reduced: dict[str, Any] = {"log_a_reduced": -20.0, "log_b_reduced": -8 * math.log(2.0)}
    assert value == pytest.approx(bmrs_core.delta_f_uniform(q.mu, q.sigma, **reduced), rel=1e-12)


@given(trained())
def test_a_reduced_bound_overrides_its_bits(q: Posterior) -> None:
    lower = bmrs_core.delta_f_uniform(q.mu, q.sigma, p1=4, log_a_reduced=-18.0)
    both: dict[str, Any] = {"log_a_reduced": -18.0, "log_b_reduced": -4 * math.log(2.0)}
    assert lower == pytest.approx(bmrs_core.delta_f_uniform(q.mu, q.sigma, **both), rel=1e-12)


def test_a_structure_pressed_below_the_smallest_float_is_kept_unless_p2_is_none() -> None:
    assert bmrs_core.delta_f_uniform(-19.0, 0.1) < 0.0
    assert bmrs_core.delta_f_uniform(-19.0, 0.1, p2=None) > 0.0


@given(WIDE, FRACTION, log_spaced(1e-6, 10.0))
def test_reduced_posterior_is_the_product_of_two_normals(q: Posterior, place: float, spread: float) -> None:
    mu_p, sigma_p = min(q.log_a + place * q.width, q.log_b), spread * q.width
    mu, sigma = bmrs_core.reduced_posterior(q.mu, q.sigma, mu_p=mu_p, sigma_p=sigma_p, **q.bounds)
    assert sigma**-2 == pytest.approx(q.sigma**-2 + sigma_p**-2, rel=1e-14)
    # An average of the two means with weights that add up to 1.
    weight = (sigma / q.sigma) ** 2
    scale = max(abs(q.mu), abs(mu_p))
    assert mu == pytest.approx(mu_p + (q.mu - mu_p) * weight, rel=1e-13, abs=1e-14 * scale)


def test_float32_parameters_decide_as_the_same_numbers_in_float64() -> None:
    rng = np.random.default_rng(0)
    mu = rng.uniform(-25, 5, 20_000).astype(np.float32)
    sigma = np.exp(rng.uniform(-6, 5, mu.size)).astype(np.float32)
    for function in (bmrs_core.delta_f_normal, bmrs_core.delta_f_uniform):
        single, double = function(mu, sigma), function(mu.astype(np.float64), sigma.astype(np.float64))
        assert single.dtype == np.float32
        assert np.array_equal(single >= 0, double >= 0)
        # Computed in float64 and rounded once.
        np.testing.assert_array_equal(single, double.astype(np.float32))


def test_eq_8_as_printed_prunes_nothing_that_the_data_are_silent_about() -> None:
    # A unit that the data say nothing about has q = p and ΔF = 0; real ones end a hair below (σ = 100:
    # nearly uniform).
    value = bmrs_core.delta_f_normal(-10.0, 100.0)
    assert -0.01 < value < 0.0
