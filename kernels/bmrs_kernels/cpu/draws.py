"""theta and its derivatives for many structures at once, in float32 or float64, inside Numba kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from bmrs_core.backends import numba_kernels
from bmrs_core.backends.inner import njit_inner
from bmrs_core.backends.numba_elementary import FAST
from bmrs_core.backends.numba_elementary import exp as exp_float64
from bmrs_core.backends.numba_kernels import interleave, vectorized
from bmrs_kernels.cpu import float32 as numba_float32
from bmrs_kernels.cpu.cache import cached_inner
from bmrs_kernels.cpu.coefficients import columns
from bmrs_kernels.cpu.float32 import exp

__all__ = ["DRAWS"]

f32 = np.float32
ZERO = f32(0.0)
HALF = f32(0.5)
ONE = f32(1.0)
ULP = f32(2.0**-32)
ULP_FLOAT64 = 2.0**-32

_text = numba_float32.compiled_texts()
interior_draw = _text["interior_draw"]
interior_derivatives = _text["interior_derivatives"]
tail_solution = _text["tail_solution"]
tail_derivatives = _text["tail_derivatives"]
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


@njit_inner(**FAST)
def _fractions(word: Any, flipped: Any) -> Any:
    """Return p and 1 - p, each to full relative accuracy: the halves of 32 bits and of their complement."""
    u = (f32(word) + HALF) * ULP
    v = (f32(np.uint32(~word)) + HALF) * ULP
    return (v, u) if flipped != ZERO else (u, v)


@njit_inner(**FAST)
def _theta(base: Any, unit: Any, distance: Any, mask: Any, a: Any, b: Any) -> Any:
    return mask * exp(clip_high(clip_low(base + unit * distance, a), b))


@njit_inner(**FAST)
def _interior(words: Any, a: Any, b: Any, columns: Any, theta: Any) -> None:
    vectorized()
    base, unit, mask, side, _c4, _c5, c6, c7, c8, c9 = columns
    for j in range(theta.size):
        p, q = _fractions(words[j], side[j])
        z = interior_draw(p, q, c6[j], c7[j], c8[j], c9[j])
        theta[j] = _theta(base[j], unit[j], z, mask[j], a, b)
    interleave()


@njit_inner(**FAST)
def _tail(words: Any, a: Any, b: Any, columns: Any, theta: Any) -> None:
    vectorized()
    base, unit, mask, side, c4, c5, c6, c7, _c8, _c9 = columns
    for j in range(theta.size):
        p, q = _fractions(words[j], side[j])
        v, _drop = tail_solution(p, q, c4[j], c5[j], c6[j], c7[j])
        theta[j] = _theta(base[j], unit[j], v, mask[j], a, b)
    interleave()


@njit_inner(**FAST)
def _short(words: Any, a: Any, b: Any, columns: Any, theta: Any) -> None:
    vectorized()
    base, unit, mask, side, c4, c5, c6, _c7, _c8, _c9 = columns
    for j in range(theta.size):
        p, _q = _fractions(words[j], side[j])
        distance = short_draw(p, c4[j], c5[j], c6[j])
        theta[j] = _theta(base[j], unit[j], distance, mask[j], a, b)
    interleave()


def _draw(words: Any, log_a: Any, log_b: Any, t: Any, starts: Any, theta: Any) -> None:
    """Theta times mask of sorted structures from their words; the pruned are left as they are."""
    vectorized()
    a = f32(log_a)
    b = f32(log_b)
    i, j = starts[0], starts[1]
    if i < j:
        _interior(words[i:j], a, b, columns(t, i, j), theta[i:j])
    i, j = starts[1], starts[2]
    if i < j:
        _tail(words[i:j], a, b, columns(t, i, j), theta[i:j])
    i, j = starts[2], starts[3]
    if i < j:
        _short(words[i:j], a, b, columns(t, i, j), theta[i:j])


@njit_inner(**FAST)
def _interior_gradients(
    words: Any, a: Any, b: Any, columns: Any, theta: Any, d_mu: Any, d_log_sigma: Any
) -> None:
    vectorized()
    base, unit, mask, side, c4, c5, c6, c7, c8, c9 = columns
    for j in range(theta.size):
        p, q = _fractions(words[j], side[j])
        z = interior_draw(p, q, c6[j], c7[j], c8[j], c9[j])
        by_mu, by_log_sigma = interior_derivatives(p, q, z, c4[j], c5[j])
        scale = _theta(base[j], unit[j], z, mask[j], a, b)
        theta[j] = scale
        d_mu[j] = scale * by_mu
        d_log_sigma[j] = scale * unit[j] * by_log_sigma
    interleave()


@njit_inner(**FAST)
def _tail_gradients(
    words: Any, a: Any, b: Any, columns: Any, theta: Any, d_mu: Any, d_log_sigma: Any
) -> None:
    vectorized()
    base, unit, mask, side, c4, c5, c6, c7, c8, c9 = columns
    for j in range(theta.size):
        p, q = _fractions(words[j], side[j])
        v, drop = tail_solution(p, q, c4[j], c5[j], c6[j], c7[j])
        by_mu, by_log_sigma = tail_derivatives(p, v, drop, c4[j], c7[j], c8[j], c9[j])
        scale = _theta(base[j], unit[j], v, mask[j], a, b)
        theta[j] = scale
        d_mu[j] = scale * by_mu
        d_log_sigma[j] = scale * unit[j] * by_log_sigma
    interleave()


@njit_inner(**FAST)
def _short_gradients(
    words: Any, a: Any, b: Any, columns: Any, theta: Any, d_mu: Any, d_log_sigma: Any
) -> None:
    vectorized()
    base, unit, mask, side, c4, c5, c6, _c7, _c8, _c9 = columns
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
    vectorized()
    a = f32(log_a)
    b = f32(log_b)
    i, j = starts[0], starts[1]
    if i < j:
        _interior_gradients(words[i:j], a, b, columns(t, i, j), theta[i:j], d_mu[i:j], d_log_sigma[i:j])
    i, j = starts[1], starts[2]
    if i < j:
        _tail_gradients(words[i:j], a, b, columns(t, i, j), theta[i:j], d_mu[i:j], d_log_sigma[i:j])
    i, j = starts[2], starts[3]
    if i < j:
        _short_gradients(words[i:j], a, b, columns(t, i, j), theta[i:j], d_mu[i:j], d_log_sigma[i:j])


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


DRAWS: dict[str, dict[str, Any]] = {
    "float32": {"draw": cached_inner(_draw), "draw_gradients": cached_inner(_draw_gradients)},
    "float64": {"draw": cached_inner(_draw_float64), "draw_gradients": cached_inner(_draw_gradients_float64)},
}
"""`draw` and `draw_gradients` by the precision of the arithmetic."""
