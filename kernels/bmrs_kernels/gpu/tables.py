"""Kernels that fill tables: the coefficients of the structures, and the noise of rows with its derivatives.

Both write what the kernels of the size of x read: a table of coefficients [11, structures] where every
element has a theta of its own, a table of theta [samples, structures] where many share one.
"""

from __future__ import annotations

import triton
import triton.language as tl

from bmrs_kernels.gpu.draws import coefficients, draw, draw_gradients, regimes_of
from bmrs_kernels.gpu.philox import columns_of, tile_words

__all__ = ["COEFFICIENTS", "coefficient_table", "load_coefficients", "noise_table"]

COEFFICIENTS = 11
"""Rows of the table of coefficients."""


@triton.jit
def coefficient_table(mu_ptr, log_sigma_ptr, mask_ptr, table_ptr, structures, a, b, BLOCK: tl.constexpr):
    """Write the coefficients of `structures` structures."""
    c = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = c < structures
    own = coefficients(
        tl.load(mu_ptr + c, mask=there, other=0.0),
        tl.load(log_sigma_ptr + c, mask=there, other=0.0),
        tl.load(mask_ptr + c, mask=there, other=0.0),
        a,
        b,
    )
    base, unit, scale, flip, regime, c4, c5, c6, c7, c8, c9 = own
    tl.store(table_ptr + c, base, mask=there)
    tl.store(table_ptr + structures + c, unit, mask=there)
    tl.store(table_ptr + 2 * structures + c, scale, mask=there)
    tl.store(table_ptr + 3 * structures + c, flip.to(tl.float32, bitcast=True), mask=there)
    tl.store(table_ptr + 4 * structures + c, regime.to(tl.float32), mask=there)
    tl.store(table_ptr + 5 * structures + c, c4, mask=there)
    tl.store(table_ptr + 6 * structures + c, c5, mask=there)
    tl.store(table_ptr + 7 * structures + c, c6, mask=there)
    tl.store(table_ptr + 8 * structures + c, c7, mask=there)
    tl.store(table_ptr + 9 * structures + c, c8, mask=there)
    tl.store(table_ptr + 10 * structures + c, c9, mask=there)


@triton.jit
def load_coefficients(table_ptr, structures, c, there):
    """The coefficients of structures c; beyond the last one, those of something that multiplies by 0."""
    own = table_ptr + c
    base = tl.load(own, mask=there, other=0.0)
    unit = tl.load(own + structures, mask=there, other=0.0)
    scale = tl.load(own + 2 * structures, mask=there, other=0.0)
    flip = tl.load(own + 3 * structures, mask=there, other=0.0).to(tl.uint32, bitcast=True)
    regime = tl.load(own + 4 * structures, mask=there, other=3.0).to(tl.int32)
    c4 = tl.load(own + 5 * structures, mask=there, other=-1.0)
    c5 = tl.load(own + 6 * structures, mask=there, other=1.0)
    c6 = tl.load(own + 7 * structures, mask=there, other=0.25)
    c7 = tl.load(own + 8 * structures, mask=there, other=0.75)
    c8 = tl.load(own + 9 * structures, mask=there, other=0.75)
    c9 = tl.load(own + 10 * structures, mask=there, other=0.25)
    return base, unit, scale, flip, regime, c4, c5, c6, c7, c8, c9


@triton.jit(do_not_specialize=["samples"])
def noise_table(
    mu_ptr,
    log_sigma_ptr,
    mask_ptr,
    seed_ptr,
    theta_ptr,
    by_mu_ptr,
    by_log_sigma_ptr,
    samples,
    structures,
    a,
    b,
    GRADIENTS: tl.constexpr,
    RUN: tl.constexpr,
    WALK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write theta times mask of every sample and structure and, with GRADIENTS, its derivatives.

    A program takes `COLUMNS` structures through `WALK` tiles of `ROWS` samples.
    """
    blocks = tl.cdiv(structures, COLUMNS)
    first = (tl.program_id(0) % blocks) * COLUMNS
    c = first + columns_of(COLUMNS, RUN)
    there = c < structures
    own = coefficients(
        tl.load(mu_ptr + c, mask=there, other=0.0),
        tl.load(log_sigma_ptr + c, mask=there, other=0.0),
        tl.load(mask_ptr + c, mask=there, other=0.0),
        a,
        b,
    )
    regimes = regimes_of(own)
    seed = tl.load(seed_ptr)
    for tile in range(WALK):
        s = ((tl.program_id(0) // blocks) * WALK + tile) * ROWS + tl.arange(0, ROWS)[:, None, None]
        row = s.to(tl.int64) * structures
        words = tile_words(seed, row + first, 1, COLUMNS, RUN)
        inside = (s < samples) & there
        if GRADIENTS:
            theta, by_mu, by_log_sigma = draw_gradients(words, own, regimes, a, b)
            tl.store(by_mu_ptr + row + c, by_mu, mask=inside)
            tl.store(by_log_sigma_ptr + row + c, by_log_sigma, mask=inside)
        else:
            theta = draw(words, own, regimes, a, b)
        tl.store(theta_ptr + row + c, theta, mask=inside)
