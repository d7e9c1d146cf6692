"""y = x theta and its backward pass where many elements share a theta, drawn already (see `tables`).

These kernels move memory and do little else. The backward ones write dx and sums of dy x over parts of what
shares a theta, of one structure in each column; `sums` adds them up in a fixed order.
Where theta is 0, x and dy are not looked at.
"""

from __future__ import annotations

import triton
import triton.language as tl

from bmrs_kernels.gpu.places import as_stored, row_offsets, rows_of, token_offsets, tokens_of

__all__ = ["scale_columns", "scale_columns_backward", "scale_rows", "scale_rows_backward"]


@triton.jit
def noise_of(row, positions, structures):
    """Where the theta of a row is in its table [samples, structures]."""
    return row if positions == 1 else row // structures // positions * structures + row % structures


@triton.jit(do_not_specialize=["rows", "chunks", "splits"])
def scale_rows(
    x_ptr,
    y_ptr,
    theta_ptr,
    rows,
    positions,
    structures,
    elements,
    chunks,
    x_strides,
    y_strides,
    x_inner,
    y_inner,
    UNIT: tl.constexpr,
    MERGED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write y, a tile of [ROWS, COLUMNS] elements a program; `elements` in units."""
    row = rows_of(tl.program_id(0) // chunks, rows, ROWS, 1)
    there = row < rows
    theta = tl.load(theta_ptr + noise_of(row, positions, structures), mask=there, other=0.0)
    element = (tl.program_id(0) % chunks) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = there & (element < elements * UNIT)
    x = row_offsets(row, positions, structures, x_strides, UNIT, MERGED)
    y = row_offsets(row, positions, structures, y_strides, UNIT, MERGED)
    values = tl.load(x_ptr + x + element.to(tl.int64) * x_inner, mask=inside & (theta != 0.0), other=0.0).to(
        tl.float32
    )
    tl.store(y_ptr + y + element.to(tl.int64) * y_inner, as_stored(values * theta, y_ptr), mask=inside)


@triton.jit(do_not_specialize=["rows", "chunks", "splits"])
def scale_rows_backward(
    dy_ptr,
    x_ptr,
    dx_ptr,
    theta_ptr,
    sums_ptr,
    rows,
    positions,
    structures,
    elements,
    splits,
    dy_strides,
    x_strides,
    dx_strides,
    dy_inner,
    x_inner,
    dx_inner,
    WANT_DX: tl.constexpr,
    UNIT: tl.constexpr,
    MERGED: tl.constexpr,
    WALK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write dx and the sums of dy x over `WALK` tiles of a row, [splits, rows]."""
    split = tl.program_id(0) % splits
    row = rows_of(tl.program_id(0) // splits, rows, ROWS, 1)
    there = row < rows
    theta = tl.load(theta_ptr + noise_of(row, positions, structures), mask=there, other=0.0)
    dy_row = dy_ptr + row_offsets(row, positions, structures, dy_strides, UNIT, MERGED)
    x_row = x_ptr + row_offsets(row, positions, structures, x_strides, UNIT, MERGED)
    dx_row = dx_ptr + row_offsets(row, positions, structures, dx_strides, UNIT, MERGED)
    products = tl.zeros((ROWS, COLUMNS), tl.float32)
    for tile in range(WALK):
        element = (split * WALK + tile) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
        inside = there & (element < elements * UNIT)
        seen = inside & (theta != 0.0)
        dy = tl.load(dy_row + element.to(tl.int64) * dy_inner, mask=seen, other=0.0).to(tl.float32)
        x = tl.load(x_row + element.to(tl.int64) * x_inner, mask=seen, other=0.0).to(tl.float32)
        if WANT_DX:
            tl.store(dx_row + element.to(tl.int64) * dx_inner, as_stored(dy * theta, dx_ptr), mask=inside)
        products += dy * x
    total = tl.sum(products, axis=1, keep_dims=True)
    tl.store(sums_ptr + split.to(tl.int64) * rows + row, total, mask=there)


@triton.jit(do_not_specialize=["tokens", "blocks", "parts"])
def scale_columns(
    x_ptr,
    y_ptr,
    theta_ptr,
    tokens,
    elements,
    structures,
    blocks,
    parts,
    x_strides,
    y_strides,
    x_inner,
    y_inner,
    UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write y, a tile of [ROWS tokens, COLUMNS structures] a program; `structures` in units."""
    column = (tl.program_id(0) % blocks) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    rest = tl.program_id(0) // blocks
    sample = (rest // parts).to(tl.int64)
    token = tokens_of(rest % parts, tokens, ROWS, 1)
    there = column < structures * UNIT
    theta = tl.load(theta_ptr + sample * structures * UNIT + column, mask=there, other=0.0)
    inside = (token < tokens) & there
    x = token_offsets(sample, token, elements, x_strides, UNIT)
    y = token_offsets(sample, token, elements, y_strides, UNIT)
    values = tl.load(x_ptr + x + column.to(tl.int64) * x_inner, mask=inside, other=0.0).to(tl.float32)
    values = tl.where(theta != 0.0, values * theta, 0.0)
    tl.store(y_ptr + y + column.to(tl.int64) * y_inner, as_stored(values, y_ptr), mask=inside)


@triton.jit(do_not_specialize=["tokens", "blocks", "parts"])
def scale_columns_backward(
    dy_ptr,
    x_ptr,
    dx_ptr,
    theta_ptr,
    sums_ptr,
    tokens,
    elements,
    structures,
    blocks,
    parts,
    dy_strides,
    x_strides,
    dx_strides,
    dy_inner,
    x_inner,
    dx_inner,
    WANT_DX: tl.constexpr,
    UNIT: tl.constexpr,
    WALK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write dx and the sums of dy x over `WALK` tiles of tokens."""
    column = (tl.program_id(0) % blocks) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    rest = tl.program_id(0) // blocks
    sample = (rest // parts).to(tl.int64)
    there = column < structures * UNIT
    theta = tl.load(theta_ptr + sample * structures * UNIT + column, mask=there, other=0.0)
    products = tl.zeros((ROWS, COLUMNS), tl.float32)
    for tile in range(WALK):
        token = tokens_of((rest % parts) * WALK + tile, tokens, ROWS, 1)
        inside = (token < tokens) & there
        dy_token = token_offsets(sample, token, elements, dy_strides, UNIT)
        x_token = token_offsets(sample, token, elements, x_strides, UNIT)
        dy = tl.load(dy_ptr + dy_token + column.to(tl.int64) * dy_inner, mask=inside, other=0.0).to(
            tl.float32
        )
        x = tl.load(x_ptr + x_token + column.to(tl.int64) * x_inner, mask=inside, other=0.0).to(tl.float32)
        if WANT_DX:
            dx = as_stored(tl.where(theta != 0.0, dy * theta, 0.0), dx_ptr)
            dx_token = token_offsets(sample, token, elements, dx_strides, UNIT)
            tl.store(dx_ptr + dx_token + column.to(tl.int64) * dx_inner, dx, mask=inside)
        products += tl.where(theta != 0.0, dy * x, 0.0)
    total = tl.sum(products, axis=0, keep_dims=True)
    tl.store(sums_ptr + rest.to(tl.int64) * structures * UNIT + column, total, mask=there)
