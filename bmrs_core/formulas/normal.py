"""The mass of the normal distribution between two bounds.

Throughout, y is standard normal, [alpha, beta] its interval and w = beta - alpha, which callers
compute from the bounds they were given, never from alpha and beta. An interval is first *oriented*:
reflected, if need be, so that its right end lies at least as far out as its left one. Then its
density is anchored at its mode m = max(A, 0), so that nothing overflows and no two large numbers
are subtracted: J = integral of exp(-(y^2 - m^2)/2) over [A, B] is the one quantity from which the
log normaliser, the entropy, the moments and Delta F are built.
"""

from __future__ import annotations

from bmrs_core.formulas.constants import (
    FEW,
    FEW_T,
    FEW_W,
    HALF,
    HALF_LOG_2PI,
    HUGE,
    INV_SQRT_2PI,
    LOG_2,
    ONE,
    SQRT_2,
    SQRT_2PI,
    ZERO,
)
from bmrs_core.formulas.mills import mills
from bmrs_core.formulas.primitives import (
    Bool,
    Real,
    absolute,
    exp,
    log,
    log1p,
    maximum,
    minimum,
    sums_over_nodes,
    where,
)

__all__ = [
    "J_any",
    "J_is_short",
    "J_short",
    "J_wide",
    "log_erf_diff_common",
    "log_erf_diff_is_rare",
    "log_erf_diff_rare",
    "log_ndtr_diff_common",
    "log_ndtr_diff_is_rare",
    "log_ndtr_diff_rare",
    "log_normal_mass",
    "log_normal_mass_short",
    "oriented",
]

# Below this width, in units of sigma, an interval may be short: see J_is_short.
SHORT_WIDTH = 1.5


def oriented(alpha: Real, beta: Real) -> tuple[Real, Real, Real]:
    """Return (A, B, h): the interval reflected so that A + B >= 0, and its midpoint h >= 0."""
    flipped = alpha + beta < ZERO
    lower = where(flipped, -beta, alpha)
    upper = where(flipped, -alpha, beta)
    return lower, upper, HALF * (lower + upper)


def J_is_short(w: Real, h: Real) -> Bool:
    """Tell whether J is to be summed: where its closed form would subtract two near-equal numbers.

    In a tail the two Mills ratios' difference keeps 1 - exp(-w h) of their size, in the interior
    the complement w / sqrt(2 pi) of the whole: at the border both lose no more than a factor of 2.
    """
    return (w * h < ONE) & (w < SHORT_WIDTH)


def J_wide(lower: Real, upper: Real, w: Real, h: Real) -> Real:
    """Return J of an oriented interval in closed form."""
    in_tail = lower >= ZERO
    near = mills(absolute(lower))
    far = mills(upper) * exp(where(in_tail, -w * h, -HALF * upper * upper))
    return where(in_tail, near, SQRT_2PI - exp(-HALF * lower * lower) * near) - far


@sums_over_nodes
def J_short(lower: Real, w: Real) -> Real:
    """Return J of a short oriented interval by quadrature of exp(-tau (m + tau/2)), y = m + tau."""
    m = maximum(lower, ZERO)
    start = lower - m
    total = ZERO
    for j in range(FEW):
        tau = start + w * FEW_T[j]
        total = total + FEW_W[j] * exp(-tau * (m + HALF * tau))
    return w * total


def J_any(lower: Real, upper: Real, w: Real, h: Real) -> Real:
    """Return J of any oriented interval."""
    return where(J_is_short(w, h), J_short(lower, w), J_wide(lower, upper, w, h))


def log_normal_mass(alpha: Real, beta: Real, w: Real) -> Real:
    """Return log(Phi(beta) - Phi(alpha)) of an interval that is not short.

    In the interior as the complement of both tails; in a tail anchored at the nearer end.
    """
    lower, upper, h = oriented(alpha, beta)
    in_tail = lower >= ZERO
    near = mills(absolute(lower))
    far = mills(upper) * exp(where(in_tail, -w * h, -HALF * upper * upper))
    square = HALF * lower * lower
    interior = log1p(-INV_SQRT_2PI * (exp(-square) * near + far))
    tail = log(where(in_tail, near - far, ONE)) - HALF_LOG_2PI - square
    return where(in_tail, tail, interior)


def log_normal_mass_short(alpha: Real, beta: Real, w: Real) -> Real:
    """Return log(Phi(beta) - Phi(alpha)) of a short interval."""
    lower, _upper, _h = oriented(alpha, beta)
    m = maximum(lower, ZERO)
    return log(J_short(lower, w)) - HALF_LOG_2PI - HALF * m * m


def log_ndtr_diff_is_rare(lower: Real, upper: Real) -> Bool:
    """Tell whether the interval is short."""
    x = minimum(maximum(lower, -HUGE), HUGE)
    y = minimum(maximum(upper, -HUGE), HUGE)
    return J_is_short(y - x, HALF * absolute(x + y))


def log_ndtr_diff_common(lower: Real, upper: Real) -> Real:
    """Return log(Phi(upper) - Phi(lower)); infinite bounds are as good as +-1e150."""
    x = minimum(maximum(lower, -HUGE), HUGE)
    y = minimum(maximum(upper, -HUGE), HUGE)
    return log_normal_mass(x, y, y - x)


def log_ndtr_diff_rare(lower: Real, upper: Real) -> Real:
    """Return log(Phi(upper) - Phi(lower)) of a short interval."""
    return log_normal_mass_short(lower, upper, upper - lower)


def log_erf_diff_is_rare(x: Real, y: Real) -> Bool:
    """Tell whether the interval is short."""
    return log_ndtr_diff_is_rare(SQRT_2 * x, SQRT_2 * y)


def log_erf_diff_common(x: Real, y: Real) -> Real:
    """Return log(erf(y) - erf(x))."""
    lower = minimum(maximum(x, -HUGE), HUGE)
    upper = minimum(maximum(y, -HUGE), HUGE)
    return LOG_2 + log_normal_mass(SQRT_2 * lower, SQRT_2 * upper, SQRT_2 * (upper - lower))


def log_erf_diff_rare(x: Real, y: Real) -> Real:
    """Return log(erf(y) - erf(x)) of a short interval."""
    return LOG_2 + log_normal_mass_short(SQRT_2 * x, SQRT_2 * y, SQRT_2 * (y - x))
