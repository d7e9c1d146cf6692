"""y = x theta and its backward pass where every element has a theta of its own, drawn inside the kernel.

The backward kernels write dx and sums of dy x dtheta over parts of a structure's elements,
[2, parts, structures]; `sums` adds them up in a fixed order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from bmrs_kernels.gpu.draws import draw, draw_gradients, regimes_of
from bmrs_kernels.gpu.philox import columns_of, tile_words
from bmrs_kernels.gpu.places import as_stored, row_offsets, rows_of, token_offsets, tokens_of
from bmrs_kernels.gpu.tables import load_coefficients

__all__ = ["element_columns", "element_columns_backward", "element_rows", "element_rows_backward"]


@triton.jit
def beside(words, values):
    """Words, as they are, spread over the threads as values are.

    What is loaded comes in 16 bytes a thread. The compiler would draw in a spread of its own and move theta
    and its derivatives through shared memory; so it must think that words depend on what was loaded.
    """
    return words ^ ((values.to(tl.uint32, bitcast=True) >> 16) >> 16)


@triton.jit
def sum_of_rows(values):
    """The sums of the rows of a tile, [rows, 1, 1]."""
    return tl.sum(tl.sum(values, axis=2, keep_dims=True), axis=1, keep_dims=True)


@triton.jit(do_not_specialize=["rows", "splits"])
def element_rows(
    x_ptr,
    y_ptr,
    table_ptr,
    seed_ptr,
    rows,
    structures,
    elements,
    splits,
    a,
    b,
    x_strides,
    y_strides,
    x_inner,
    y_inner,
    UNIT: tl.constexpr,
    MERGED: tl.constexpr,
    RUN: tl.constexpr,
    WALK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write y, `WALK` tiles of [ROWS, COLUMNS] elements a program; `elements` in units."""
    split = tl.program_id(0) % splits
    row = rows_of(tl.program_id(0) // splits, rows, ROWS, 2)
    there = row < rows
    own = load_coefficients(table_ptr, structures, row % structures, there)
    regimes = regimes_of(own)
    seed = tl.load(seed_ptr)
    x_row = x_ptr + row_offsets(row, 1, structures, x_strides, UNIT, MERGED)
    y_row = y_ptr + row_offsets(row, 1, structures, y_strides, UNIT, MERGED)
    for tile in range(WALK):
        first = (split * WALK + tile) * COLUMNS
        element = first + columns_of(COLUMNS, RUN)
        inside = there & (element < elements * UNIT)
        seen = inside & (own[2] != 0.0)
        values = tl.load(x_row + element.to(tl.int64) * x_inner, mask=seen, other=0.0).to(tl.float32)
        words = tile_words(seed, row.to(tl.int64) * (elements * UNIT) + first, 1, COLUMNS, RUN)
        theta = draw(beside(words, values), own, regimes, a, b)
        tl.store(y_row + element.to(tl.int64) * y_inner, as_stored(values * theta, y_ptr), mask=inside)


@triton.jit(do_not_specialize=["rows", "splits"])
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
    MERGED: tl.constexpr,
    RUN: tl.constexpr,
    WALK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write dx and the sums over `WALK` tiles of a row, [2, splits, rows]."""
    split = tl.program_id(0) % splits
    row = rows_of(tl.program_id(0) // splits, rows, ROWS, 2)
    there = row < rows
    own = load_coefficients(table_ptr, structures, row % structures, there)
    regimes = regimes_of(own)
    seed = tl.load(seed_ptr)
    dy_row = dy_ptr + row_offsets(row, 1, structures, dy_strides, UNIT, MERGED)
    x_row = x_ptr + row_offsets(row, 1, structures, x_strides, UNIT, MERGED)
    dx_row = dx_ptr + row_offsets(row, 1, structures, dx_strides, UNIT, MERGED)
    by_mu = tl.zeros((ROWS, COLUMNS // RUN, RUN), tl.float32)
    by_log_sigma = tl.zeros((ROWS, COLUMNS // RUN, RUN), tl.float32)
    for tile in range(WALK):
        first = (split * WALK + tile) * COLUMNS
        element = first + columns_of(COLUMNS, RUN)
        inside = there & (element < elements * UNIT)
        seen = inside & (own[2] != 0.0)
        dy = tl.load(dy_row + element.to(tl.int64) * dy_inner, mask=seen, other=0.0).to(tl.float32)
        x = tl.load(x_row + element.to(tl.int64) * x_inner, mask=seen, other=0.0).to(tl.float32)
        words = tile_words(seed, row.to(tl.int64) * (elements * UNIT) + first, 1, COLUMNS, RUN)
        theta, theta_by_mu, theta_by_log_sigma = draw_gradients(beside(words, x), own, regimes, a, b)
        if WANT_DX:
            tl.store(dx_row + element.to(tl.int64) * dx_inner, as_stored(dy * theta, dx_ptr), mask=inside)
        by_mu += (dy * x) * theta_by_mu
        by_log_sigma += (dy * x) * theta_by_log_sigma
    place_of_sum = sums_ptr + split.to(tl.int64) * rows + row
    tl.store(place_of_sum, sum_of_rows(by_mu), mask=there)
    second = place_of_sum + splits.to(tl.int64) * rows
    tl.store(second, sum_of_rows(by_log_sigma), mask=there)


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
    RUN: tl.constexpr,
    WALK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write y, `WALK` tiles of [ROWS tokens, COLUMNS structures] a program; `structures` in units."""
    first = (tl.program_id(0) % blocks) * COLUMNS
    column = first + columns_of(COLUMNS, RUN)
    there = column < structures * UNIT
    own = load_coefficients(table_ptr, structures * UNIT, column, there)
    regimes = regimes_of(own)
    seed = tl.load(seed_ptr)
    for tile in range(WALK):
        token = tokens_of(tl.program_id(0) // blocks * WALK + tile, tokens, ROWS, 2)
        inside = (token < tokens) & there
        x = token_offsets(0, token, elements, x_strides, UNIT)
        y = token_offsets(0, token, elements, y_strides, UNIT)
        values = tl.load(x_ptr + x + column.to(tl.int64) * x_inner, mask=inside, other=0.0).to(tl.float32)
        counters = (
            (token // elements).to(tl.int64) * (structures * UNIT) + first
        ) * elements + token % elements
        words = tile_words(seed, counters, elements, COLUMNS, RUN)
        theta = draw(beside(words, values), own, regimes, a, b)
        values = tl.where(own[2] != 0.0, values * theta, 0.0)
        tl.store(y_ptr + y + column.to(tl.int64) * y_inner, as_stored(values, y_ptr), mask=inside)


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
    RUN: tl.constexpr,
    WALK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write dx and the sums over `WALK` tiles of tokens."""
    first = (tl.program_id(0) % blocks) * COLUMNS
    part = tl.program_id(0) // blocks
    column = first + columns_of(COLUMNS, RUN)
    there = column < structures * UNIT
    own = load_coefficients(table_ptr, structures * UNIT, column, there)
    regimes = regimes_of(own)
    seed = tl.load(seed_ptr)
    by_mu = tl.zeros((ROWS, COLUMNS // RUN, RUN), tl.float32)
    by_log_sigma = tl.zeros((ROWS, COLUMNS // RUN, RUN), tl.float32)
    for tile in range(WALK):
        token = tokens_of(part * WALK + tile, tokens, ROWS, 2)
        inside = (token < tokens) & there
        dy_token = token_offsets(0, token, elements, dy_strides, UNIT)
        x_token = token_offsets(0, token, elements, x_strides, UNIT)
        dy = tl.load(dy_ptr + dy_token + column.to(tl.int64) * dy_inner, mask=inside, other=0.0).to(
            tl.float32
        )
        x = tl.load(x_ptr + x_token + column.to(tl.int64) * x_inner, mask=inside, other=0.0).to(tl.float32)
        counters = (
            (token // elements).to(tl.int64) * (structures * UNIT) + first
        ) * elements + token % elements
        words = tile_words(seed, counters, elements, COLUMNS, RUN)
        theta, theta_by_mu, theta_by_log_sigma = draw_gradients(beside(words, x), own, regimes, a, b)
        if WANT_DX:
            dx = as_stored(tl.where(own[2] != 0.0, dy * theta, 0.0), dx_ptr)
            dx_token = token_offsets(0, token, elements, dx_strides, UNIT)
            tl.store(dx_ptr + dx_token + column.to(tl.int64) * dx_inner, dx, mask=inside)
        product = tl.where(own[2] != 0.0, dy * x, 0.0)
        by_mu += product * theta_by_mu
        by_log_sigma += product * theta_by_log_sigma
    place_of_sum = sums_ptr + part.to(tl.int64) * structures * UNIT + column
    tl.store(place_of_sum, tl.sum(by_mu, axis=0, keep_dims=True), mask=there)
    second = place_of_sum + parts.to(tl.int64) * structures * UNIT
    tl.store(second, tl.sum(by_log_sigma, axis=0, keep_dims=True), mask=there)
