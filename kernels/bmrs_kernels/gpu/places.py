"""Where the elements of a tile lie in [samples, positions, structures, elements], walked in two ways.

*Rows*: a tile holds `ROWS` rows of elements next to each other; a row is one structure at one position of
one sample. *Columns*: a tile holds `ROWS` tokens (a position and an element) of one sample by `COLUMNS`
structures next to each other. Rows and tokens are counted in the type of their number, int32 unless there are
2^31 of them, for division is dear; offsets are int64, so that x may have any number of elements. Strides but
the innermost come in multiples of `UNIT`: what the compiler knows to be a multiple of 16 bytes it loads 16
bytes at a time.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

__all__ = ["as_stored", "row_offsets", "rows_of", "token_offsets", "tokens_of"]

_interpreted = triton.knobs.runtime.interpret
_constant: Any = (lambda value: value) if _interpreted else tl.constexpr
INTERPRETED = _constant(_interpreted)


@triton.jit
def as_stored(values, ptr):
    """Float32 values in the format of what is behind a pointer, rounded to nearest, to even."""
    # The interpreter would cut the last bits of a bfloat16 off.
    if INTERPRETED and ptr.dtype.element_ty == tl.bfloat16:
        bits = values.to(tl.uint32, bitcast=True)
        to_nearest = (bits + 0x7FFF + ((bits >> 16) & 1)).to(tl.float32, bitcast=True)
        values = tl.where(values == values, to_nearest, values)
    return values.to(ptr.dtype.element_ty)


@triton.jit
def outermost(ROWS: tl.constexpr, INNER: tl.constexpr):
    """0 to ROWS as the first axis of a tile with one or two INNER axes."""
    return tl.arange(0, ROWS)[:, None] if INNER == 1 else tl.arange(0, ROWS)[:, None, None]


@triton.jit
def rows_of(block, rows, ROWS: tl.constexpr, INNER: tl.constexpr):
    """The rows of a block."""
    return block.to(rows.dtype) * ROWS + outermost(ROWS, INNER)


@triton.jit
def tokens_of(tile, tokens, ROWS: tl.constexpr, INNER: tl.constexpr):
    """The tokens of a tile."""
    return tile.to(tokens.dtype) * ROWS + outermost(ROWS, INNER)


@triton.jit
def row_offsets(row, positions, structures, strides, UNIT: tl.constexpr, MERGED: tl.constexpr):
    """Where rows start, for strides of (samples, positions, structures) in units.

    MERGED says that there is one position and samples lie end to end: rows are then evenly spaced.
    """
    if MERGED:
        offsets = row.to(tl.int64) * (strides[2] * UNIT)
    else:
        place = row // structures
        sample = (place // positions).to(tl.int64)
        position = (place % positions).to(tl.int64)
        structure = (row % structures).to(tl.int64)
        offsets = (sample * strides[0] + position * strides[1] + structure * strides[2]) * UNIT
    return offsets


@triton.jit
def token_offsets(sample, token, elements, strides, UNIT: tl.constexpr):
    """Where tokens of a sample start, for strides of (samples, positions, elements) in units."""
    position = (token // elements).to(tl.int64)
    element = (token % elements).to(tl.int64)
    return (sample * strides[0] + position * strides[1] + element * strides[2]) * UNIT
