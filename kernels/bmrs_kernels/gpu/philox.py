"""Philox4x32-10 (Salmon et al., SC 2011) for Triton: the words of `bmrs_core.philox`, bit for bit.

Tiles of words have three axes, [rows, runs, RUN]: the words of a run have consecutive counters and are one
thread's, so that a block of four is computed once and is where it is needed.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

__all__ = ["columns_of", "tile_words"]

_interpreted = triton.knobs.runtime.interpret
_constant: Any = (lambda value: value) if _interpreted else tl.constexpr

MULTIPLIER_0 = _constant(0xD2511F53)
MULTIPLIER_1 = _constant(0xCD9E8D57)
WEYL_0 = _constant(0x9E3779B9)
WEYL_1 = _constant(0xBB67AE85)


@triton.jit
def philox_block(seed, block):
    """The four words of a block; a product of 64 bits is one instruction, its halves by `umulhi` are two."""
    k0 = seed.to(tl.uint32)
    k1 = (seed >> 32).to(tl.uint32)
    c0 = block.to(tl.uint32)
    c1 = (block >> 32).to(tl.uint32)
    c2 = c0 * 0
    c3 = c2
    for _ in tl.static_range(10):
        product_0 = c0.to(tl.uint64) * MULTIPLIER_0
        product_1 = c2.to(tl.uint64) * MULTIPLIER_1
        c0 = (product_1 >> 32).to(tl.uint32) ^ c1 ^ k0
        c1 = product_1.to(tl.uint32)
        c2 = (product_0 >> 32).to(tl.uint32) ^ c3 ^ k1
        c3 = product_0.to(tl.uint32)
        k0 = tl.add(k0, WEYL_0, sanitize_overflow=False)
        k1 = tl.add(k1, WEYL_1, sanitize_overflow=False)
    return c0, c1, c2, c3


@triton.jit
def word_of(block, place):
    """Word `place` of a block's four."""
    w0, w1, w2, w3 = block
    return tl.where(place < 2, tl.where(place == 0, w0, w1), tl.where(place == 2, w2, w3))


@triton.jit
def columns_of(COLUMNS: tl.constexpr, RUN: tl.constexpr):
    """The columns of a tile, [1, COLUMNS / RUN, RUN]."""
    return tl.arange(0, COLUMNS // RUN)[None, :, None] * RUN + tl.arange(0, RUN)[None, None, :]


@triton.jit
def tile_words(seed, outer, step, COLUMNS: tl.constexpr, RUN: tl.constexpr):
    """Words of a tile whose rows start at the counters `outer`, [rows, 1, 1], int64.

    With a RUN of 4 the counters of a row are consecutive and start at a multiple of 4; with one of 1 they are
    `step` apart, and a block of Philox is computed for each.
    """
    if RUN == 1:
        counters = outer + columns_of(COLUMNS, RUN).to(tl.int64) * step
        words = word_of(philox_block(seed, counters >> 2), counters & 3)
    else:
        blocks = (outer >> 2) + tl.arange(0, COLUMNS // RUN)[None, :, None]
        words = word_of(philox_block(seed, blocks), tl.arange(0, RUN)[None, None, :])
    return words
