"""Signal-to-noise ratio and variance of theta, and the gradient of log E[theta]."""

from __future__ import annotations

from bmrs_core.formulas.constants import HALF, ONE, TWO, ZERO
from bmrs_core.formulas.moments import (
    effective_support,
    effective_support_spanning,
    exponential_moments,
    raw_moments,
)
from bmrs_core.formulas.normal import J_any, oriented
from bmrs_core.formulas.primitives import Bool, Real, exp, expm1, log, maximum, sqrt, where
from bmrs_core.formulas.truncated_lognormal import (
    anchored_exp,
    log_mean_common,
    log_mean_is_rare,
    log_mean_rare,
    mode_of,
    tilt,
)

__all__ = ["log_mean_grad", "mode_offset", "narrow_moments", "second_moment", "snr", "variance"]

# Below this log(E[theta^2] / E[theta]^2), i.e. a relative spread of about 0.8, the spread is the centred
# second moment of exp(x - mode) - 1; above, it follows from the ratio, which by then has lost no more
# than a factor of 4 to cancellation.
NARROW_RATIO = 0.5


def second_moment(mu: Real, sigma: Real, a: Real, b: Real) -> tuple[Real, Real, Real, Real]:
    """Return (anchor, D, factor, log(E[theta^2] / E[theta]^2)), E[theta^2] = exp(anchor + D) factor."""
    alpha = (a - mu) / sigma
    beta = (b - mu) / sigma
    w = (b - a) / sigma
    lower, upper, h = oriented(alpha, beta)
    lower1, upper1, h1 = oriented(alpha - sigma, beta - sigma)
    lower2, upper2, h2 = oriented(alpha - TWO * sigma, beta - TWO * sigma)
    j = J_any(lower, upper, w, h)
    j1 = J_any(lower1, upper1, w, h1)
    j2 = J_any(lower2, upper2, w, h2)
    anchor1, d1 = tilt(mu, sigma, a, b, ONE)
    anchor2, d2 = tilt(mu, sigma, a, b, TWO)
    ratio = TWO * (anchor2 - anchor1) + (d2 - TWO * d1) + log(j2 / j1 * (j / j1))
    return TWO * anchor2, d2, j2 / j, ratio


def mode_offset(alpha: Real, beta: Real, w: Real, shift: Real) -> Real:
    """Return how far, in y, the mode of exp(shift y) q(y) lies above the mode of q(y)."""
    below = alpha > ZERO
    at_mode = where(below, shift - alpha, shift)
    at_upper = where(below, w, beta)
    moved = where(beta - shift < ZERO, at_upper, at_mode)
    return where((alpha - shift > ZERO) | (beta < ZERO), ZERO, moved)


def narrow_moments(
    narrow: Bool, mu: Real, sigma: Real, a: Real, b: Real
) -> tuple[Real, Real, Real, Real, Real]:
    """Return (mode, E[v], Var(v), Cov(v, tau), Cov(v, y^2)), v = exp(x - mode) - 1, of a narrow q.

    The nodes cover both q and theta^2 q; of a wide one, whose two lie far apart, only q.
    """
    alpha = (a - mu) / sigma
    beta = (b - mu) / sigma
    w = (b - a) / sigma
    shift = TWO * sigma
    _m2, start2, end2 = effective_support(alpha - shift, beta - shift, w)
    offset = mode_offset(alpha, beta, w, shift)
    first = where(narrow, offset + start2, ZERO)
    last = where(narrow, offset + end2, ZERO)
    m, start, end = effective_support_spanning(alpha, beta, w, first, last)
    mean, variance_, with_tau, with_square = exponential_moments(m, start, end, sigma)
    return mode_of(mu, a, b), mean, variance_, with_tau, with_square


def snr(mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return E[theta] / sqrt(Var(theta))."""
    _anchor, _d, _factor, ratio = second_moment(mu, sigma, a, b)
    narrow = ratio < NARROW_RATIO
    _mode, mean, spread, _with_tau, _with_square = narrow_moments(narrow, mu, sigma, a, b)
    wide = maximum(ratio, NARROW_RATIO)
    return where(narrow, (ONE + mean) / sqrt(spread), exp(-HALF * wide) / sqrt(-expm1(-wide)))


def variance(mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return Var(theta)."""
    anchor, d, factor, ratio = second_moment(mu, sigma, a, b)
    narrow = ratio < NARROW_RATIO
    mode, _mean, spread, _with_tau, _with_square = narrow_moments(narrow, mu, sigma, a, b)
    part = where(narrow, spread, factor * -expm1(-maximum(ratio, NARROW_RATIO)))
    return anchored_exp(where(narrow, mode, anchor), where(narrow, mode, d), part)


def log_mean_grad(mu: Real, sigma: Real, a: Real, b: Real) -> tuple[Real, Real, Real]:
    """Return (log E[theta], d/dmu, d/dsigma).

    The gradient is the difference of E[(y - m)/sigma] and of E[y^2]/sigma under theta q and under q;
    of a narrow q a covariance with exp(x - mode) - 1. At tiny sigma d/dsigma is of the size of sigma
    and limited to an absolute accuracy of eps.
    """
    alpha = (a - mu) / sigma
    beta = (b - mu) / sigma
    w = (b - a) / sigma
    _anchor, _d, _factor, ratio = second_moment(mu, sigma, a, b)
    narrow = ratio < NARROW_RATIO
    _mode, mean, _spread, with_tau, with_square = narrow_moments(narrow, mu, sigma, a, b)
    m, start, end = effective_support(alpha, beta, w)
    _j, tau0, square0 = raw_moments(m, start, end, m)
    m1, start1, end1 = effective_support(alpha - sigma, beta - sigma, w)
    offset = mode_offset(alpha, beta, w, sigma)
    _j1, tau1, square1 = raw_moments(m1, start1, end1, m + offset)
    moved = offset * (TWO * m + offset) + (square1 - square0)
    d_mu = where(narrow, with_tau / (ONE + mean), offset + (tau1 - tau0)) / sigma
    d_sigma = where(narrow, with_square / (ONE + mean), moved) / sigma
    rare = log_mean_is_rare(mu, sigma, a, b)
    value = where(rare, log_mean_rare(mu, sigma, a, b), log_mean_common(mu, sigma, a, b))
    return value, d_mu, d_sigma
