"""The draw and the gradient of the divergence in float32 against the reference tables.

Rows are scored whose u a random word of 32 bits can give, with eps that of float32 and κ_θ the condition
number of θ, which is the absolute condition of x = log θ.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from bmrs_kernels.cpu import coefficients as numba_coefficients
from bmrs_kernels.cpu import divergence_kernels as numba_kl
from bmrs_kernels.cpu import draws as numba_draws
from bmrs_kernels.cpu.cache import cached_njit
from tests.core.truth_tables import Table, load

EPS = float(np.finfo(np.float32).eps)
DOMAINS = pytest.mark.parametrize("domain", ["training_f32", "hostile_f32"])
REGIMES = ("interior", "tail", "short")

is_short_structure = numba_coefficients.is_short_structure
is_tail_structure = numba_coefficients.is_tail_structure
interior_coefficients = numba_coefficients.interior_coefficients
interior_draw = numba_draws.interior_draw
interior_derivatives = numba_draws.interior_derivatives
tail_coefficients = numba_coefficients.tail_coefficients
tail_solution = numba_draws.tail_solution
tail_derivatives = numba_draws.tail_derivatives
short_coefficients = numba_coefficients.short_coefficients
short_draw = numba_draws.short_draw
short_derivatives = numba_draws.short_derivatives
standardized = numba_coefficients._standardized
ZERO = np.float32(0.0)


def _draws(
    u: Any, v: Any, mu: Any, sigma: Any, a: Any, b: Any, x: Any, d_mu: Any, d_log_sigma: Any, regime: Any
) -> None:
    """What the kernels do for each draw, from u and v = 1 - u instead of a word, up to exp(x)."""
    for i in range(u.size):
        alpha, beta, w = standardized(mu[i], sigma[i], a[i], b[i])
        flipped = alpha + beta < ZERO
        unit = -sigma[i] if flipped else sigma[i]
        p = v[i] if flipped else u[i]
        q = u[i] if flipped else v[i]
        base = b[i] if flipped else a[i]
        if is_short_structure(alpha, beta, w):
            regime[i] = 2
            lower, width, whole = short_coefficients(alpha, beta, w)
            t = short_draw(p, lower, width, whole)
            d_mu[i], by_unit = short_derivatives(p, q, t, lower, width)
        elif is_tail_structure(alpha, beta, w):
            regime[i] = 1
            r, s_lower, rest, reach, ratio, far_drop = tail_coefficients(alpha, beta, w)
            t, drop = tail_solution(p, q, r, s_lower, rest, reach)
            unit = unit / (-beta if flipped else alpha)
            d_mu[i], by_unit = tail_derivatives(p, t, drop, r, reach, ratio, far_drop)
        else:
            regime[i] = 0
            base = mu[i]
            lower, upper, below_lower, below_upper, above_lower, above_upper = interior_coefficients(
                alpha, beta
            )
            t = interior_draw(p, q, below_lower, below_upper, above_lower, above_upper)
            d_mu[i], by_unit = interior_derivatives(p, q, t, lower, upper)
        x[i] = min(max(base + unit * t, a[i]), b[i])
        d_log_sigma[i] = unit * by_unit


class Draws(NamedTuple):
    """Answers to a table's rows, float64, and which regime they fall in."""

    x: NDArray[np.float64]
    d_mu: NDArray[np.float64]
    d_log_sigma: NDArray[np.float64]
    regime: NDArray[np.int64]


@functools.cache
def draws(domain: str) -> tuple[Table, Draws]:
    table = load(domain, "float32")
    (u,) = table.inputs("u")
    complement = (1.0 - table.columns["in_u"].astype(np.float64)).astype(np.float32)
    outputs = [np.empty_like(u) for _ in range(3)]
    regime = np.empty(u.size, np.int64)
    cached_njit(_draws)(u, complement, *table.inputs("mu", "sigma", "a", "b"), *outputs, regime)
    x, d_mu, d_log_sigma = (output.astype(np.float64) for output in outputs)
    return table, Draws(x, d_mu, d_log_sigma, regime)


def scored(table: Table, found: Draws, regime: str, column: str) -> NDArray[np.bool_]:
    """Rows of a regime whose u a word can give and whose value is no larger than float32's largest."""
    u = table.columns["in_u"].astype(np.float64)
    drawn = (u >= 2.0**-33) & (1.0 - u >= 2.0**-33)
    rows = drawn & (found.regime == REGIMES.index(regime)) & (table.columns[f"flag32_{column}"] != 2)
    assert np.count_nonzero(rows) > 200  # the tables visit every regime
    return np.asarray(rows)


@DOMAINS
@pytest.mark.parametrize("regime", REGIMES)
def test_theta_is_within_16_eps_of_its_condition(domain: str, regime: str) -> None:
    table, found = draws(domain)
    rows = scored(table, found, regime, "theta_u") & table.scored("theta_u")
    relative = np.abs(np.expm1(found.x[rows] - table.truth("x_u")[rows]))
    # Measured: 4.4 (interior), 0.44 (tail), 1.9 (short).
    assert np.max(relative / table.condition("theta")[rows]) <= 16 * EPS


@DOMAINS
@pytest.mark.parametrize("regime", REGIMES)
def test_the_derivative_by_mu_is_within_32_eps_of_its_scale(domain: str, regime: str) -> None:
    """Moving mu moves x by a part of it: the derivative lies in [0, 1], and 1 is its scale."""
    table, found = draws(domain)
    rows = scored(table, found, regime, "dx_dmu")
    error = np.abs(found.d_mu - table.truth("dx_dmu"))[rows]
    # Measured: 21 (interior), 0.7 (tail), 2.5 (short).
    assert np.max(error) <= 32 * EPS


@DOMAINS
@pytest.mark.parametrize("regime", REGIMES)
def test_the_derivative_by_log_sigma_is_within_32_eps_of_the_condition(domain: str, regime: str) -> None:
    """sigma dx/dsigma is one of the terms that make up κ_θ: what rounding sigma does to x."""
    table, found = draws(domain)
    rows = scored(table, found, regime, "dx_dsigma")
    exact = table.truth("dx_dsigma") * table.columns["in_sigma"].astype(np.float64)
    error = np.abs(found.d_log_sigma - exact)[rows]
    # Measured: 21 (interior), 1.1 (tail), 27 (short, mu thousands of widths away from the support).
    assert np.max(error / table.condition("theta")[rows]) <= 32 * EPS


@DOMAINS
def test_the_gradient_of_the_divergence_in_float32(domain: str) -> None:
    table = load(domain, "float32")
    arguments = [part.astype(np.float64) for part in table.inputs("mu", "sigma", "a", "b")]
    sigma = arguments[1]
    d_mu, d_log_sigma = (np.empty(sigma.size, np.float32) for _ in range(2))
    cached_njit(numba_kl._gradients_float32)(*arguments, d_mu, d_log_sigma)
    for column, answer in (("dKL_dmu", d_mu * sigma), ("dKL_dsigma", d_log_sigma.astype(np.float64))):
        rows = table.scored(column)
        # By log sigma, and by mu in units of sigma, their scale is their own size or 1, whichever is larger:
        # both are moments of a standardized variable, sums of terms of size 1.
        exact = table.truth(column)[rows] * sigma[rows]
        error = np.abs(answer[rows] - exact) / np.maximum(1.0, np.abs(exact))
        assert np.max(error) <= 12 * EPS  # measured: 0.8 by mu, 3 by sigma
