"""y = x theta and its backward pass where every element has a theta of its own, drawn inside the kernel.

The backward kernels write dx and sums of dy x dtheta over parts of a structure's elements,
[2, parts, structures]; `triton_sums` adds them up in a fixed order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from bmrs_kernels.triton_draws import draw, draw_gradients, regimes_of, tile_words
from bmrs_kernels.triton_places import row_offsets, rows_of, token_offsets, tokens_of
from bmrs_kernels.triton_tables import load_coefficients

__all__ = ["element_columns", "element_columns_backward", "element_rows", "element_rows_backward"]


@triton.jit(do_not_specialize=["rows", "chunks", "splits"])
def element_rows(
    x_ptr,
    y_ptr,
    table_ptr,
    seed_ptr,
    rows,
    structures,
    elements,
    chunks,
    a,
    b,
    x_strides,
    y_strides,
    x_inner,
    y_inner,
    UNIT: tl.constexpr,
    QUADS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write y, a tile of [ROWS, COLUMNS] elements a program; `elements` in units."""
    row, sample, position, structure = rows_of(tl.program_id(0) // chunks, rows, 1, structures, ROWS)
    there = row < rows
    own = load_coefficients(table_ptr, structures, structure, there)
    first = (tl.program_id(0) % chunks) * COLUMNS
    element = first + tl.arange(0, COLUMNS)[None, :]
    inside = there & (element < elements * UNIT)
    x = row_offsets(sample, position, structure, x_strides, UNIT)
    y = row_offsets(sample, position, structure, y_strides, UNIT)
    seen = inside & (own[2] != 0.0)
    values = tl.load(x_ptr + x + element * x_inner, mask=seen, other=0.0).to(tl.float32)
    counters = row.to(tl.int64) * (elements * UNIT) + first
    words = tile_words(tl.load(seed_ptr), counters, 1, ROWS, COLUMNS, QUADS)
    theta = draw(words, own, regimes_of(own), a, b)
    tl.store(y_ptr + y + element * y_inner, (values * theta).to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows", "chunks", "splits"])
def element_rows_backward(
    dy_ptr,
    x_ptr,
    dx_ptr,
    table_ptr,
    seed_ptr,
    sums_ptr,
    rows,
    structures,
    elements,
    splits,
    a,
    b,
    dy_strides,
    x_strides,
    dx_strides,
    dy_inner,
    x_inner,
    dx_inner,
    WANT_DX: tl.constexpr,
    UNIT: tl.constexpr,
    QUADS: tl.constexpr,
    WALK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write dx and the sums over `WALK` tiles; part = position and split together."""
    split = tl.program_id(0) % splits
    row, sample, position, structure = rows_of(tl.program_id(0) // splits, rows, 1, structures, ROWS)
    there = row < rows
    own = load_coefficients(table_ptr, structures, structure, there)
    regimes = regimes_of(own)
    seed = tl.load(seed_ptr)
    dy_row = dy_ptr + row_offsets(sample, position, structure, dy_strides, UNIT)
    x_row = x_ptr + row_offsets(sample, position, structure, x_strides, UNIT)
    dx_row = dx_ptr + row_offsets(sample, position, structure, dx_strides, UNIT)
    by_mu = tl.zeros((ROWS, COLUMNS), tl.float32)
    by_log_sigma = tl.zeros((ROWS, COLUMNS), tl.float32)
    for tile in range(WALK):
        first = (split * WALK + tile) * COLUMNS
        element = first + tl.arange(0, COLUMNS)[None, :]
        inside = there & (element < elements * UNIT)
        seen = inside & (own[2] != 0.0)
        dy = tl.load(dy_row + element * dy_inner, mask=seen, other=0.0).to(tl.float32)
        x = tl.load(x_row + element * x_inner, mask=seen, other=0.0).to(tl.float32)
        words = tile_words(seed, row.to(tl.int64) * (elements * UNIT) + first, 1, ROWS, COLUMNS, QUADS)
        theta, theta_by_mu, theta_by_log_sigma = draw_gradients(words, own, regimes, a, b)
        if WANT_DX:
            tl.store(dx_row + element * dx_inner, (dy * theta).to(dx_ptr.dtype.element_ty), mask=inside)
        by_mu += (dy * x) * theta_by_mu
        by_log_sigma += (dy * x) * theta_by_log_sigma
    place_of_sum = sums_ptr + (sample.to(tl.int64) * splits + split) * structures + structure
    parts = (rows // structures).to(tl.int64) * splits
    tl.store(place_of_sum, tl.sum(by_mu, axis=1, keep_dims=True), mask=there)
    second = place_of_sum + parts * structures
    tl.store(second, tl.sum(by_log_sigma, axis=1, keep_dims=True), mask=there)


@triton.jit(do_not_specialize=["tokens", "blocks", "parts"])
def element_columns(
    x_ptr,
    y_ptr,
    table_ptr,
    seed_ptr,
    tokens,
    elements,
    structures,
    blocks,
    a,
    b,
    x_strides,
    y_strides,
    x_inner,
    y_inner,
    UNIT: tl.constexpr,
    QUADS: tl.constexpr,
    WALK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write y, `WALK` tiles of [ROWS tokens, COLUMNS structures] a program; `structures` in units."""
    first = (tl.program_id(0) % blocks) * COLUMNS
    column = first + tl.arange(0, COLUMNS)[None, :]
    there = column < structures * UNIT
    own = load_coefficients(table_ptr, structures * UNIT, column, there)
    regimes = regimes_of(own)
    seed = tl.load(seed_ptr)
    for tile in range(WALK):
        token = tokens_of(tl.program_id(0) // blocks * WALK + tile, tokens, ROWS)
        inside = (token < tokens) & there
        x = token_offsets(0, token, elements, x_strides, UNIT)
        y = token_offsets(0, token, elements, y_strides, UNIT)
        values = tl.load(x_ptr + x + column * x_inner, mask=inside, other=0.0).to(tl.float32)
        counters = ((token // elements).to(tl.int64) * (structures * UNIT) + first) * elements + token % elements
        words = tile_words(seed, counters, elements, ROWS, COLUMNS, QUADS)
        theta = draw(words, own, regimes, a, b)
        values = tl.where(own[2] != 0.0, values * theta, 0.0)
        tl.store(y_ptr + y + column * y_inner, values.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["tokens", "blocks", "parts"])
def element_columns_backward(
    dy_ptr,
    x_ptr,
    dx_ptr,
    table_ptr,
    seed_ptr,
    sums_ptr,
    tokens,
    elements,
    structures,
    blocks,
    parts,
    a,
    b,
    dy_strides,
    x_strides,
    dx_strides,
    dy_inner,
    x_inner,
    dx_inner,
    WANT_DX: tl.constexpr,
    UNIT: tl.constexpr,
    QUADS: tl.constexpr,
    WALK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write dx and the sums over `WALK` tiles of tokens."""
    first = (tl.program_id(0) % blocks) * COLUMNS
    part = tl.program_id(0) // blocks
    column = first + tl.arange(0, COLUMNS)[None, :]
    there = column < structures * UNIT
    own = load_coefficients(table_ptr, structures * UNIT, column, there)
    regimes = regimes_of(own)
    seed = tl.load(seed_ptr)
    by_mu = tl.zeros((ROWS, COLUMNS), tl.float32)
    by_log_sigma = tl.zeros((ROWS, COLUMNS), tl.float32)
    for tile in range(WALK):
        token = tokens_of(part * WALK + tile, tokens, ROWS)
        inside = (token < tokens) & there
        dy_token = token_offsets(0, token, elements, dy_strides, UNIT)
        x_token = token_offsets(0, token, elements, x_strides, UNIT)
        dy = tl.load(dy_ptr + dy_token + column * dy_inner, mask=inside, other=0.0).to(tl.float32)
        x = tl.load(x_ptr + x_token + column * x_inner, mask=inside, other=0.0).to(tl.float32)
        counters = ((token // elements).to(tl.int64) * (structures * UNIT) + first) * elements + token % elements
        words = tile_words(seed, counters, elements, ROWS, COLUMNS, QUADS)
        theta, theta_by_mu, theta_by_log_sigma = draw_gradients(words, own, regimes, a, b)
        if WANT_DX:
            dx = tl.where(own[2] != 0.0, dy * theta, 0.0).to(dx_ptr.dtype.element_ty)
            dx_token = token_offsets(0, token, elements, dx_strides, UNIT)
            tl.store(dx_ptr + dx_token + column * dx_inner, dx, mask=inside)
        product = tl.where(own[2] != 0.0, dy * x, 0.0)
        by_mu += product * theta_by_mu
        by_log_sigma += product * theta_by_log_sigma
    place_of_sum = sums_ptr + part.to(tl.int64) * structures * UNIT + column
    tl.store(place_of_sum, tl.sum(by_mu, axis=0, keep_dims=True), mask=there)
    second = place_of_sum + parts.to(tl.int64) * structures * UNIT
    tl.store(second, tl.sum(by_log_sigma, axis=0, keep_dims=True), mask=there)
