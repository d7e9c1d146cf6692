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
    EIGHTH,
    HALF,
    HUGE,
    INV_SQRT_2PI,
    LOG_2,
    ONE,
    SQRT_2,
    SQRT_2PI,
    SQRT_2PI_LOW,
    ZERO,
)
from bmrs_core.formulas.mills import mills
from bmrs_core.formulas.primitives import Bool, Real, absolute, decay, log, maximum, minimum, where
from bmrs_core.formulas.short_support import short_excess

__all__ = [
    "J_any",
    "J_given",
    "J_is_short",
    "J_wide",
    "beside_one",
    "log_erf_diff",
    "log_ndtr_diff",
    "log_normal_mass",
    "oriented",
]

# Below this width, in units of sigma, an interval may be short: see J_is_short.
SHORT_WIDTH = 1.5


# e^-NOTHING = 8e-20 of a sum is below half an ulp of it, also in float64.
NOTHING = 44.0


def beside_one(x: Real) -> Real:
    """Return e^x for x <= 0 as a summand beside something of the size of 1: 0 where it would not be seen.

    The factors it meets, Mills' ratios of arguments up to HUGE, then make no subnormal number of it.
    """
    return decay(where(x > -NOTHING, x, -HUGE))


def oriented(alpha: Real, beta: Real) -> tuple[Real, Real, Real]:
    """Return (A, B, h): the interval reflected so that A + B >= 0, and its midpoint h >= 0."""
    flipped = alpha + beta < ZERO
    lower = where(flipped, -beta, alpha)
    upper = where(flipped, -alpha, beta)
    return lower, upper, HALF * (lower + upper)


def J_is_short(w: Real, h: Real) -> Bool:
    """Tell whether J is to be a series: where its closed form would subtract two near-equal numbers.

    In a tail the two Mills ratios' difference keeps 1 - exp(-w h) of their size, in the interior
    the complement w / sqrt(2 pi) of the whole: at the border both lose no more than a factor of 2.
    """
    return (w * h < ONE) & (w < SHORT_WIDTH)


def J_wide(lower: Real, upper: Real, w: Real, h: Real) -> Real:
    """Return J of an oriented interval that is not short, in closed form."""
    near = mills(absolute(lower))
    far = mills(upper) * beside_one(-w * h)
    in_tail = lower >= ZERO
    scale = beside_one(-HALF * lower * lower)
    return where(in_tail, near, SQRT_2PI - scale * near) - where(in_tail, far, scale * far - SQRT_2PI_LOW)


def J_given(lower: Real, upper: Real, w: Real, h: Real, p: Real, q: Real, excess: Real) -> Real:
    """Return J given p = w h/2, q = w^2/8 and the short_excess of both."""
    in_tail = lower >= ZERO
    short = J_is_short(w, h)
    near = mills(absolute(lower))
    far = mills(upper) * beside_one(-w * h)
    scale = beside_one(where(short, where(in_tail, q - p, -HALF * h * h), -HALF * lower * lower))
    wide = where(in_tail, near, SQRT_2PI - scale * near)
    wide = wide - where(in_tail, far, scale * far - SQRT_2PI_LOW)
    return where(short, w * scale * (ONE + excess), wide)


def J_any(lower: Real, upper: Real, w: Real, h: Real) -> Real:
    """Return J of any oriented interval."""
    p = HALF * w * h
    q = EIGHTH * w * w
    return J_given(lower, upper, w, h, p, q, short_excess(p, q))


def log_normal_mass(alpha: Real, beta: Real, w: Real) -> Real:
    """Return log(Phi(beta) - Phi(alpha)).

    In the interior as the complement of both tails, log(1 - c) = log u + (1 - u - c)/u with u = 1 - c
    rounded and 1/u ~ 1 + c; in a tail anchored at the nearer end; of a short interval at its midpoint.
    Both tails share the factor e^(-A^2/2), taken last: what is subnormal is the result or nothing.
    """
    lower, upper, h = oriented(alpha, beta)
    in_tail = lower >= ZERO
    short = J_is_short(w, h)
    near = mills(absolute(lower))
    far = mills(upper) * beside_one(-w * h)
    square = HALF * lower * lower
    complement = decay(where(in_tail, -HUGE, -square)) * (INV_SQRT_2PI * (near + far))
    rounded = ONE - complement
    excess = short_excess(HALF * w * h, EIGHTH * w * w)
    mass = where(short, w * (ONE + excess), where(in_tail, near - far, SQRT_2PI))
    anchor = where(
        short, -HALF * h * h, where(in_tail, -square, (ONE - rounded - complement) * (ONE + complement))
    )
    return log(where(short | in_tail, INV_SQRT_2PI * mass, rounded)) + anchor


def log_ndtr_diff(lower: Real, upper: Real) -> Real:
    """Return log(Phi(upper) - Phi(lower)); infinite bounds are as good as +-HUGE."""
    x = minimum(maximum(lower, -HUGE), HUGE)
    y = minimum(maximum(upper, -HUGE), HUGE)
    return log_normal_mass(x, y, y - x)


def log_erf_diff(x: Real, y: Real) -> Real:
    """Return log(erf(y) - erf(x)); infinite bounds are as good as +-HUGE."""
    lower = minimum(maximum(x, -HUGE), HUGE)
    upper = minimum(maximum(y, -HUGE), HUGE)
    return LOG_2 + log_normal_mass(SQRT_2 * lower, SQRT_2 * upper, SQRT_2 * (upper - lower))
