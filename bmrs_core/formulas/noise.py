"""The draw of the noise layer, theta = exp(x(u)) and its derivatives, for kernels that compute in float32.

A draw is split in two. What depends on the structure alone (its *coefficients*: masses, reciprocals,
a first slope) is computed once per structure, the rest per draw. The interval is oriented as in
`normal`; p is the fraction of the mass between the nearer end and x, q = 1 - p the rest, both of
full relative accuracy because a kernel forms each from the random word. Three regimes, by structure:

interior   mu inside the support or no more than `TAIL` sigma beyond it: the inverse normal of the
           smaller of the two tails;
tail       farther out: with v = A t (t the distance from the nearer end in sigma, r = 1/A^2)
           v + v^2 r/2 + log1p(v r) + S(r) - S(r/(1 + v r)^2) = y is solved for v, S(1/z^2) = log(z R(z))
           with R Mills' ratio and y the negative log of the survival: one Halley step;
short      a support so short that the density varies little over it: Halley steps on its integral.

Constants are fitted for float32: truncation below 5e-8, which 50 digits would not mend.
"""

from __future__ import annotations

from bmrs_core.formulas.constants import HALF, INV_SQRT_2PI, ONE, TINY, TWO, ZERO
from bmrs_core.formulas.mills import mills
from bmrs_core.formulas.normal import SHORT_WIDTH, beside_one, oriented
from bmrs_core.formulas.primitives import (
    Bool,
    Real,
    absolute,
    exp,
    expm1,
    log,
    log1p,
    maximum,
    minimum,
    sqrt,
    where,
)
from bmrs_core.formulas.quantile import short_integral, short_step

__all__ = [
    "interior_coefficients",
    "interior_derivatives",
    "interior_draw",
    "is_short_structure",
    "is_tail_structure",
    "log_scaled_mills",
    "short_coefficients",
    "short_derivatives",
    "short_draw",
    "tail_coefficients",
    "tail_derivatives",
    "tail_solution",
    "upper_quantile_float32",
]

# From here S is a short polynomial in 1/z^2; nearer, the inverse normal loses z eps <= 3 eps of sigma.
TAIL = 3.0

# z(s) with s = sqrt(-2 log(1 - Phi(z))), 1.17 <= s <= 8.4: rational of degree 4 over 3, within 4e-8 of
# max(z, 1/2).
ZN0 = -3.2058985233306885
ZN1 = -7.807367324829102
ZN2 = 3.3814785480499268
ZN3 = 4.140624046325684
ZN4 = 0.4954530894756317
ZD1 = 5.426303863525391
ZD2 = 4.1620049476623535
ZD3 = 0.49517056345939636

# S(r)/r for 0 <= r <= 1/9, of degree 7: within 2.2e-7, times r of S.
SM1 = -0.9999998211860657
SM2 = 2.49975323677063
SM3 = -12.281649589538574
SM4 = 83.93624877929688
SM5 = -625.21142578125
SM6 = 3913.156494140625
SM7 = -15980.943359375
SM8 = 29897.3671875

THIRD = 0.3333333333333333

# Below this exponent across a short support its slope is left out of the first guess.
LEVEL = 1e-3


def is_short_structure(alpha: Real, beta: Real, w: Real) -> Bool:
    """Tell whether the support is short."""
    _lower, _upper, h = oriented(alpha, beta)
    return (w * h < ONE) & (w < SHORT_WIDTH)


def is_tail_structure(alpha: Real, beta: Real, _w: Real) -> Bool:
    """Tell whether mu lies more than `TAIL` sigma outside the support."""
    lower, _upper, _h = oriented(alpha, beta)
    return lower > TAIL


def upper_quantile_float32(s: Real) -> Real:
    """Return z with sqrt(-2 log(1 - Phi(z))) = s."""
    num = (((ZN4 * s + ZN3) * s + ZN2) * s + ZN1) * s + ZN0
    return num / (((ZD3 * s + ZD2) * s + ZD1) * s + ONE)


def log_scaled_mills(r: Real) -> Real:
    """Return S(r) = log(z R(z)) at z = 1/sqrt(r) >= 3."""
    high = ((SM8 * r + SM7) * r + SM6) * r + SM5
    return ((((high * r + SM4) * r + SM3) * r + SM2) * r + SM1) * r


def interior_coefficients(alpha: Real, beta: Real) -> tuple[Real, Real, Real, Real, Real, Real]:
    """Return (A, B, mass below A, below B, above A, above B) of the oriented interval."""
    lower, upper, _h = oriented(alpha, beta)
    near = INV_SQRT_2PI * beside_one(-HALF * lower * lower) * mills(absolute(lower))
    above_upper = INV_SQRT_2PI * beside_one(-HALF * upper * upper) * mills(upper)
    inside = lower < ZERO
    below_lower = where(inside, near, ONE - near)
    above_lower = where(inside, ONE - near, near)
    return lower, upper, below_lower, ONE - above_upper, above_lower, above_upper


def interior_draw(
    p: Real, q: Real, below_lower: Real, below_upper: Real, above_lower: Real, above_upper: Real
) -> Real:
    """Return z = A + t of a draw."""
    below = q * below_lower + p * below_upper
    above = q * above_lower + p * above_upper
    z = upper_quantile_float32(sqrt(-TWO * log(minimum(below, above))))
    return where(below < above, -z, z)


def interior_derivatives(p: Real, q: Real, z: Real, lower: Real, upper: Real) -> tuple[Real, Real]:
    """Return (dx/dmu, dz/dlog sigma at fixed a, b in units of sigma).

    1 - q phi(A)/phi(z) - p phi(B)/phi(z) and z - q A phi(A)/phi(z) - p B phi(B)/phi(z).
    """
    at_lower = q * exp(HALF * (z - lower) * (z + lower))
    at_upper = p * exp(HALF * (z - upper) * (z + upper))
    return ONE - at_lower - at_upper, z - at_lower * lower - at_upper * upper


def tail_coefficients(alpha: Real, beta: Real, w: Real) -> tuple[Real, Real, Real, Real, Real, Real]:
    """Return (r, S(r), rest, W, B/A, D): W = w A, rest the survival at B, D = 1 - R(B)/R(A)."""
    lower, upper, h = oriented(alpha, beta)
    lower = maximum(lower, TAIL)
    upper = maximum(upper, TAIL)
    r = ONE / (lower * lower)
    s_lower = log_scaled_mills(r)
    ratio = upper / lower
    s_upper = log_scaled_mills(ONE / (upper * upper))
    drop = log1p(w / lower) + s_lower - s_upper
    return r, s_lower, beside_one(-drop - w * h), w * lower, ratio, -expm1(-drop)


def tail_solution(p: Real, q: Real, r: Real, s_lower: Real, rest: Real, reach: Real) -> tuple[Real, Real]:
    """Return (v, log(R(A)/R(A + t))) of a draw, v = A t <= reach.

    The first guess takes the hazard 1/R as linear in t, with its slope at A: within 1 per cent for A >= 3.
    Halley's step from there leaves 5e-8. The second result follows v by its own Taylor series.
    """
    y = -log(maximum(q + p * rest, TINY))
    growth = -expm1(s_lower)
    v = TWO * y * (ONE - growth) / (ONE + sqrt(ONE + TWO * growth * y))
    rho = ONE + v * r
    inverse = ONE / rho
    s = log_scaled_mills(r * inverse * inverse)
    drop = log(rho) + (v * r - (rho - ONE)) * inverse + (s_lower - s)
    residual = v * (ONE + HALF * v * r) + drop - y
    hazard = ONE - s * (ONE - HALF * s * (ONE - THIRD * s))
    slope = rho * hazard
    curvature = slope * rho * (hazard - ONE)
    newton = -residual / slope
    step = newton / (ONE + HALF * newton * curvature / slope)
    moved = v + step
    solved = minimum(maximum(moved, ZERO), reach)
    return solved, drop + step * (slope - rho + HALF * step * (curvature - r))


def tail_derivatives(
    p: Real, v: Real, drop: Real, r: Real, reach: Real, ratio: Real, far_drop: Real
) -> tuple[Real, Real]:
    """Return (dx/dmu, dx/dlog sigma from the nearer end in units of sigma/A)."""
    at_upper = p * exp(-HALF * (reach - v) * (ratio + ONE + v * r))
    d_mu = -expm1(-drop) - at_upper * far_drop
    return d_mu, v + d_mu / r - reach * at_upper


def short_coefficients(alpha: Real, beta: Real, w: Real) -> tuple[Real, Real, Real]:
    """Return (A, w, integral of exp(-t (A + t/2)) from 0 to w)."""
    lower, _upper, _h = oriented(alpha, beta)
    short = minimum(w, SHORT_WIDTH)
    lower = minimum(lower, ONE / short)
    return lower, short, short_integral(short, lower)


def short_draw(p: Real, lower: Real, w: Real, whole: Real) -> Real:
    """Return t of a draw: two Halley steps from an exponential with the slope at the middle."""
    slope = lower + HALF * w
    steep = absolute(slope * w) > LEVEL
    safe = where(steep, slope, ONE)
    exponential = -log1p(p * expm1(-safe * w)) / safe
    t = minimum(where(steep, exponential, p * w), w)
    t = short_step(t, lower, p * whole, w)
    return short_step(t, lower, p * whole, w)


def short_derivatives(p: Real, q: Real, t: Real, lower: Real, w: Real) -> tuple[Real, Real]:
    """Return (dx/dmu, dx/dlog sigma from the nearer end in units of sigma), by expm1 of small exponents."""
    rest = w - t
    at_lower = expm1(t * (lower + HALF * t))
    at_upper = expm1(-rest * (lower + t + HALF * rest))
    d_mu = -(q * at_lower + p * at_upper)
    return d_mu, (t - p * w) + lower * d_mu - w * p * at_upper
