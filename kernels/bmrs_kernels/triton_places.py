"""Where the elements of a tile lie, for both ways of walking through [samples, positions, structures, elements].

*Rows*: a tile holds `ROWS` rows of elements next to each other; a row is one structure at one position of
one sample. *Columns*: a tile holds `ROWS` tokens (a position and an element) of one sample by `COLUMNS`
structures next to each other. Rows and tokens are counted in the type of their number, int32 unless there are
2^31 of them, for division is dear; offsets are int64, so that x may have any number of elements. Strides but
the innermost come in multiples of `UNIT`: what the compiler knows to be a multiple of 16 bytes it loads 16
bytes at a time.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["row_offsets", "rows_of", "token_offsets", "tokens_of"]


@triton.jit
def rows_of(block, rows, positions, structures, ROWS: tl.constexpr):
    """Return the rows of a block and their sample, position and structure, each [ROWS, 1]."""
    row = block.to(rows.dtype) * ROWS + tl.arange(0, ROWS)[:, None]
    place = row // structures
    return row, place // positions, place % positions, row % structures


@triton.jit
def tokens_of(tile, tokens, ROWS: tl.constexpr):
    """The tokens of a tile, [ROWS, 1]."""
    return tile.to(tokens.dtype) * ROWS + tl.arange(0, ROWS)[:, None]


@triton.jit
def row_offsets(sample, position, structure, strides, UNIT: tl.constexpr):
    """Where rows start, for strides of (samples, positions, structures) in units."""
    return (
        sample.to(tl.int64) * strides[0]
        + position.to(tl.int64) * strides[1]
        + structure.to(tl.int64) * strides[2]
    ) * UNIT


@triton.jit
def token_offsets(sample, token, elements, strides, UNIT: tl.constexpr):
    """Where tokens of a sample start, for strides of (samples, positions, elements) in units."""
    position = (token // elements).to(tl.int64)
    element = (token % elements).to(tl.int64)
    return (sample * strides[0] + position * strides[1] + element * strides[2]) * UNIT
