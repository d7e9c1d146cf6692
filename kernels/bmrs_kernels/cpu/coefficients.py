"""What the draws of a structure need to know of it, sorted by regime.

`prepare` sorts the structures by regime, so that every regime's text runs as SIMD over the structures it is
for and costs nothing where there are none, and fills a table of their coefficients. Pruned structures come
last, and are not drawn.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bmrs_core.backends.inner import njit_inner
from bmrs_core.backends.numba_elementary import FAST
from bmrs_core.backends.numba_elementary import exp as exp_float64
from bmrs_core.backends.numba_kernels import vectorized
from bmrs_kernels.contract import LOG_SIGMA_LIMIT, LOG_SIGMA_LIMIT_FLOAT64
from bmrs_kernels.cpu import float32 as numba_float32
from bmrs_kernels.cpu.cache import cached_inner
from bmrs_kernels.cpu.float32 import exp

__all__ = ["COEFFICIENTS", "PREPARE", "columns"]

COEFFICIENTS = 10
"""Numbers kept per structure: base, unit, mask, flipped, then up to six of its regime."""

REGIMES = 4

f32 = np.float32
ZERO = f32(0.0)
ONE = f32(1.0)
TWO = f32(2.0)
PRUNED = f32(3.0)
# A bound farther than this from mu, in sigma, is as good as at this distance: squares must not overflow.
FAR = f32(1e18)
LIMIT = f32(LOG_SIGMA_LIMIT)
LIMIT_FLOAT64 = LOG_SIGMA_LIMIT_FLOAT64

_text = numba_float32.compiled_texts()
is_short_structure = _text["is_short_structure"]
is_tail_structure = _text["is_tail_structure"]
interior_coefficients = _text["interior_coefficients"]
tail_coefficients = _text["tail_coefficients"]
short_coefficients = _text["short_coefficients"]
clip_low = numba_float32.maximum
clip_high = numba_float32.minimum


@njit_inner(**FAST)
def _standardized(mu: Any, sigma: Any, a: Any, b: Any) -> Any:
    alpha = clip_high(clip_low((a - mu) / sigma, -FAR), FAR)
    beta = clip_high(clip_low((b - mu) / sigma, -FAR), FAR)
    return alpha, beta, clip_high((b - a) / sigma, FAR)


@njit_inner(**FAST)
def _first_bad(mu: Any, log_sigma: Any, mask: Any, limit: Any) -> Any:
    for c in range(mu.size):
        usable = np.isfinite(mu[c]) and abs(log_sigma[c]) <= limit
        if mask[c] != 0 and not usable:
            return c
    return -1


@njit_inner(**FAST)
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


@njit_inner(**FAST)
def _sorted_into(values: Any, order: Any, out: Any) -> None:
    for j in range(out.size):
        out[j] = values[order[j]]


@njit_inner(**FAST)
def _regimes(mu: Any, sigma: Any, mask: Any, a: Any, b: Any, regimes: Any) -> None:
    for c in range(mu.size):
        alpha, beta, w = _standardized(mu[c], sigma[c], a, b)
        tail = ONE if is_tail_structure(alpha, beta, w) else ZERO
        regime = TWO if is_short_structure(alpha, beta, w) else tail
        regimes[c] = PRUNED if mask[c] == ZERO else regime


@njit_inner(**FAST)
def _exponentials(log_sigma: Any, sigma: Any) -> None:
    for c in range(sigma.size):
        sigma[c] = exp(log_sigma[c])


@njit_inner(**FAST)
def columns(table: Any, i: Any, j: Any) -> Any:
    """The coefficients of sorted structures i to j as arrays of their own, none of which is strided."""
    return (
        table[0][i:j],
        table[1][i:j],
        table[2][i:j],
        table[3][i:j],
        table[4][i:j],
        table[5][i:j],
        table[6][i:j],
        table[7][i:j],
        table[8][i:j],
        table[9][i:j],
    )


@njit_inner(**FAST)
def _interior_table(mu: Any, sigma: Any, a: Any, b: Any, own: Any) -> None:
    base, unit, _mask, side, c4, c5, c6, c7, c8, c9 = own
    for j in range(mu.size):
        alpha, beta, _w = _standardized(mu[j], sigma[j], a, b)
        flipped = alpha + beta < ZERO
        base[j] = mu[j]
        unit[j] = -sigma[j] if flipped else sigma[j]
        side[j] = ONE if flipped else ZERO
        c4[j], c5[j], c6[j], c7[j], c8[j], c9[j] = interior_coefficients(alpha, beta)


@njit_inner(**FAST)
def _tail_table(mu: Any, sigma: Any, a: Any, b: Any, own: Any) -> None:
    base, unit, _mask, side, c4, c5, c6, c7, c8, c9 = own
    for j in range(mu.size):
        alpha, beta, w = _standardized(mu[j], sigma[j], a, b)
        flipped = alpha + beta < ZERO
        near = -beta if flipped else alpha
        base[j] = b if flipped else a
        unit[j] = -sigma[j] / near if flipped else sigma[j] / near
        side[j] = ONE if flipped else ZERO
        c4[j], c5[j], c6[j], c7[j], c8[j], c9[j] = tail_coefficients(alpha, beta, w)


@njit_inner(**FAST)
def _short_table(mu: Any, sigma: Any, a: Any, b: Any, own: Any) -> None:
    base, unit, _mask, side, c4, c5, c6, _c7, _c8, _c9 = own
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
    vectorized()
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
    i, j = starts[0], starts[1]
    if i < j:
        _interior_table(m[i:j], s[i:j], a, b, columns(table, i, j))
    i, j = starts[1], starts[2]
    if i < j:
        _tail_table(m[i:j], s[i:j], a, b, columns(table, i, j))
    i, j = starts[2], starts[3]
    if i < j:
        _short_table(m[i:j], s[i:j], a, b, columns(table, i, j))
    return -1


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


PREPARE = {"float32": cached_inner(_prepare), "float64": cached_inner(_prepare_float64)}
"""``(mu, log_sigma, mask, log_a, log_b, table, order, starts) -> bad`` by the precision of the arithmetic."""
