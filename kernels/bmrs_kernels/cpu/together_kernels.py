"""The draws of many small layers in one call: their noise per sample, with its derivatives, side by side.

For layers so small that a call costs more than its arithmetic. Each layer has its own seed and counts its own
structures, so that its noise is what it would draw by itself.
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

__all__ = ["TogetherKernels", "together_kernels"]

f32 = np.float32


# Bound by `together_kernels`.
prepare: Any = None
draw_gradients: Any = None
sorted_words: Any = None
unsorted: Any = None


class TogetherKernels(NamedTuple):
    """The kernels, in float32.

    Parameters
    ----------
    gather : callable
        ``(mu, log_sigma, mask, sizes, parameters) -> (masked, address)``: arrays of the layers' addresses and
        sizes in, what lies there out, side by side, [3, structures]. Returns how many structures are masked,
        and the address of `parameters`.
    unchanged : callable
        ``(mu, log_sigma, mask, parameters, width, size) -> bool``: whether at the addresses of one layer of
        that size lies, bit for bit, what was gathered at this address, among `width` structures.
    all_unchanged : callable
        ``(mu, log_sigma, mask, sizes, parameters) -> bool``: the same of all layers that were gathered.
    draw : callable
        ``(parameters, sizes, log_a, log_b, seeds, theta, by_mu, by_log_sigma) -> bad``: parameters, sizes and
        seeds of the layers in; theta and its derivatives, each [samples, structures], out. Returns the first
        structure, counted through all layers, whose parameters are unusable, or -1.
    reduce : callable
        ``(d_theta, sizes, starts, by_mu, by_log_sigma, d_mu, d_log_sigma)``: add what comes of the gradient
        of theta to those of all structures, where those of each layer start.
    """

    gather: Any
    unchanged: Any
    all_unchanged: Any
    draw: Any
    reduce: Any


def _gather(mu: Any, log_sigma: Any, mask: Any, sizes: Any, parameters: Any) -> Any:
    begin = 0
    masked = 0
    for layer in range(sizes.size):
        size = sizes[layer]
        end = begin + size
        for row, address in enumerate((mu[layer], log_sigma[layer], mask[layer])):
            own = carray(address_to_pointer(address), size, np.float32)
            for c in range(size):
                parameters[row, begin + c] = own[c]
        for c in range(begin, end):
            masked += parameters[2, c] == 0
        begin = end
    return masked, parameters.ctypes.data


def _unchanged(mu: Any, log_sigma: Any, mask: Any, parameters: Any, width: Any, size: Any) -> Any:
    different = np.uint32(0)
    for row, address in enumerate((mu, log_sigma, mask)):
        now = carray(address_to_pointer(address), size, np.uint32)
        before = carray(address_to_pointer(parameters + 4 * row * width), size, np.uint32)
        for c in range(size):
            different |= now[c] ^ before[c]
    return different == 0


def _all_unchanged(mu: Any, log_sigma: Any, mask: Any, sizes: Any, parameters: Any) -> Any:
    different = np.uint32(0)
    begin, address, width = 0, parameters.ctypes.data, parameters.shape[1]
    for layer in range(sizes.size):
        size = sizes[layer]
        for row, own in enumerate((mu[layer], log_sigma[layer], mask[layer])):
            now = carray(address_to_pointer(own), size, np.uint32)
            before = carray(address_to_pointer(address + 4 * (row * width + begin)), size, np.uint32)
            for c in range(size):
                different |= now[c] ^ before[c]
        begin += size
    return different == 0


def _draw(
    parameters: Any,
    sizes: Any,
    log_a: Any,
    log_b: Any,
    seeds: Any,
    theta: Any,
    by_mu: Any,
    by_log_sigma: Any,
) -> Any:
    samples, width = by_mu.shape
    table = np.empty((COEFFICIENTS, width), np.float32)
    order = np.empty(width + 1, np.int64)
    starts = np.empty(5, np.int64)
    bad = prepare(parameters[0], parameters[1], parameters[2], log_a, log_b, table, order, starts)
    if bad >= 0:
        return bad
    words = np.empty(width + 8, np.uint32)
    own = np.empty(width + 8, np.uint32)
    scratch = np.empty(width, np.uint32)
    values = np.empty(width, np.float32)
    for n in range(samples):
        begin = 0
        for layer in range(sizes.size):
            size = sizes[layer]
            if (n * size) & 3 == 0:
                # What it writes too much, the next layer overwrites.
                fill_words(seeds[layer], n * size, size, words[begin:])
            else:
                offset = fill_words(seeds[layer], n * size, size, own)
                for c in range(size):
                    words[begin + c] = own[offset + c]
            begin += size
        ordered = sorted_words(words[:width], order, starts, scratch)
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
            # Rounded before it is added, as autograd adds the gradients of layers that draw by themselves.
            d_mu[starts[layer] + c] += f32(total_mu[begin + c])
            d_log_sigma[starts[layer] + c] += f32(total_log_sigma[begin + c])
        begin += sizes[layer]


@functools.cache
def together_kernels() -> TogetherKernels:
    """Return the compiled kernels."""
    names = {
        "prepare": PREPARE["float32"],
        **DRAWS["float32"],
        **row_kernels("float32"),
    }
    addresses, table, row = "int64[::1]", "float32[:,::1]", "float32[::1]"
    gather = f"UniTuple(int64, 2)({addresses}, {addresses}, {addresses}, {addresses}, {table})"
    unchanged = "boolean(int64, int64, int64, int64, int64, int64)"
    all_unchanged = f"boolean({addresses}, {addresses}, {addresses}, {addresses}, {table})"
    draw = f"int64({table}, {addresses}, float64, float64, {addresses}, {table}, {table}, {table})"
    reduce = f"void({table}, {addresses}, {addresses}, {table}, {table}, {row}, {row})"
    with announcing("the draw of small layers"):
        return TogetherKernels(
            cached_njit(_gather, name="together", signature=gather),
            cached_njit(_unchanged, name="together", signature=unchanged),
            cached_njit(_all_unchanged, name="together", signature=all_unchanged),
            cached_njit(_draw, name="together", signature=draw, **names),
            cached_njit(_reduce, name="together", signature=reduce),
        )
