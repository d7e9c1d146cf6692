"""One draw for many small layers: their noise per sample, with its derivatives, in one call.

For layers so small that a call costs more than its arithmetic. The structures of all layers lie side by side,
as if they were one layer's, and are counted so.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numba import carray

from bmrs_kernels.cpu.announce import announcing
from bmrs_kernels.cpu.cache import cached_njit
from bmrs_kernels.cpu.coefficients import COEFFICIENTS, PREPARE
from bmrs_kernels.cpu.draws import DRAWS
from bmrs_kernels.cpu.philox import fill_words
from bmrs_kernels.cpu.rows import row_kernels
from bmrs_kernels.cpu.storage import address_to_pointer

__all__ = ["JointKernels", "joint_kernels"]

f32 = np.float32


# Bound by `joint_kernels`.
prepare: Any = None
draw_gradients: Any = None
sorted_words: Any = None
unsorted: Any = None
gathered: Any = None


class JointKernels(NamedTuple):
    """The kernels, in float32.

    Parameters
    ----------
    draw : callable
        ``(mu, log_sigma, mask, sizes, log_a, log_b, seed, theta, by_mu, by_log_sigma) -> bad``: arrays of the
        layers' addresses and sizes in; theta and its derivatives, each [samples, structures], out. Returns
        the first structure, counted through all layers, whose parameters are unusable, or -1.
    reduce : callable
        ``(d_theta, sizes, starts, by_mu, by_log_sigma, d_mu, d_log_sigma)``: add what comes of the gradient
        of theta to those of all structures, where those of each layer start.
    """

    draw: Any
    reduce: Any


def _gathered(addresses: Any, sizes: Any, total: Any) -> Any:
    values = np.empty(total, np.float32)
    offset = 0
    for layer in range(sizes.size):
        values[offset : offset + sizes[layer]] = carray(
            address_to_pointer(addresses[layer]), sizes[layer], np.float32
        )
        offset += sizes[layer]
    return values


def _draw(
    mu_addresses: Any,
    log_sigma_addresses: Any,
    mask_addresses: Any,
    sizes: Any,
    log_a: Any,
    log_b: Any,
    seed: Any,
    theta: Any,
    by_mu: Any,
    by_log_sigma: Any,
) -> Any:
    samples, width = by_mu.shape
    table = np.empty((COEFFICIENTS, width), np.float32)
    order = np.empty(width + 1, np.int64)
    starts = np.empty(5, np.int64)
    bad = prepare(
        gathered(mu_addresses, sizes, width),
        gathered(log_sigma_addresses, sizes, width),
        gathered(mask_addresses, sizes, width),
        log_a,
        log_b,
        table,
        order,
        starts,
    )
    if bad >= 0:
        return bad
    words = np.empty(width + 8, np.uint32)
    scratch = np.empty(width, np.uint32)
    values = np.empty(width, np.float32)
    for n in range(samples):
        offset = fill_words(seed, n * width, width, words)
        ordered = sorted_words(words[offset : offset + width], order, starts, scratch)
        draw_gradients(ordered, log_a, log_b, table, starts, theta[n], by_mu[n], by_log_sigma[n])
        unsorted(theta[n], order, starts, values)
        unsorted(by_mu[n], order, starts, values)
        unsorted(by_log_sigma[n], order, starts, values)
    return -1


def _reduce(
    d_theta: Any,
    sizes: Any,
    starts: Any,
    by_mu: Any,
    by_log_sigma: Any,
    d_mu: Any,
    d_log_sigma: Any,
) -> None:
    samples, width = d_theta.shape
    total_mu = np.zeros(width, np.float64)
    total_log_sigma = np.zeros(width, np.float64)
    for n in range(samples):
        g = d_theta[n]
        left = by_mu[n]
        right = by_log_sigma[n]
        for c in range(width):
            # A pruned structure has derivatives of 0, and its gradient may be anything.
            total_mu[c] += g[c] * left[c] if left[c] != 0 else left[c]
            total_log_sigma[c] += g[c] * right[c] if right[c] != 0 else right[c]
    begin = 0
    for layer in range(sizes.size):
        for c in range(sizes[layer]):
            d_mu[starts[layer] + c] += total_mu[begin + c]
            d_log_sigma[starts[layer] + c] += total_log_sigma[begin + c]
        begin += sizes[layer]


@functools.cache
def joint_kernels() -> JointKernels:
    """Return the compiled kernels."""
    names = {
        "prepare": PREPARE["float32"],
        **DRAWS["float32"],
        **row_kernels("float32"),
        "gathered": cached_njit(_gathered),
    }
    addresses, table, row = "int64[::1]", "float32[:,::1]", "float32[::1]"
    draw = (
        f"int64({addresses}, {addresses}, {addresses}, {addresses}, float64, float64, int64, "
        f"{table}, {table}, {table})"
    )
    reduce = f"void({table}, {addresses}, {addresses}, {table}, {table}, {row}, {row})"
    with announcing("the joint draw"):
        return JointKernels(
            cached_njit(_draw, name="joint", signature=draw, **names),
            cached_njit(_reduce, name="joint", signature=reduce),
        )
