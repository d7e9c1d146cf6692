"""Density, probabilities and entropy of θ against mpmath at rows of the tables, scipy and quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from mpmath import MPContext
from scipy import stats

import bmrs_core
from bmrs_core.backends.array_api import bind_namespace

from .posteriors import QUADRATURE, Posterior, floats, posteriors, trained
from .signatures import EVERY, Signature, name_of
from .truth_tables import load

mp = MPContext()
mp.dps = 200

EPS = 2.0**-52
WIDE = posteriors() | trained()
FRACTION = floats(0.0, 1.0)


def mass(lower: Any, upper: Any, mu: Any, sigma: Any) -> Any:
    """Mass of the untruncated normal, from the tails that keep their digits."""
    alpha, beta = ((end - mu) / (sigma * mp.sqrt(2)) for end in (lower, upper))
    return (mp.erfc(alpha) - mp.erfc(beta) if alpha + beta > 0 else mp.erfc(-beta) - mp.erfc(-alpha)) / 2


def exact_pdf(theta: Any, mu: Any, sigma: Any, a: Any, b: Any) -> Any:
    y = (mp.log(theta) - mu) / sigma
    return mp.npdf(y) / (sigma * theta * mass(a, b, mu, sigma))


def exact_cdf(theta: Any, mu: Any, sigma: Any, a: Any, b: Any) -> Any:
    return mass(a, mp.log(theta), mu, sigma) / mass(a, b, mu, sigma)


def exact_sf(theta: Any, mu: Any, sigma: Any, a: Any, b: Any) -> Any:
    return mass(mp.log(theta), b, mu, sigma) / mass(a, b, mu, sigma)


def value_and_condition(function: Callable[..., Any], inputs: list[Any]) -> tuple[Any, Any]:
    """A function's value, and by how many roundings it moves when each input is rounded once."""
    step = mp.mpf(2) ** -100
    value = function(*inputs)
    moved = (function(*inputs[:i], x * (1 + step), *inputs[i + 1 :]) for i, x in enumerate(inputs))
    return value, sum((abs(other / value - 1) for other in moved), mp.mpf(0)) / step


@pytest.mark.parametrize("domain", ["training", "hostile"])
@pytest.mark.parametrize("name", ["pdf", "cdf", "sf"])
def test_error_is_within_four_roundings_times_the_condition(domain: str, name: str) -> None:
    table = load(domain, "float64")
    rows = np.flatnonzero(table.scored("theta_u"))[::100]
    theta = table.truth("theta_u")[rows]
    inputs = [theta, *(column[rows] for column in table.inputs("mu", "sigma", "a", "b"))]
    exact = {"pdf": exact_pdf, "cdf": exact_cdf, "sf": exact_sf}[name]
    found = getattr(bmrs_core, name)(*inputs[:3], log_a=inputs[3], log_b=inputs[4])
    scored = 0
    for answer, *row in zip(found, *inputs, strict=True):
        numbers = [mp.mpf(float(x)) for x in row]
        # A quantile rounded onto the bound, or past it, has no mass on one side.
        if not mp.exp(numbers[3]) < numbers[0] < mp.exp(numbers[4]):
            continue
        value, condition = value_and_condition(exact, numbers)
        if not 1e-300 < value < 1e300:
            continue
        scored += 1
        assert abs(float(answer) / value - 1) <= 4 * EPS * max(1, condition), row
    assert scored >= 30


def by_scipy(q: Posterior) -> Any:
    """log θ as scipy describes it."""
    return stats.truncnorm((q.log_a - q.mu) / q.sigma, (q.log_b - q.mu) / q.sigma, q.mu, q.sigma)


@settings(max_examples=30)  # one of scipy's frozen distributions takes some milliseconds
@given(floats(-25.0, 5.0), floats(-1.0, 3.0), floats(0.01, 0.99))
def test_probabilities_are_scipys_where_scipy_keeps_its_digits(mu: float, log_sigma: float, u: float) -> None:
    q = Posterior(mu, math.exp(log_sigma), -20.0, 0.0)
    x = float(bmrs_core.log_quantile(u, q.mu, q.sigma))
    theta = math.exp(x)
    reference = by_scipy(q)
    # scipy's tails and ours differ by the rounding of log θ, at most 20 eps, times the slope x/σ².
    tolerance = 1e-10
    assert bmrs_core.cdf(theta, q.mu, q.sigma) == pytest.approx(reference.cdf(x), rel=tolerance)
    assert bmrs_core.sf(theta, q.mu, q.sigma) == pytest.approx(reference.sf(x), rel=tolerance)
    assert bmrs_core.logsf(theta, q.mu, q.sigma) == pytest.approx(reference.logsf(x), rel=1e-8)
    assert bmrs_core.pdf(theta, q.mu, q.sigma) * theta == pytest.approx(reference.pdf(x), rel=tolerance)
    # Of θ per unit of θ: E[x] more than that of x.
    in_x = reference.entropy() + reference.mean()
    assert bmrs_core.entropy(q.mu, q.sigma) == pytest.approx(in_x, rel=1e-8, abs=1e-8)


@given(WIDE, FRACTION)
def test_both_sides_of_a_point_add_up_to_one(q: Posterior, part: float) -> None:
    theta = math.exp(min(q.log_a + part * q.width, q.log_b))
    below, above = (f(theta, q.mu, q.sigma, **q.bounds) for f in (bmrs_core.cdf, bmrs_core.sf))
    assert below + above == pytest.approx(1.0, rel=0.0, abs=1e-13)


@given(WIDE, FRACTION)
def test_logarithms_are_those_of_the_functions(q: Posterior, part: float) -> None:
    theta = math.exp(min(max(q.log_a + part * q.width, q.log_a), q.log_b))
    for name in ("pdf", "cdf", "sf"):
        value, logarithm = (
            float(getattr(bmrs_core, f)(theta, q.mu, q.sigma, **q.bounds)) for f in (name, f"log{name}")
        )
        # exp magnifies the rounding of its argument by its size.
        assert value == pytest.approx(
            math.exp(logarithm), rel=1e-15 * (8.0 + 8.0 * abs(logarithm)), abs=1e-300
        )


@given(WIDE)
def test_entropy_is_the_mean_of_minus_the_log_density(q: Posterior) -> None:
    in_x = q.expectation(lambda offset: -q.log_ratio_to_mode(offset)) + math.log(q.sigma * q.integral())
    mean = q.mode + q.expectation(lambda offset: offset)
    scale = max(abs(q.log_a), abs(q.log_b), abs(in_x))
    assert bmrs_core.entropy(q.mu, q.sigma, **q.bounds) == pytest.approx(in_x + mean, abs=QUADRATURE * scale)


def test_outside_the_support_there_is_nothing() -> None:
    theta = np.array([-1.0, 0.0, 1e-9, 1.5, math.inf])
    assert np.array_equal(bmrs_core.pdf(theta, -3.0, 2.0), [0.0] * 5)
    assert np.array_equal(bmrs_core.cdf(theta, -3.0, 2.0), [0.0, 0.0, 0.0, 1.0, 1.0])
    assert np.array_equal(bmrs_core.sf(theta, -3.0, 2.0), [1.0, 1.0, 1.0, 0.0, 0.0])
    assert np.array_equal(bmrs_core.logsf(theta, -3.0, 2.0), [0.0, 0.0, 0.0, -math.inf, -math.inf])
    value, d_mu, d_sigma = bmrs_core.logpdf_grad(theta, -3.0, 2.0)
    assert np.array_equal(value, [-math.inf] * 5)
    assert np.array_equal([d_mu, d_sigma], np.zeros((2, 5)))


def test_small_probabilities_above_keep_their_digits() -> None:
    # 1 − cdf would be a multiple of eps.
    assert bmrs_core.sf(0.9, -3.0, 0.3) == pytest.approx(
        stats.norm.sf((math.log(0.9) + 3.0) / 0.3), rel=1e-12
    )


@given(trained(), floats(0.05, 0.95))
def test_gradients_are_those_of_the_values(q: Posterior, u: float) -> None:
    theta = float(bmrs_core.quantile(u, q.mu, q.sigma))
    step = 1e-4 * q.sigma

    def slopes(function: Callable[[float, float], Any]) -> list[float]:
        """Central differences of the fourth order with respect to μ and σ."""
        return [
            sum(
                weight * float(function(q.mu + k * step * along_mu, q.sigma + k * step * (not along_mu)))
                for k, weight in ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12))
            )
            / step
            for along_mu in (True, False)
        ]

    for name, leading in (("entropy", ()), ("logpdf", (theta,))):
        found = getattr(bmrs_core, f"{name}_grad")(*leading, q.mu, q.sigma)
        function = getattr(bmrs_core, name)
        differences = slopes(lambda mu, sigma, f=function, x=leading: f(*x, mu, sigma))  # type: ignore[misc]
        # The step moves the value by 1e-4 of what a unit of σ does; rounding of x in units of σ counts once
        # more where σ is tiny, and μ far outside magnifies it.
        distance = 1.0 + abs(q.mode - q.mu) / q.sigma
        rounding = (40.0 * EPS / q.sigma + EPS) * distance**2 / step
        expected = pytest.approx(differences, rel=1e-5, abs=1e-7 / q.sigma + 20.0 * rounding)
        assert [float(g) for g in found[1:]] == expected


NEW = [signature for signature in EVERY if signature.name in "pdf cdf sf logsf entropy logpdf_grad".split()]


@pytest.mark.parametrize("signature", NEW, ids=name_of)
def test_on_a_device_the_same_text_gives_the_same_numbers(signature: Signature) -> None:
    arrays = signature.arrays()
    bounds = [np.full(len(arrays[0]), end) for end in (-20.0, 0.0)]
    with np.errstate(all="ignore"):  # of texts that `where` discards
        found = np.array(bind_namespace(np)[signature.name](*arrays, *bounds))
    np.testing.assert_allclose(found.ravel(), np.concatenate(signature.call(*arrays)), rtol=1e-12)
