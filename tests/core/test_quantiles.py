"""Quantiles undo cumulative probabilities, rise with u, and samples have the moments of the distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given

import bmrs_core

from .posteriors import Posterior, floats, posteriors, trained

WIDE = posteriors() | trained()


@given(WIDE, floats(1e-9, 1.0 - 1e-9))
def test_the_mass_below_a_quantile_is_u(q: Posterior, u: float) -> None:
    x = float(bmrs_core.log_quantile(u, q.mu, q.sigma, **q.bounds))
    below = math.exp(bmrs_core.log_mass(q.log_a, x, q.mu, q.sigma, **q.bounds))
    # x is rounded to eps·|x|, and a probability moves by the density at x times that.
    density = math.exp(q.log_ratio_to_mode(x - q.mode)) / (q.sigma * q.integral())
    assert below == pytest.approx(u, rel=1e-12, abs=4e-16 * max(abs(q.log_a), abs(q.log_b)) * density)


@given(WIDE, floats(0.0, 1.0), floats(0.0, 1.0))
def test_quantile_rises_with_u_and_stays_in_the_support(q: Posterior, one: float, other: float) -> None:
    low, high = (bmrs_core.log_quantile(u, q.mu, q.sigma, **q.bounds) for u in sorted((one, other)))
    # Two levels a rounding apart may come out in either order by the error of x: 16 eps.
    assert low <= high + 16 * 2.2e-16 * max(abs(q.log_a), abs(q.log_b))
    assert q.log_a <= low
    assert high <= q.log_b


@given(WIDE)
def test_the_extreme_quantiles_are_the_bounds(q: Posterior) -> None:
    assert bmrs_core.log_quantile(0.0, q.mu, q.sigma, **q.bounds) == q.log_a
    assert bmrs_core.log_quantile(1.0, q.mu, q.sigma, **q.bounds) == q.log_b
    _, d_mu, d_sigma = bmrs_core.log_quantile_grad(np.array([0.0, 1.0]), q.mu, q.sigma, **q.bounds)
    assert np.array_equal(d_mu, [0.0, 0.0])
    assert np.array_equal(d_sigma, [0.0, 0.0])


@given(WIDE, floats(0.0, 1.0))
def test_quantile_of_theta_is_the_exponential(q: Posterior, u: float) -> None:
    x = bmrs_core.log_quantile(u, q.mu, q.sigma, **q.bounds)
    # exp magnifies the rounding of x by |x|; the package may do better by not rounding x in between.
    tolerance = 4e-16 * (4.0 + max(abs(q.log_a), abs(q.log_b)))
    assert bmrs_core.quantile(u, q.mu, q.sigma, **q.bounds) == pytest.approx(math.exp(x), rel=tolerance)


@pytest.mark.parametrize(
    ("mu", "sigma"),
    [(-3.0, 0.2), (-19.0, 2.0), (0.5, 0.3), (-35.0, 4.0), (5.0, 100.0), (0.0, math.exp(-5.0))],
)
def test_sample_moments(mu: float, sigma: float) -> None:
    size = 200_000
    theta = bmrs_core.sample(mu, sigma, seed=7, size=size)
    assert theta.shape == (size,)
    assert ((theta >= math.exp(-20.0)) & (theta <= 1.0)).all()
    deviation = math.sqrt(bmrs_core.variance(mu, sigma))
    # Six standard errors of a mean: one false alarm in 5e8 seeds, and the seed is fixed.
    assert abs(theta.mean() - bmrs_core.mean(mu, sigma)) < 6 * deviation / math.sqrt(size)
    u = np.exp(bmrs_core.logcdf(theta, mu, sigma))
    assert abs(u.mean() - 0.5) < 6 * math.sqrt(1 / 12 / size)
    assert abs(u.var() - 1 / 12) < 6 * math.sqrt(1 / 180 / size)


def test_samples_repeat_with_their_seed_and_differ_between_seeds() -> None:
    mu, sigma = np.full(1000, -3.0), np.full(1000, 0.5)
    first = bmrs_core.sample(mu, sigma, seed=1)
    assert first.shape == mu.shape
    assert np.array_equal(first, bmrs_core.sample(mu, sigma, seed=1))
    assert not np.intersect1d(first, bmrs_core.sample(mu, sigma, seed=2)).size


def test_samples_broadcast_parameters_against_size() -> None:
    theta = bmrs_core.sample(np.array([-15.0, -1.0]), 0.1, seed=3, size=(5000, 2))
    assert theta.shape == (5000, 2)
    # The two columns lie 140 σ apart.
    assert theta[:, 0].max() < theta[:, 1].min()


def test_a_generator_gives_other_draws_each_time_and_the_same_ones_again() -> None:
    mu = np.full(100, -3.0)
    rng, again = np.random.default_rng(5), np.random.default_rng(5)
    first, second = (bmrs_core.sample(mu, 0.5, rng=rng) for _ in range(2))
    assert not np.intersect1d(first, second).size
    assert np.array_equal(first, bmrs_core.sample(mu, 0.5, rng=again))
