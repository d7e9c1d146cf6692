"""Kernels that evaluate parts of the draw, for the tests that run in Triton's interpreter."""

from __future__ import annotations

import triton
import triton.language as tl

from bmrs_kernels.gpu.formulas import log_of_tail
from bmrs_kernels.gpu.philox import columns_of, tile_words


@triton.jit
def word_probe(seed_ptr, out_ptr, first, step, ROWS: tl.constexpr, COLUMNS: tl.constexpr, RUN: tl.constexpr):
    row = tl.arange(0, ROWS)[:, None, None].to(tl.int64)
    words = tile_words(tl.load(seed_ptr), first + row * COLUMNS * step, step, COLUMNS, RUN)
    tl.store(out_ptr + row * COLUMNS + columns_of(COLUMNS, RUN), words.to(tl.int64))


@triton.jit
def log_probe(x_ptr, out_ptr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out_ptr + i, log_of_tail(tl.load(x_ptr + i)))
