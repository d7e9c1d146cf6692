"""theta and its derivatives on tiles of structures, in float32, inside Triton kernels.

What depends on the structure alone is one row of coefficients: base, unit, scale, flip, regime, then up to
six numbers of its regime (see `bmrs_core.formulas.noise`). A tile evaluates the regimes that its structures
need and no other: `draw` branches on what a whole block has in common.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from bmrs_kernels.contract import LOG_SIGMA_LIMIT
from bmrs_kernels.gpu.formulas import TEXTS, exp

__all__ = ["coefficients", "draw", "draw_gradients", "regimes_of"]

_interpreted = triton.knobs.runtime.interpret
_constant: Any = (lambda value: value) if _interpreted else tl.constexpr

LIMIT = _constant(LOG_SIGMA_LIMIT)
INTERIOR = _constant(0)
TAIL = _constant(1)
SHORT = _constant(2)
PRUNED = _constant(3)
ALL_BITS = _constant(0xFFFFFFFF)
ULP = _constant(2.0**-32)
HALF_ULP = _constant(2.0**-33)
# A bound farther than this from mu, in sigma, is as good as at this distance: squares must not overflow.
FAR = _constant(1e18)
# log 2 in two parts, the first with 9 trailing zero bits: k LN2_HIGH is exact for |k| < 2^9.
LOG2_E = _constant(1.4426950408889634)
LN2_HIGH = _constant(0.693359375)
LN2_LOW = _constant(-2.12194440054690583e-4)

is_short_structure = TEXTS["is_short_structure"]
is_tail_structure = TEXTS["is_tail_structure"]
interior_coefficients = TEXTS["interior_coefficients"]
interior_draw = TEXTS["interior_draw"]
interior_derivatives = TEXTS["interior_derivatives"]
tail_coefficients = TEXTS["tail_coefficients"]
tail_solution = TEXTS["tail_solution"]
tail_derivatives = TEXTS["tail_derivatives"]
short_coefficients = TEXTS["short_coefficients"]
short_draw = TEXTS["short_draw"]
short_derivatives = TEXTS["short_derivatives"]


@triton.jit
def precise_exp(x):
    """e^x within 2 eps: of log sigma, where `exp` would lose |log sigma| eps of sigma."""
    k = tl.floor(x * LOG2_E + 0.5)
    return exp((x - k * LN2_HIGH) - k * LN2_LOW) * tl.exp2(k)


@triton.jit
def coefficients(mu, log_sigma, mask, a, b):
    """What the draws of a structure need to know of it: 11 numbers.

    An unusable structure gets NaN for its scale, which is a factor of theta and of its derivatives.
    """
    usable = (tl.abs(mu) < float("inf")) & (tl.abs(log_sigma) <= LIMIT)
    kept = mask != 0
    drawn = usable & kept
    m = tl.where(drawn, mu, 0.0)
    sigma = precise_exp(tl.where(drawn, log_sigma, 0.0))
    # What is not drawn gets an interval that all texts can handle: 0 times infinity would not be 0.
    alpha = tl.where(drawn, tl.minimum(tl.maximum((a - m) / sigma, -FAR), FAR), -1.0)
    beta = tl.where(drawn, tl.minimum(tl.maximum((b - m) / sigma, -FAR), FAR), 1.0)
    w = tl.where(drawn, tl.minimum((b - a) / sigma, FAR), 2.0)
    flipped = alpha + beta < 0.0
    is_short = is_short_structure(alpha, beta, w)
    is_tail = is_tail_structure(alpha, beta, w)
    regime = tl.where(kept, tl.where(is_short, SHORT, tl.where(is_tail, TAIL, INTERIOR)), PRUNED)
    scale = tl.where(kept, tl.where(usable, mask, float("nan")), 0.0)
    inside = ~(is_short | is_tail)
    base = tl.where(inside, m, tl.where(flipped, b, a))
    distance = tl.where(is_tail & ~is_short, tl.where(flipped, -beta, alpha), 1.0)
    unit = tl.where(flipped, -sigma, sigma) / distance
    flip = tl.where(flipped, ALL_BITS, 0).to(tl.uint32)
    c4, c5, c6, c7, c8, c9 = interior_coefficients(alpha, beta)
    if has(regime, TAIL):
        t4, t5, t6, t7, t8, t9 = tail_coefficients(alpha, beta, w)
        c4, c5, c6 = tl.where(is_tail, t4, c4), tl.where(is_tail, t5, c5), tl.where(is_tail, t6, c6)
        c7, c8, c9 = tl.where(is_tail, t7, c7), tl.where(is_tail, t8, c8), tl.where(is_tail, t9, c9)
    if has(regime, SHORT):
        s4, s5, s6 = short_coefficients(alpha, beta, w)
        c4, c5, c6 = tl.where(is_short, s4, c4), tl.where(is_short, s5, c5), tl.where(is_short, s6, c6)
    return base, unit, scale, flip, regime, c4, c5, c6, c7, c8, c9


@triton.jit
def has(regimes, regime):
    """Tell whether any structure of a block is of a regime."""
    return tl.sum((regimes == regime).to(tl.int32)) > 0


@triton.jit
def fractions(words, flip):
    """Return p and 1 - p, each to full relative accuracy: the halves of 32 bits and of their complement."""
    near = words ^ flip
    return near.to(tl.float32) * ULP + HALF_ULP, (near ^ ALL_BITS).to(tl.float32) * ULP + HALF_ULP


@triton.jit
def theta_at(distance, base, unit, scale, a, b):
    """Theta times mask where log theta lies `distance` units from its base."""
    return scale * exp(tl.minimum(tl.maximum(base + unit * distance, a), b))


@triton.jit
def regimes_of(own):
    """Which regimes the structures of a block are in: interior, tail, short."""
    return has(own[4], INTERIOR), has(own[4], TAIL), has(own[4], SHORT)


@triton.jit
def draw(words, own, regimes, a, b):
    """Theta times mask from the words of a tile; the coefficients are broadcast to it."""
    base, unit, scale, flip, regime, c4, c5, c6, c7, c8, c9 = own
    some_interior, some_tail, some_short = regimes
    p, q = fractions(words, flip)
    t = p * 0.0
    if some_interior:
        t = interior_draw(p, q, c6, c7, c8, c9)
    if some_tail:
        v, _drop = tail_solution(p, q, c4, c5, c6, c7)
        t = tl.where(regime == TAIL, v, t)
    if some_short:
        t = tl.where(regime == SHORT, short_draw(p, c4, c5, c6), t)
    return theta_at(t, base, unit, scale, a, b)


@triton.jit
def draw_gradients(words, own, regimes, a, b):
    """The same, with its derivatives by mu and log sigma."""
    base, unit, scale, flip, regime, c4, c5, c6, c7, c8, c9 = own
    some_interior, some_tail, some_short = regimes
    p, q = fractions(words, flip)
    t = p * 0.0
    if some_interior:
        t = interior_draw(p, q, c6, c7, c8, c9)
    # Not inside the branch: with two regimes' worth of values to choose from, the LLVM of Triton 3.9 fails an
    # assertion for sm_100.
    by_mu, by_log_sigma = interior_derivatives(p, q, t, c4, c5)
    if some_tail:
        v, drop = tail_solution(p, q, c4, c5, c6, c7)
        tail_by_mu, tail_by_log_sigma = tail_derivatives(p, v, drop, c4, c7, c8, c9)
        t = tl.where(regime == TAIL, v, t)
        by_mu = tl.where(regime == TAIL, tail_by_mu, by_mu)
        by_log_sigma = tl.where(regime == TAIL, tail_by_log_sigma, by_log_sigma)
    if some_short:
        near = short_draw(p, c4, c5, c6)
        short_by_mu, short_by_log_sigma = short_derivatives(p, q, near, c4, c5)
        t = tl.where(regime == SHORT, near, t)
        by_mu = tl.where(regime == SHORT, short_by_mu, by_mu)
        by_log_sigma = tl.where(regime == SHORT, short_by_log_sigma, by_log_sigma)
    theta = theta_at(t, base, unit, scale, a, b)
    return theta, theta * by_mu, theta * (unit * by_log_sigma)
