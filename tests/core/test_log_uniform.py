"""The log-uniform prior: density, cumulative probability and quantile."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from scipy.stats import loguniform

import bmrs_core

from .posteriors import floats, log_spaced


@given(floats(-30.0, 5.0), log_spaced(1e-3, 30.0), floats(0.0, 1.0))
def test_agrees_with_scipy(log_a: float, width: float, fraction: float) -> None:
    log_b = log_a + width
    bounds: dict[str, Any] = {"log_a": log_a, "log_b": log_b}
    theta = math.exp(log_a + fraction * width)
    assume(math.exp(log_a) < theta < math.exp(log_b))
    scipy = loguniform(math.exp(log_a), math.exp(log_b))
    # SciPy takes exp(log_a), whose rounding it divides by the width.
    slack = 1e-14 * (1.0 + max(abs(log_a), abs(log_b))) / width
    assert bmrs_core.log_uniform_pdf(theta, **bounds) == pytest.approx(scipy.pdf(theta), rel=slack)
    assert bmrs_core.log_uniform_cdf(theta, **bounds) == pytest.approx(scipy.cdf(theta), rel=slack, abs=slack)
    assert bmrs_core.log_uniform_quantile(fraction, **bounds) == pytest.approx(scipy.ppf(fraction), rel=1e-13)


@given(floats(0.0, 1.0))
def test_cdf_undoes_quantile(u: float) -> None:
    theta = bmrs_core.log_uniform_quantile(u)
    # θ is rounded, hence log θ to eps absolutely, and 20 wide; the bounds 0 and e^-20 add their own rounding.
    assert bmrs_core.log_uniform_cdf(theta) == pytest.approx(u, abs=1e-15)


def test_outside_the_support() -> None:
    theta = np.array([math.exp(-20.5), 1.5])
    assert np.array_equal(bmrs_core.log_uniform_pdf(theta), [0.0, 0.0])
    assert np.array_equal(bmrs_core.log_uniform_cdf(theta), [0.0, 1.0])


def test_it_is_the_limit_of_q_as_sigma_grows() -> None:
    theta = np.exp(np.linspace(-19.0, -1.0, 7))
    # q departs from the uniform as (20/σ)²: 4e-14 at σ = 1e8.
    assert np.exp(bmrs_core.logpdf(theta, 0.0, 1e8)) == pytest.approx(
        bmrs_core.log_uniform_pdf(theta), rel=1e-12
    )
