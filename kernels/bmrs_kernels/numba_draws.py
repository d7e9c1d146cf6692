"""theta and its derivatives for many structures at once, in float32 or float64, inside Numba kernels.

`prepare` sorts the structures by regime, so that every regime's text runs as SIMD over the structures it is
for and costs nothing where there are none, and computes each structure's coefficients. `draw` and
`draw_gradients` then turn random words into theta; pruned structures come last and are not drawn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from bmrs_core.backends import numba_kernels
from bmrs_core.backends.numba_elementary import FAST
from bmrs_core.backends.numba_elementary import exp as exp_float64
from bmrs_core.backends.numba_kernels import align_stack, interleave
from bmrs_kernels import numba_float32
from bmrs_kernels.contract import LOG_SIGMA_LIMIT
from bmrs_kernels.numba_cache import cached_njit
from bmrs_kernels.numba_float32 import exp

__all__ = ["COEFFICIENTS", "DRAWS"]

COEFFICIENTS = 10
"""Numbers kept per structure: base, unit, mask, flipped, then up to six of its regime."""

REGIMES = 4

f32 = np.float32
ZERO = f32(0.0)
HALF = f32(0.5)
ONE = f32(1.0)
TWO = f32(2.0)
PRUNED = f32(3.0)
ULP = f32(2.0**-32)
# A bound farther than this from mu, in sigma, is as good as at this distance: squares must not overflow.
FAR = f32(1e18)
LIMIT = f32(LOG_SIGMA_LIMIT)
LIMIT_FLOAT64 = 700.0
ULP_FLOAT64 = 2.0**-32

_text = numba_float32.compiled_texts()
is_short_structure = _text["is_short_structure"]
is_tail_structure = _text["is_tail_structure"]
interior_coefficients = _text["interior_coefficients"]
interior_draw = _text["interior_draw"]
interior_derivatives = _text["interior_derivatives"]
tail_coefficients = _text["tail_coefficients"]
tail_solution = _text["tail_solution"]
tail_derivatives = _text["tail_derivatives"]
short_coefficients = _text["short_coefficients"]
short_draw = _text["short_draw"]
short_derivatives = _text["short_derivatives"]
clip_low = numba_float32.maximum
clip_high = numba_float32.minimum

_text_float64 = numba_kernels.compiled_texts()
log_quantile_common = _text_float64["log_quantile_common"]
log_quantile_is_interior = _text_float64["log_quantile_is_interior"]
log_quantile_interior = _text_float64["log_quantile_interior"]
log_quantile_is_rare = _text_float64["log_quantile_is_rare"]
log_quantile_rare = _text_float64["log_quantile_rare"]
log_quantile_grad = _text_float64["log_quantile_grad"]


@njit(**FAST)
def _standardized(mu: Any, sigma: Any, a: Any, b: Any) -> Any:
    alpha = clip_high(clip_low((a - mu) / sigma, -FAR), FAR)
    beta = clip_high(clip_low((b - mu) / sigma, -FAR), FAR)
    return alpha, beta, clip_high((b - a) / sigma, FAR)


@njit(**FAST)
def _first_bad(mu: Any, log_sigma: Any, mask: Any, limit: Any) -> Any:
    for c in range(mu.size):
        usable = np.isfinite(mu[c]) and abs(log_sigma[c]) <= limit
        if mask[c] != 0 and not usable:
            return c
    return -1


@njit(**FAST)
def _sort(regimes: Any, order: Any, starts: Any) -> None:
    """List the structures by regime, stably: those of regime k are order[starts[k]:starts[k + 1]].

    `order` has room for one more, so that the last, unfinished entry needs no branch.
    """
    place = 0
    for k in range(REGIMES):
        starts[k] = place
        for c in range(regimes.size):
            order[place] = c
            place += regimes[c] == k
    starts[REGIMES] = place


@njit(**FAST)
def _sorted_into(values: Any, order: Any, out: Any) -> None:
    for j in range(out.size):
        out[j] = values[order[j]]


@njit(**FAST)
def _regimes(mu: Any, sigma: Any, mask: Any, a: Any, b: Any, regimes: Any) -> None:
    for c in range(mu.size):
        alpha, beta, w = _standardized(mu[c], sigma[c], a, b)
        tail = ONE if is_tail_structure(alpha, beta, w) else ZERO
        regime = TWO if is_short_structure(alpha, beta, w) else tail
        regimes[c] = PRUNED if mask[c] == ZERO else regime


@njit(**FAST)
def _exponentials(log_sigma: Any, sigma: Any) -> None:
    for c in range(sigma.size):
        sigma[c] = exp(log_sigma[c])


@njit(**FAST)
def _interior_table(
    mu: Any,
    sigma: Any,
    a: Any,
    b: Any,
    base: Any,
    unit: Any,
    side: Any,
    c4: Any,
    c5: Any,
    c6: Any,
    c7: Any,
    c8: Any,
    c9: Any,
) -> None:
    for j in range(mu.size):
        alpha, beta, _w = _standardized(mu[j], sigma[j], a, b)
        flipped = alpha + beta < ZERO
        base[j] = mu[j]
        unit[j] = -sigma[j] if flipped else sigma[j]
        side[j] = ONE if flipped else ZERO
        c4[j], c5[j], c6[j], c7[j], c8[j], c9[j] = interior_coefficients(alpha, beta)


@njit(**FAST)
def _tail_table(
    mu: Any,
    sigma: Any,
    a: Any,
    b: Any,
    base: Any,
    unit: Any,
    side: Any,
    c4: Any,
    c5: Any,
    c6: Any,
    c7: Any,
    c8: Any,
    c9: Any,
) -> None:
    for j in range(mu.size):
        alpha, beta, w = _standardized(mu[j], sigma[j], a, b)
        flipped = alpha + beta < ZERO
        near = -beta if flipped else alpha
        base[j] = b if flipped else a
        unit[j] = -sigma[j] / near if flipped else sigma[j] / near
        side[j] = ONE if flipped else ZERO
        c4[j], c5[j], c6[j], c7[j], c8[j], c9[j] = tail_coefficients(alpha, beta, w)


@njit(**FAST)
def _short_table(
    mu: Any, sigma: Any, a: Any, b: Any, base: Any, unit: Any, side: Any, c4: Any, c5: Any, c6: Any
) -> None:
    for j in range(mu.size):
        alpha, beta, w = _standardized(mu[j], sigma[j], a, b)
        flipped = alpha + beta < ZERO
        base[j] = b if flipped else a
        unit[j] = -sigma[j] if flipped else sigma[j]
        side[j] = ONE if flipped else ZERO
        c4[j], c5[j], c6[j] = short_coefficients(alpha, beta, w)


def _prepare(
    mu: Any, log_sigma: Any, mask: Any, log_a: Any, log_b: Any, table: Any, order: Any, starts: Any
) -> Any:
    """Sort the structures and fill the table of their coefficients; return the first bad one, or -1."""
    align_stack()
    bad = _first_bad(mu, log_sigma, mask, LIMIT)
    if bad >= 0:
        return bad
    a = f32(log_a)
    b = f32(log_b)
    sigma = np.empty(mu.size, np.float32)
    flags = np.empty(mu.size, np.float32)
    _exponentials(log_sigma, sigma)
    _regimes(mu, sigma, mask, a, b, flags)
    _sort(flags, order, starts)
    m = np.empty(mu.size, np.float32)
    s = flags
    _sorted_into(mu, order, m)
    _sorted_into(sigma, order, s)
    _sorted_into(mask, order, table[2])
    t = table
    i, j = starts[0], starts[1]
    if i < j:
        _interior_table(
            m[i:j],
            s[i:j],
            a,
            b,
            t[0][i:j],
            t[1][i:j],
            t[3][i:j],
            t[4][i:j],
            t[5][i:j],
            t[6][i:j],
            t[7][i:j],
            t[8][i:j],
            t[9][i:j],
        )
    i, j = starts[1], starts[2]
    if i < j:
        _tail_table(
            m[i:j],
            s[i:j],
            a,
            b,
            t[0][i:j],
            t[1][i:j],
            t[3][i:j],
            t[4][i:j],
            t[5][i:j],
            t[6][i:j],
            t[7][i:j],
            t[8][i:j],
            t[9][i:j],
        )
    i, j = starts[2], starts[3]
    if i < j:
        _short_table(m[i:j], s[i:j], a, b, t[0][i:j], t[1][i:j], t[3][i:j], t[4][i:j], t[5][i:j], t[6][i:j])
    return -1


@njit(**FAST)
def _fractions(word: Any, flipped: Any) -> Any:
    """Return p and 1 - p, each to full relative accuracy: the halves of 32 bits and of their complement."""
    u = (f32(word) + HALF) * ULP
    v = (f32(np.uint32(~word)) + HALF) * ULP
    return (v, u) if flipped != ZERO else (u, v)


@njit(**FAST)
def _theta(base: Any, unit: Any, distance: Any, mask: Any, a: Any, b: Any) -> Any:
    return mask * exp(clip_high(clip_low(base + unit * distance, a), b))


@njit(**FAST)
def _interior(
    words: Any,
    a: Any,
    b: Any,
    base: Any,
    unit: Any,
    mask: Any,
    side: Any,
    c6: Any,
    c7: Any,
    c8: Any,
    c9: Any,
    theta: Any,
) -> None:
    for j in range(theta.size):
        p, q = _fractions(words[j], side[j])
        z = interior_draw(p, q, c6[j], c7[j], c8[j], c9[j])
        theta[j] = _theta(base[j], unit[j], z, mask[j], a, b)
    interleave()


@njit(**FAST)
def _tail(
    words: Any,
    a: Any,
    b: Any,
    base: Any,
    unit: Any,
    mask: Any,
    side: Any,
    c4: Any,
    c5: Any,
    c6: Any,
    c7: Any,
    theta: Any,
) -> None:
    for j in range(theta.size):
        p, q = _fractions(words[j], side[j])
        v, _drop = tail_solution(p, q, c4[j], c5[j], c6[j], c7[j])
        theta[j] = _theta(base[j], unit[j], v, mask[j], a, b)
    interleave()


@njit(**FAST)
def _short(
    words: Any,
    a: Any,
    b: Any,
    base: Any,
    unit: Any,
    mask: Any,
    side: Any,
    c4: Any,
    c5: Any,
    c6: Any,
    theta: Any,
) -> None:
    for j in range(theta.size):
        p, _q = _fractions(words[j], side[j])
        distance = short_draw(p, c4[j], c5[j], c6[j])
        theta[j] = _theta(base[j], unit[j], distance, mask[j], a, b)
    interleave()


def _draw(words: Any, log_a: Any, log_b: Any, t: Any, starts: Any, theta: Any) -> None:
    """Theta times mask of sorted structures from their words; the pruned are left as they are."""
    align_stack()
    a = f32(log_a)
    b = f32(log_b)
    i, j = starts[0], starts[1]
    if i < j:
        _interior(
            words[i:j],
            a,
            b,
            t[0][i:j],
            t[1][i:j],
            t[2][i:j],
            t[3][i:j],
            t[6][i:j],
            t[7][i:j],
            t[8][i:j],
            t[9][i:j],
            theta[i:j],
        )
    i, j = starts[1], starts[2]
    if i < j:
        _tail(
            words[i:j],
            a,
            b,
            t[0][i:j],
            t[1][i:j],
            t[2][i:j],
            t[3][i:j],
            t[4][i:j],
            t[5][i:j],
            t[6][i:j],
            t[7][i:j],
            theta[i:j],
        )
    i, j = starts[2], starts[3]
    if i < j:
        _short(
            words[i:j],
            a,
            b,
            t[0][i:j],
            t[1][i:j],
            t[2][i:j],
            t[3][i:j],
            t[4][i:j],
            t[5][i:j],
            t[6][i:j],
            theta[i:j],
        )


@njit(**FAST)
def _interior_gradients(
    words: Any,
    a: Any,
    b: Any,
    base: Any,
    unit: Any,
    mask: Any,
    side: Any,
    c4: Any,
    c5: Any,
    c6: Any,
    c7: Any,
    c8: Any,
    c9: Any,
    theta: Any,
    d_mu: Any,
    d_log_sigma: Any,
) -> None:
    for j in range(theta.size):
        p, q = _fractions(words[j], side[j])
        z = interior_draw(p, q, c6[j], c7[j], c8[j], c9[j])
        by_mu, by_log_sigma = interior_derivatives(p, q, z, c4[j], c5[j])
        scale = _theta(base[j], unit[j], z, mask[j], a, b)
        theta[j] = scale
        d_mu[j] = scale * by_mu
        d_log_sigma[j] = scale * unit[j] * by_log_sigma
    interleave()


@njit(**FAST)
def _tail_gradients(
    words: Any,
    a: Any,
    b: Any,
    base: Any,
    unit: Any,
    mask: Any,
    side: Any,
    c4: Any,
    c5: Any,
    c6: Any,
    c7: Any,
    c8: Any,
    c9: Any,
    theta: Any,
    d_mu: Any,
    d_log_sigma: Any,
) -> None:
    for j in range(theta.size):
        p, q = _fractions(words[j], side[j])
        v, drop = tail_solution(p, q, c4[j], c5[j], c6[j], c7[j])
        by_mu, by_log_sigma = tail_derivatives(p, v, drop, c4[j], c7[j], c8[j], c9[j])
        scale = _theta(base[j], unit[j], v, mask[j], a, b)
        theta[j] = scale
        d_mu[j] = scale * by_mu
        d_log_sigma[j] = scale * unit[j] * by_log_sigma
    interleave()


@njit(**FAST)
def _short_gradients(
    words: Any,
    a: Any,
    b: Any,
    base: Any,
    unit: Any,
    mask: Any,
    side: Any,
    c4: Any,
    c5: Any,
    c6: Any,
    theta: Any,
    d_mu: Any,
    d_log_sigma: Any,
) -> None:
    for j in range(theta.size):
        p, q = _fractions(words[j], side[j])
        distance = short_draw(p, c4[j], c5[j], c6[j])
        by_mu, by_log_sigma = short_derivatives(p, q, distance, c4[j], c5[j])
        scale = _theta(base[j], unit[j], distance, mask[j], a, b)
        theta[j] = scale
        d_mu[j] = scale * by_mu
        d_log_sigma[j] = scale * unit[j] * by_log_sigma
    interleave()


def _draw_gradients(
    words: Any, log_a: Any, log_b: Any, t: Any, starts: Any, theta: Any, d_mu: Any, d_log_sigma: Any
) -> None:
    """The same with the derivatives of theta times mask by mu and log sigma."""
    align_stack()
    a = f32(log_a)
    b = f32(log_b)
    i, j = starts[0], starts[1]
    if i < j:
        _interior_gradients(
            words[i:j],
            a,
            b,
            t[0][i:j],
            t[1][i:j],
            t[2][i:j],
            t[3][i:j],
            t[4][i:j],
            t[5][i:j],
            t[6][i:j],
            t[7][i:j],
            t[8][i:j],
            t[9][i:j],
            theta[i:j],
            d_mu[i:j],
            d_log_sigma[i:j],
        )
    i, j = starts[1], starts[2]
    if i < j:
        _tail_gradients(
            words[i:j],
            a,
            b,
            t[0][i:j],
            t[1][i:j],
            t[2][i:j],
            t[3][i:j],
            t[4][i:j],
            t[5][i:j],
            t[6][i:j],
            t[7][i:j],
            t[8][i:j],
            t[9][i:j],
            theta[i:j],
            d_mu[i:j],
            d_log_sigma[i:j],
        )
    i, j = starts[2], starts[3]
    if i < j:
        _short_gradients(
            words[i:j],
            a,
            b,
            t[0][i:j],
            t[1][i:j],
            t[2][i:j],
            t[3][i:j],
            t[4][i:j],
            t[5][i:j],
            t[6][i:j],
            theta[i:j],
            d_mu[i:j],
            d_log_sigma[i:j],
        )


def _prepare_float64(
    mu: Any, log_sigma: Any, mask: Any, _log_a: Any, _log_b: Any, table: Any, order: Any, starts: Any
) -> Any:
    """In float64 every draw goes through the array functions' own texts: all are one regime here."""
    bad = _first_bad(mu, log_sigma, mask, LIMIT_FLOAT64)
    if bad >= 0:
        return bad
    regimes = np.where(mask == 0.0, np.float32(3.0), np.float32(0.0))
    _sort(regimes, order, starts)
    for j in range(mu.size):
        table[0, j] = mu[order[j]]
        table[1, j] = exp_float64(log_sigma[order[j]])
        table[2, j] = mask[order[j]]
    return -1


def _draw_float64(words: Any, log_a: Any, log_b: Any, t: Any, starts: Any, theta: Any) -> None:
    for j in range(starts[1]):
        u = (np.float64(words[j]) + 0.5) * ULP_FLOAT64
        mu = t[0, j]
        sigma = t[1, j]
        if log_quantile_is_rare(u, mu, sigma, log_a, log_b):
            x = log_quantile_rare(u, mu, sigma, log_a, log_b)
        elif log_quantile_is_interior(u, mu, sigma, log_a, log_b):
            x = log_quantile_interior(u, mu, sigma, log_a, log_b)
        else:
            x = log_quantile_common(u, mu, sigma, log_a, log_b)
        theta[j] = t[2, j] * exp_float64(x)


def _draw_gradients_float64(
    words: Any, log_a: Any, log_b: Any, t: Any, starts: Any, theta: Any, d_mu: Any, d_log_sigma: Any
) -> None:
    for j in range(starts[1]):
        u = (np.float64(words[j]) + 0.5) * ULP_FLOAT64
        x, by_mu, by_sigma = log_quantile_grad(u, t[0, j], t[1, j], log_a, log_b)
        scale = t[2, j] * exp_float64(x)
        theta[j] = scale
        d_mu[j] = scale * by_mu
        d_log_sigma[j] = scale * t[1, j] * by_sigma


def _functions(suffix: str) -> dict[str, Any]:
    texts = {"prepare": _prepare, "draw": _draw, "draw_gradients": _draw_gradients}
    wide = {
        "prepare": _prepare_float64,
        "draw": _draw_float64,
        "draw_gradients": _draw_gradients_float64,
    }
    return {name: cached_njit(text) for name, text in (wide if suffix == "float64" else texts).items()}


DRAWS = {"float32": _functions("float32"), "float64": _functions("float64")}
"""`prepare`, `draw` and `draw_gradients` by the precision of the arithmetic."""
