"""Moments of the truncated normal by quadrature over its effective support.

What needs full relative accuracy of a *centred* moment (a variance, a covariance, hence most
gradients) is summed: closed forms subtract quantities of the size of alpha^4. Exponents are
measured from the mode m = clip(0, alpha, beta), y = m + tau.
"""

from __future__ import annotations

from bmrs_core.formulas.constants import (
    HALF,
    MANY,
    MANY_CUT,
    MANY_REACH,
    MANY_T,
    MANY_TC,
    MANY_W,
    TWO,
    ZERO,
)
from bmrs_core.formulas.primitives import (
    Real,
    absolute,
    decay,
    expm1,
    maximum,
    minimum,
    sqrt,
    sums_over_nodes,
    where,
)

__all__ = [
    "central_moments",
    "effective_support",
    "effective_support_spanning",
    "exponential_moments",
    "raw_moments",
]


def effective_support(alpha: Real, beta: Real, w: Real) -> tuple[Real, Real, Real]:
    """Return (m, start, end): where exp(-tau (m + tau/2)) is above exp(-MANY_CUT), cut at the bounds."""
    m = minimum(maximum(alpha, ZERO), beta)
    distance = absolute(m)
    tail = minimum(w, TWO * MANY_CUT / (distance + sqrt(distance * distance + TWO * MANY_CUT)))
    start = where(alpha > ZERO, ZERO, where(beta < ZERO, -tail, maximum(alpha, -MANY_REACH)))
    end = where(alpha > ZERO, tail, where(beta < ZERO, ZERO, minimum(beta, MANY_REACH)))
    return m, start, end


def effective_support_spanning(
    alpha: Real, beta: Real, w: Real, span_start: Real, span_end: Real
) -> tuple[Real, Real, Real]:
    """Return the effective support widened to [span_start, span_end] (in tau), cut at the bounds."""
    m, start, end = effective_support(alpha, beta, w)
    first = where(alpha > ZERO, ZERO, where(beta < ZERO, -w, alpha))
    last = where(alpha > ZERO, w, where(beta < ZERO, ZERO, beta))
    return m, maximum(minimum(start, span_start), first), minimum(maximum(end, span_end), last)


@sums_over_nodes
def raw_moments(m: Real, start: Real, end: Real, pivot: Real) -> tuple[Real, Real, Real]:
    """Return (J, E[tau], E[tau (2 pivot + tau)]); with pivot = m the last is E[y^2 - m^2]."""
    total = ZERO
    first = ZERO
    second = ZERO
    for j in range(MANY):
        tau = start * MANY_TC[j] + end * MANY_T[j]
        g = MANY_W[j] * decay(-tau * (m + HALF * tau))
        total = total + g
        first = first + g * tau
        second = second + g * (tau * (TWO * pivot + tau))
    return (end - start) * total, first / total, second / total


@sums_over_nodes
def central_moments(m: Real, start: Real, end: Real, tau_mean: Real, square_mean: Real) -> tuple[Real, Real]:
    """Return (Cov(tau, y^2), Var(y^2)) given E[tau] and E[y^2 - m^2]."""
    total = ZERO
    covariance = ZERO
    variance = ZERO
    for j in range(MANY):
        tau = start * MANY_TC[j] + end * MANY_T[j]
        g = MANY_W[j] * decay(-tau * (m + HALF * tau))
        square = tau * (TWO * m + tau) - square_mean
        total = total + g
        covariance = covariance + g * ((tau - tau_mean) * square)
        variance = variance + g * (square * square)
    return covariance / total, variance / total


@sums_over_nodes
def exponential_moments(m: Real, start: Real, end: Real, sigma: Real) -> tuple[Real, Real, Real, Real]:
    """Return (E[v], Var(v), Cov(v, tau), Cov(v, y^2)) of v = exp(sigma tau) - 1."""
    total = ZERO
    v_sum = ZERO
    tau_sum = ZERO
    square_sum = ZERO
    for j in range(MANY):
        tau = start * MANY_TC[j] + end * MANY_T[j]
        g = MANY_W[j] * decay(-tau * (m + HALF * tau))
        total = total + g
        v_sum = v_sum + g * expm1(sigma * tau)
        tau_sum = tau_sum + g * tau
        square_sum = square_sum + g * (tau * (TWO * m + tau))
    v_mean = v_sum / total
    tau_mean = tau_sum / total
    square_mean = square_sum / total
    variance = ZERO
    with_tau = ZERO
    with_square = ZERO
    for j in range(MANY):
        tau = start * MANY_TC[j] + end * MANY_T[j]
        g = MANY_W[j] * decay(-tau * (m + HALF * tau))
        v = g * (expm1(sigma * tau) - v_mean)
        variance = variance + v * (expm1(sigma * tau) - v_mean)
        with_tau = with_tau + v * (tau - tau_mean)
        with_square = with_square + v * (tau * (TWO * m + tau) - square_mean)
    return v_mean, variance / total, with_tau / total, with_square / total
