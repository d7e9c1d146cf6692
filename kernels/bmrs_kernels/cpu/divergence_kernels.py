"""KL(q || p) of the noise of all layers of a model, with its gradient, in one call.

Values are float64, by the formulas of the array functions; gradients are computed in the arithmetic of the
layer's own parameters, float32 with the 24-point rule or float64 with the 56-point one.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numba import carray

from bmrs_core.backends import numba_kernels
from bmrs_core.backends.inner import njit_inner
from bmrs_core.backends.numba_elementary import FAST
from bmrs_core.backends.numba_elementary import exp as exp_float64
from bmrs_core.backends.numba_kernels import vectorized
from bmrs_core.formulas.constants import FLOAT32_RULES
from bmrs_kernels.contract import LOG_SIGMA_LIMIT, LOG_SIGMA_LIMIT_FLOAT64
from bmrs_kernels.cpu import float32 as numba_float32
from bmrs_kernels.cpu.announce import announcing
from bmrs_kernels.cpu.cache import cached_inner, cached_njit
from bmrs_kernels.cpu.float32 import exp as exp_float32
from bmrs_kernels.cpu.storage import address_to_pointer

__all__ = ["KlKernels", "kl_kernels"]

_text = numba_kernels.compiled_texts()
kl_common = _text["kl_divergence_common"]
kl_is_rare = _text["kl_divergence_is_rare"]
kl_rare = _text["kl_divergence_rare"]
kl_grad = _text["kl_divergence_grad"]
_text_float32 = numba_float32.compiled_texts()
effective_support = _text_float32["effective_support"]
kl_gradient = _text_float32["kl_gradient"]

f32 = np.float32
HALF = f32(0.5)
TWO = f32(2.0)
NODES = np.array(FLOAT32_RULES["MANY_T"], f32)
COMPLEMENTS = np.array(FLOAT32_RULES["MANY_TC"], f32)
WEIGHTS = np.array(FLOAT32_RULES["MANY_W"], f32)


# Bound by `kl_kernels`.
REAL: Any = None
LIMIT: Any = None
divergences: Any = None
gather: Any = None
gradients: Any = None

clip_low = numba_float32.maximum
clip_high = numba_float32.minimum
# Of a bound from mu, in sigma: the density is 0 there, and cubes do not overflow.
FAR = np.float32(1e9)


class KlKernels(NamedTuple):
    """The kernels of one arithmetic.

    Parameters
    ----------
    divergence : callable
        ``(mu, log_sigma, mask, sizes, log_a, log_b, values, kept, d_mu, d_log_sigma, wanted) -> bad``:
        arrays of addresses and of sizes per layer in, the sum over kept structures and their number per
        layer out, and the gradients of all structures, flat. Returns the first structure, counted through
        all layers, whose parameters are unusable, or -1.
    scale : callable
        ``(sizes, weights, d_mu, d_log_sigma, out_mu, out_log_sigma)``: gradients times a weight per layer.
    """

    divergence: Any
    scale: Any


def _values(mu: Any, sigma: Any, a: Any, b: Any, out: Any) -> None:
    """KL of every gate: the common text as SIMD over all, the rare one where it is for."""
    vectorized()
    for c in range(out.size):
        out[c] = kl_common(mu[c], sigma[c], a[c], b[c])
    for c in range(out.size):
        if kl_is_rare(mu[c], sigma[c], a[c], b[c]):
            out[c] = kl_rare(mu[c], sigma[c], a[c], b[c])


def _gradients_float64(mu: Any, sigma: Any, a: Any, b: Any, d_mu: Any, d_log_sigma: Any) -> None:
    for c in range(mu.size):
        _value, d_mu[c], by_sigma = kl_grad(mu[c], sigma[c], a[c], b[c])
        d_log_sigma[c] = sigma[c] * by_sigma


def _gradients_float32(
    all_mu: Any, all_sigma: Any, all_a: Any, all_b: Any, d_mu: Any, d_log_sigma: Any
) -> None:
    """The sums over nodes with the gates innermost: SIMD over them; 24 nodes of one would fill little."""
    vectorized()
    mu = all_mu.astype(np.float32)
    sigma = all_sigma.astype(np.float32)
    a = all_a.astype(np.float32)
    b = all_b.astype(np.float32)
    n = mu.size
    m = np.empty(n, np.float32)
    start = np.empty(n, np.float32)
    end = np.empty(n, np.float32)
    means = np.empty(n, np.float32)
    squares = np.empty(n, np.float32)
    total = np.zeros(n, np.float32)
    first = np.zeros(n, np.float32)
    second = np.zeros(n, np.float32)
    for c in range(n):
        m[c], start[c], end[c] = effective_support(
            (a[c] - mu[c]) / sigma[c], (b[c] - mu[c]) / sigma[c], (b[c] - a[c]) / sigma[c]
        )
    for j in range(WEIGHTS.size):
        _add_raw_moments(NODES[j], COMPLEMENTS[j], WEIGHTS[j], m, start, end, total, first, second)
    for c in range(n):
        means[c] = first[c] / total[c]
        squares[c] = second[c] / total[c]
    first[:] = 0
    second[:] = 0
    for j in range(WEIGHTS.size):
        _add_central_moments(
            NODES[j], COMPLEMENTS[j], WEIGHTS[j], m, start, end, means, squares, first, second
        )
    for c in range(n):
        # What is taken at the bounds counts if both are far away, and then their distance does not.
        alpha = clip_low((a[c] - mu[c]) / sigma[c], -FAR)
        beta = clip_high((b[c] - mu[c]) / sigma[c], FAR)
        w = clip_high((b[c] - a[c]) / sigma[c], FAR)
        by_mu, by_sigma = kl_gradient(alpha, beta, w, sigma[c], first[c] / total[c], second[c] / total[c])
        d_mu[c] = by_mu
        d_log_sigma[c] = sigma[c] * by_sigma


@njit_inner(**FAST)
def _add_raw_moments(
    t: Any, complement: Any, weight: Any, m: Any, start: Any, end: Any, total: Any, first: Any, second: Any
) -> None:
    vectorized()
    for c in range(m.size):
        tau = start[c] * complement + end[c] * t
        g = weight * exp_float32(-tau * (m[c] + HALF * tau))
        total[c] += g
        first[c] += g * tau
        second[c] += g * (tau * (TWO * m[c] + tau))


@njit_inner(**FAST)
def _add_central_moments(
    t: Any,
    complement: Any,
    weight: Any,
    m: Any,
    start: Any,
    end: Any,
    means: Any,
    squares: Any,
    covariance: Any,
    variance: Any,
) -> None:
    vectorized()
    for c in range(m.size):
        tau = start[c] * complement + end[c] * t
        g = weight * exp_float32(-tau * (m[c] + HALF * tau))
        square = tau * (TWO * m[c] + tau) - squares[c]
        covariance[c] += g * ((tau - means[c]) * square)
        variance[c] += g * (square * square)


def _gather(
    mu: Any, log_sigma: Any, mask: Any, log_a: Any, log_b: Any, m: Any, s: Any, a: Any, b: Any, alive: Any
) -> Any:
    """One layer's parameters, harmless ones where it is pruned; return the first bad structure or -1."""
    for c in range(mu.size):
        alive[c] = mask[c] != 0
        usable = np.isfinite(mu[c]) and abs(log_sigma[c]) <= LIMIT
        if alive[c] and not usable:
            return c
        m[c] = mu[c] if usable else 0.0
        s[c] = exp_float64(np.float64(log_sigma[c])) if usable else 1.0
        a[c] = log_a
        b[c] = log_b
    return -1


def _divergence(
    mu_addresses: Any,
    log_sigma_addresses: Any,
    mask_addresses: Any,
    sizes: Any,
    log_a: Any,
    log_b: Any,
    values: Any,
    kept: Any,
    d_mu: Any,
    d_log_sigma: Any,
    wanted: Any,
) -> Any:
    total = 0
    for layer in range(sizes.size):
        total += sizes[layer]
    mu = np.empty(total)
    sigma = np.empty(total)
    a = np.empty(total)
    b = np.empty(total)
    every = np.empty(total)
    alive = np.empty(total, np.uint8)
    start = 0
    for layer in range(sizes.size):
        size = sizes[layer]
        stop = start + size
        bad = gather(
            carray(address_to_pointer(mu_addresses[layer]), size, REAL),
            carray(address_to_pointer(log_sigma_addresses[layer]), size, REAL),
            carray(address_to_pointer(mask_addresses[layer]), size, REAL),
            log_a[layer],
            log_b[layer],
            mu[start:stop],
            sigma[start:stop],
            a[start:stop],
            b[start:stop],
            alive[start:stop],
        )
        if bad >= 0:
            return start + bad
        start = stop
    divergences(mu, sigma, a, b, every)
    i = 0
    for layer in range(sizes.size):
        values[layer] = 0.0
        kept[layer] = 0
        for _ in range(sizes[layer]):
            if alive[i]:
                values[layer] += every[i]
                kept[layer] += 1
            i += 1
    if wanted:
        gradients(mu, sigma, a, b, d_mu, d_log_sigma)
        for i in range(total):
            if not alive[i]:
                d_mu[i] = 0
                d_log_sigma[i] = 0
    return -1


def _scale(sizes: Any, weights: Any, d_mu: Any, d_log_sigma: Any, out_mu: Any, out_log_sigma: Any) -> None:
    offset = 0
    for layer in range(sizes.size):
        for c in range(offset, offset + sizes[layer]):
            out_mu[c] = d_mu[c] * weights[layer]
            out_log_sigma[c] = d_log_sigma[c] * weights[layer]
        offset += sizes[layer]


@functools.cache
def kl_kernels(dtype: str) -> KlKernels:
    """Return the kernels for parameters in "float32" or "float64"."""
    wide = dtype == "float64"
    names = {
        "REAL": np.dtype(dtype).type,
        "gather": cached_inner(
            _gather, name=dtype, LIMIT=LOG_SIGMA_LIMIT_FLOAT64 if wide else LOG_SIGMA_LIMIT
        ),
        "divergences": cached_inner(_values),
        "gradients": cached_inner(_gradients_float64 if wide else _gradients_float32),
    }
    real = "float64" if wide else "float32"
    addresses, sums, flat = "int64[::1]", "float64[::1]", f"{real}[::1]"
    divergence = (
        f"int64({addresses}, {addresses}, {addresses}, {addresses}, {sums}, {sums}, {sums}, {addresses}, "
        f"{flat}, {flat}, boolean)"
    )
    scale = f"void({addresses}, {sums}, {flat}, {flat}, {flat}, {flat})"
    with announcing(f"the divergence of {dtype}"):
        return KlKernels(
            cached_njit(_divergence, name=dtype, signature=divergence, **names),
            cached_njit(_scale, name=dtype, signature=scale),
        )
