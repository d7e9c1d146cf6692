"""KL(q || p) of the noise of all layers of a model, with its gradient, in one call.

Values are float64, by the formulas of the array functions; gradients are computed in the arithmetic of the
layer's own parameters, float32 with the 24-point rule or float64 with the 56-point one.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numba import carray, njit

from bmrs_core.backends import numba_kernels
from bmrs_core.backends.numba_elementary import FAST
from bmrs_core.backends.numba_elementary import exp as exp_float64
from bmrs_kernels import numba_float32
from bmrs_kernels.announce import announcing
from bmrs_kernels.contract import LOG_SIGMA_LIMIT
from bmrs_kernels.numba_cache import cached_njit
from bmrs_kernels.numba_float32 import exp as exp_float32
from bmrs_kernels.numba_storage import address_to_pointer

__all__ = ["KlKernels", "kl_kernels"]

_text = numba_kernels.compiled_texts()
kl_common = _text["kl_divergence_common"]
kl_is_rare = _text["kl_divergence_is_rare"]
kl_rare = _text["kl_divergence_rare"]


class KlKernels(NamedTuple):
    """The kernels of one arithmetic.

    Parameters
    ----------
    divergence : callable
        ``(layers, mu, log_sigma, mask, sizes, log_a, log_b, values, kept, d_mu, d_log_sigma, wanted) -> bad``:
        arrays of addresses and of sizes per layer in, the sum over kept structures and their number per
        layer out, and the gradients of all structures, flat. Returns the first structure, counted through
        all layers, whose parameters are unusable, or -1.
    scale : callable
        ``(sizes, weights, d_mu, d_log_sigma, out_mu, out_log_sigma)``: gradients times a weight per layer.
    """

    divergence: Any
    scale: Any


@njit(**FAST)
def _values(mu: Any, sigma: Any, a: Any, b: Any, out: Any) -> None:
    for c in range(out.size):
        out[c] = kl_common(mu[c], sigma[c], a, b)
    for c in range(out.size):
        if kl_is_rare(mu[c], sigma[c], a, b):
            out[c] = kl_rare(mu[c], sigma[c], a, b)


def _divergence(
    layers: Any,
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
    offset = 0
    for layer in range(layers):
        size = sizes[layer]
        mu = carray(address_to_pointer(mu_addresses[layer]), size, REAL)
        log_sigma = carray(address_to_pointer(log_sigma_addresses[layer]), size, REAL)
        mask = carray(address_to_pointer(mask_addresses[layer]), size, REAL)
        m = np.empty(size, np.float64)
        s = np.empty(size, np.float64)
        divergence = np.empty(size, np.float64)
        for c in range(size):
            usable = np.isfinite(mu[c]) and abs(log_sigma[c]) <= LIMIT
            if mask[c] != 0 and not usable:
                return offset + c
            m[c] = mu[c] if usable else 0.0
            s[c] = exp_float64(np.float64(log_sigma[c])) if usable else 1.0
        _values(m, s, log_a[layer], log_b[layer], divergence)
        values[layer] = 0.0
        kept[layer] = 0
        for c in range(size):
            if mask[c] != 0:
                values[layer] += divergence[c]
                kept[layer] += 1
        if wanted:
            a = REAL(log_a[layer])
            b = REAL(log_b[layer])
            for c in range(size):
                by_mu = REAL(0.0)
                by_log_sigma = REAL(0.0)
                if mask[c] != 0:
                    sigma = exp(log_sigma[c])
                    _value, by_mu, by_sigma = kl_grad(mu[c], sigma, a, b)
                    by_log_sigma = sigma * by_sigma
                d_mu[offset + c] = by_mu
                d_log_sigma[offset + c] = by_log_sigma
        offset += size
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
        "LIMIT": 700.0 if wide else LOG_SIGMA_LIMIT,
        "exp": exp_float64 if wide else exp_float32,
        "kl_grad": (_text if wide else numba_float32.compiled_texts())["kl_divergence_grad"],
    }
    real = "float64" if wide else "float32"
    addresses, sums, flat = "int64[::1]", "float64[::1]", f"{real}[::1]"
    divergence = (
        f"int64(int64, {addresses}, {addresses}, {addresses}, {addresses}, {sums}, {sums}, {sums}, {addresses}, "
        f"{flat}, {flat}, boolean)"
    )
    scale = f"void({addresses}, {sums}, {flat}, {flat}, {flat}, {flat})"
    with announcing(f"the divergence of {dtype}"):
        return KlKernels(
            cached_njit(_divergence, name=dtype, signature=divergence, **names),
            cached_njit(_scale, name=dtype, signature=scale),
        )
