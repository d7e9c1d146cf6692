"""Eq. 6 for any reduced prior, and the Gaussian case, against the closed forms and against quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.integrate import quad
from scipy.stats import norm, truncnorm

import bmrs_core

from .posteriors import Posterior, floats, log_spaced, trained

LogDensity = Callable[[Any], Any]
# Each example is a few hundred quadratures of a Python function.
FEW = settings(max_examples=20)
TYPICAL = [(-3.0, 0.5), (-19.5, 2.0), (0.5, 0.25), (-30.0, 3.0), (-10.0, 100.0), (0.0, math.exp(-5.0))]


def truncated_normal(mu_p: float, sigma_p: float, log_a: float, log_b: float) -> LogDensity:
    alpha, beta = (log_a - mu_p) / sigma_p, (log_b - mu_p) / sigma_p
    return lambda x: truncnorm.logpdf(x, alpha, beta, loc=mu_p, scale=sigma_p)


def log_uniform(log_a: float, log_b: float) -> LogDensity:
    return lambda x: np.where((x >= log_a) & (x <= log_b), -math.log(log_b - log_a), -np.inf)


def assert_within_its_error(found: tuple[Any, Any], exact: Any) -> None:
    value, error = found
    assert 0.0 <= error < 1e-6
    # The estimate is of the quadrature's error; the integrand's own rounding is relative to the exponent.
    assert abs(value - exact) <= error + 1e-12 * (1.0 + abs(exact))


@FEW
@given(trained(), floats(-20.0, 0.0), log_spaced(0.1, 100.0))
def test_a_truncated_normal_gives_delta_f_normal(q: Posterior, mu_p: float, sigma_p: float) -> None:
    reduced = truncated_normal(mu_p, sigma_p, q.log_a, q.log_b)
    exact = bmrs_core.delta_f_normal(q.mu, q.sigma, mu_p=mu_p, sigma_p=sigma_p, **q.bounds)
    found = bmrs_core.delta_f(reduced, q.mu, q.sigma, **q.bounds)
    # x is rounded to 4e-15 inside the quadrature, which the slope of log q magnifies.
    slope = (abs(q.mode - q.mu) + q.width) / q.sigma**2
    value, error = found
    assert abs(value - exact) <= error + 1e-12 * (1.0 + abs(exact)) + 4e-15 * min(
        slope, 1.0 / q.sigma + slope
    )


@pytest.mark.parametrize(("mu", "sigma"), TYPICAL)
def test_a_narrow_peak_at_the_bound_needs_no_hint(mu: float, sigma: float) -> None:
    reduced = truncated_normal(-20.0, 1e-3, -20.0, 0.0)
    exact = bmrs_core.delta_f_normal(mu, sigma, sigma_p=1e-3)
    assert_within_its_error(bmrs_core.delta_f(reduced, mu, sigma), exact)


@pytest.mark.parametrize(("mu", "sigma"), TYPICAL)
def test_a_log_uniform_gives_delta_f_uniform(mu: float, sigma: float) -> None:
    lower, upper = -15.0, -2.5
    exact = bmrs_core.delta_f_uniform(mu, sigma, log_a_reduced=lower, log_b_reduced=upper)
    found = bmrs_core.delta_f(log_uniform(lower, upper), mu, sigma, points=[lower, upper])
    assert_within_its_error(found, exact)


@pytest.mark.parametrize(("mu", "sigma"), TYPICAL)
def test_the_prior_itself_changes_nothing(mu: float, sigma: float) -> None:
    assert_within_its_error(bmrs_core.delta_f(log_uniform(-20.0, 0.0), mu, sigma), 0.0)


def test_a_mixture_averages_the_evidence_ratios() -> None:
    parts = [truncated_normal(-20.0, 0.5, -20.0, 0.0), truncated_normal(-1.0, 2.0, -20.0, 0.0)]
    exact = np.logaddexp(
        bmrs_core.delta_f_normal(-3.0, 1.5, sigma_p=0.5) + math.log(0.25),
        bmrs_core.delta_f_normal(-3.0, 1.5, mu_p=-1.0, sigma_p=2.0) + math.log(0.75),
    )

    def mixture(x: Any) -> Any:
        return np.logaddexp(parts[0](x) + math.log(0.25), parts[1](x) + math.log(0.75))

    assert_within_its_error(bmrs_core.delta_f(mixture, -3.0, 1.5), exact)


def test_arrays_broadcast_and_nan_gives_nan() -> None:
    mu, sigma = np.array([[-3.0], [np.nan]]), np.array([0.5, 2.0, 8.0])
    value, error = bmrs_core.delta_f(log_uniform(-20.0, 0.0), mu, sigma)
    assert value.shape == error.shape == (2, 3)
    assert np.isnan(value[1]).all()
    assert np.isfinite(value[0]).all()


def test_a_density_that_is_not_normalised_is_refused() -> None:
    with pytest.raises(ValueError, match=r"reduced_log_density.*integrate to 1"):
        bmrs_core.delta_f(np.zeros_like, -3.0, 0.5)


def test_a_density_over_theta_is_refused() -> None:
    density = log_uniform(-20.0, 0.0)
    with pytest.raises(ValueError, match="theta"):
        bmrs_core.delta_f(lambda x: density(x) - x, -3.0, 0.5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_density_that_is_no_number_somewhere_is_refused(value: float) -> None:
    density = truncated_normal(-1.0, 0.5, -20.0, 0.0)
    with pytest.raises(ValueError, match=rf"a number or -inf on \[-20.0, 0.0\], got {value} at -20"):
        bmrs_core.delta_f(lambda x: np.where(x < -18.0, value, density(x)), -3.0, 0.5, points=[-18.0])


def test_a_density_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"integrate to 1 .*got exp\(-inf\)"):
        bmrs_core.delta_f(lambda x: np.full(x.shape, -np.inf), -3.0, 0.5)


def test_tensors_are_refused() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="NumPy"):
        bmrs_core.delta_f(log_uniform(-20.0, 0.0), torch.tensor([-3.0]), torch.tensor([0.5]))


@given(floats(-3.0, 3.0), log_spaced(0.05, 0.9), floats(-1.0, 1.0), floats(-2.0, 2.0), log_spaced(0.01, 1.0))
def test_gaussian_is_the_log_mean_ratio_of_priors(
    mu: float, sigma: float, mu_0: float, mu_p: float, sigma_p: float
) -> None:
    def log_integrand(x: float) -> float:
        prior_ratio = norm.logpdf(x, mu_p, sigma_p) - norm.logpdf(x, mu_0, 1.0)
        return float(norm.logpdf(x, mu, sigma) + prior_ratio)

    precision = sigma**-2 + sigma_p**-2 - 1.0
    centre = (mu * sigma**-2 + mu_p * sigma_p**-2 - mu_0) / precision
    reach = 12.0 * precision**-0.5
    top = log_integrand(centre)
    total, _ = quad(lambda x: math.exp(log_integrand(x) - top), centre - reach, centre + reach, epsrel=1e-12)
    value = bmrs_core.delta_f_gaussian(mu, sigma, mu_0=mu_0, mu_p=mu_p, sigma_p=sigma_p)
    # The exponents reach 1e5 and are rounded inside the quadrature.
    assert value == pytest.approx(top + math.log(total), rel=1e-10, abs=1e-10)


@given(floats(-3.0, 3.0), log_spaced(0.05, 5.0), floats(-1.0, 1.0), log_spaced(0.1, 10.0))
def test_gaussian_vanishes_when_the_reduced_prior_is_the_prior(
    mu: float, sigma: float, mu_0: float, sigma_0: float
) -> None:
    same: dict[str, Any] = {"mu_0": mu_0, "sigma_0": sigma_0, "mu_p": mu_0, "sigma_p": sigma_0}
    assert bmrs_core.delta_f_gaussian(mu, sigma, **same) == pytest.approx(0.0, abs=1e-15)


@given(floats(-3.0, 3.0), log_spaced(0.05, 0.9), floats(-1.0, 1.0))
def test_gaussian_tends_to_the_savage_dickey_ratio(mu: float, sigma: float, mu_p: float) -> None:
    value = bmrs_core.delta_f_gaussian(mu, sigma, mu_p=mu_p, sigma_p=1e-9)
    expected = norm.logpdf(mu_p, mu, sigma) - norm.logpdf(mu_p, 0.0, 1.0)
    # Of second order in σ_p times the slope of log q/p, at most 2e3 here.
    assert value == pytest.approx(expected, rel=1e-10, abs=1e-10)


def test_gaussian_keeps_array_manners() -> None:
    mu, sigma = np.array([0.01, 0.5, -2.0]), np.array([0.2, 0.1, 0.5])
    expected = bmrs_core.delta_f_gaussian(mu, sigma)
    single = bmrs_core.delta_f_gaussian(mu.astype(np.float32), sigma.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=1e-6)  # the inputs are rounded to float32
    assert isinstance(bmrs_core.delta_f_gaussian(0.01, 0.2), np.float64)
    assert bmrs_core.delta_f_gaussian(mu[:, None], sigma, sigma_0=np.array([1.0, 2.0, 3.0])).shape == (3, 3)
    out = np.empty(3)
    assert bmrs_core.delta_f_gaussian(mu, sigma, out=out) is out
    np.testing.assert_array_equal(out, expected)
    torch = pytest.importorskip("torch")
    tensor = bmrs_core.delta_f_gaussian(torch.from_numpy(mu), torch.from_numpy(sigma))
    np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-13)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma": -0.5}, r"sigma.*-0\.5"),
        ({"sigma_0": 0.0}, r"sigma_0.*0\.0"),
        ({"sigma_p": -1.0}, r"sigma_p.*-1"),
        ({"mu_p": math.inf}, r"mu_p.*inf"),
        ({"sigma": 5.0, "sigma_p": 4.0}, r"sigma_p.*4\.0"),
    ],
)
def test_gaussian_refuses_bad_input(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bmrs_core.delta_f_gaussian(**({"mu": 0.1, "sigma": 0.5} | arguments))
