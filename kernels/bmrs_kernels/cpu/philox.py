"""Philox4x32-10 (Salmon et al., SC 2011) for Numba: the words of `bmrs_core.philox`, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np

from bmrs_core.backends.inner import njit_inner

__all__ = ["fill_words"]

MULTIPLIER_0 = np.uint64(0xD2511F53)
MULTIPLIER_1 = np.uint64(0xCD9E8D57)
WEYL_0 = np.uint64(0x9E3779B9)
WEYL_1 = np.uint64(0xBB67AE85)
LOW = np.uint64(0xFFFFFFFF)
SHIFT = np.uint64(32)


@njit_inner(forceinline=True, error_model="numpy")
def _block(counter: Any, key: Any) -> Any:
    """The four words of a block; 32-bit numbers in 64-bit lanes, where the products fit."""
    c0 = counter & LOW
    c1 = counter >> SHIFT
    c2 = np.uint64(0)
    c3 = np.uint64(0)
    k0 = key & LOW
    k1 = key >> SHIFT
    for _ in range(10):
        product_0 = MULTIPLIER_0 * c0
        product_1 = MULTIPLIER_1 * c2
        c0 = (product_1 >> SHIFT) ^ c1 ^ k0
        c1 = product_1 & LOW
        c2 = (product_0 >> SHIFT) ^ c3 ^ k1
        c3 = product_0 & LOW
        k0 = (k0 + WEYL_0) & LOW
        k1 = (k1 + WEYL_1) & LOW
    return c0, c1, c2, c3


@njit_inner(forceinline=True, error_model="numpy")
def fill_words(seed: Any, start: Any, count: Any, buffer: Any) -> Any:
    """Write the words from the block of element `start` on; return where that element's word lies.

    `buffer` holds uint32, at least count + 7 of them.
    """
    offset = start & 3
    first = np.uint64(start >> 2)
    key = np.uint64(seed)
    for i in range((offset + count + 3) >> 2):
        w0, w1, w2, w3 = _block(first + np.uint64(i), key)
        buffer[4 * i] = w0
        buffer[4 * i + 1] = w1
        buffer[4 * i + 2] = w2
        buffer[4 * i + 3] = w3
    return offset
