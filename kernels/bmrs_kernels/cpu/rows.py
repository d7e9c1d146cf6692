"""A row of noise: the coefficients of all its draws, and the order of their regimes."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import carray

from bmrs_kernels.cpu.cache import cached_inner
from bmrs_kernels.cpu.coefficients import COEFFICIENTS, PREPARE
from bmrs_kernels.cpu.storage import address_to_pointer

__all__ = ["row_kernels"]

# Bound by `row_kernels`.
REAL: Any = None
prepare: Any = None
repeated: Any = None
tiled: Any = None


def _repeated(source: Any, repeats: Any) -> Any:
    """A parameter of every draw of one sample: structures repeated over their elements."""
    if repeats == 1:
        return source
    full = np.empty(source.size * repeats, source.dtype)
    for c in range(source.size):
        full[c * repeats : (c + 1) * repeats] = source[c]
    return full


def _tiled(table: Any, order: Any, starts: Any, full_table: Any, full_order: Any, full_starts: Any) -> None:
    """Repeat the sorted structures of one sample for a row of several, regime by regime."""
    noise = order.size - 1
    tile = (full_order.size - 1) // noise
    for regime in range(4):
        low = starts[regime]
        count = starts[regime + 1] - low
        full_starts[regime] = tile * low
        if count == 0:
            continue
        for copy in range(tile):
            place = tile * low + copy * count
            for j in range(count):
                full_order[place + j] = order[low + j] + copy * noise
            for k in range(table.shape[0]):
                full_table[k][place : place + count] = table[k][low : low + count]
    full_starts[4] = tile * noise


def _parameters(
    mu_address: Any,
    log_sigma_address: Any,
    mask_address: Any,
    log_a: Any,
    log_b: Any,
    structures: Any,
    repeats: Any,
    table: Any,
    order: Any,
    starts: Any,
) -> Any:
    """Prepare the coefficients of every draw of a row; return the first bad structure or -1."""
    mu = carray(address_to_pointer(mu_address), structures, REAL)
    log_sigma = carray(address_to_pointer(log_sigma_address), structures, REAL)
    mask = np.ones(structures, REAL)
    if mask_address != 0:
        mask = carray(address_to_pointer(mask_address), structures, REAL)
    noise = structures * repeats
    mu = repeated(mu, repeats)
    log_sigma = repeated(log_sigma, repeats)
    mask = repeated(mask, repeats)
    if noise == order.size - 1:
        bad = prepare(mu, log_sigma, mask, log_a, log_b, table, order, starts)
        return bad // repeats if bad >= 0 else bad
    one_table = np.empty((COEFFICIENTS, noise), REAL)
    one_order = np.empty(noise + 1, np.int64)
    one_starts = np.empty(5, np.int64)
    bad = prepare(mu, log_sigma, mask, log_a, log_b, one_table, one_order, one_starts)
    if bad >= 0:
        return bad // repeats
    tiled(one_table, one_order, one_starts, table, order, starts)
    return bad


def _sorted_words(words: Any, order: Any, starts: Any, scratch: Any) -> Any:
    """The words of the structures in the order of their regimes."""
    if starts[1] == order.size - 1:
        return words
    for j in range(starts[3]):
        scratch[j] = words[order[j]]
    return scratch


def _unsorted(values: Any, order: Any, starts: Any, scratch: Any) -> None:
    """Put values in the order of their regimes where their structures are; the pruned get 0."""
    if starts[1] == order.size - 1:
        return
    for j in range(starts[3]):
        scratch[j] = values[j]
    for j in range(starts[3]):
        values[order[j]] = scratch[j]
    for j in range(starts[3], order.size - 1):
        values[order[j]] = 0


@functools.cache
def row_kernels(real: str) -> dict[str, Any]:
    """Return `parameters`, `sorted_words` and `unsorted` for arithmetic in "float32" or "float64"."""
    names = {"REAL": np.dtype(real).type, "prepare": PREPARE[real]}
    names |= {"repeated": cached_inner(_repeated), "tiled": cached_inner(_tiled)}
    return {
        "parameters": cached_inner(_parameters, name=real, **names),
        "sorted_words": cached_inner(_sorted_words),
        "unsorted": cached_inner(_unsorted),
    }
