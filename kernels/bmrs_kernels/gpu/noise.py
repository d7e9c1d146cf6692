"""The noise operation on a GPU: tensors in, results written in place, nothing waited for.

Whoever holds the memory passes tensors of torch (or whatever else Triton takes for a pointer and has
`new_empty`); all on one device, which must be the current one. See `contract` for what is computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import triton

from bmrs_kernels.gpu.elements import (
    element_columns,
    element_columns_backward,
    element_rows,
    element_rows_backward,
)
from bmrs_kernels.gpu.launch import launch
from bmrs_kernels.gpu.rows import scale_columns, scale_columns_backward, scale_rows, scale_rows_backward
from bmrs_kernels.gpu.sums import add_products, add_up
from bmrs_kernels.gpu.tables import COEFFICIENTS, coefficient_table, noise_table
from bmrs_kernels.gpu.walk import Walk, tile_of

if TYPE_CHECKING:
    from torch import Tensor

    from bmrs_kernels.contract import NoiseLayout

__all__ = ["SIZES", "Sizes", "noise_backward", "noise_forward"]


class Sizes(NamedTuple):
    """How much a program does at a time.

    Parameters
    ----------
    forward_bytes, backward_bytes : int
        Of x in a tile, where noise is shared: what keeps enough loads under way.
    elements : int
        In a tile with a theta each: what the draws' intermediate results leave registers for.
    table : int
        Entries of a tile of a table or of partial sums.
    walk, walk_drawn : int
        Tiles that a program walks at most, and so the numbers it adds up one after the other; with a theta
        each, coefficients are fetched for more of them.
    widest, widest_drawn : int
        Columns of a tile at most; with a theta each, so many structures' coefficients are held.
    """

    forward_bytes: int = 16384
    backward_bytes: int = 8192
    elements: int = 512
    table: int = 1024
    walk: int = 8
    walk_drawn: int = 16
    widest: int = 1024
    widest_drawn: int = 128


# The interpreter runs one program after the other, each at a price of its own: few, large ones.
_LARGE = 1 << 16
SIZES = (
    Sizes(4 * _LARGE, 4 * _LARGE, _LARGE, _LARGE, 8, 8, _LARGE, _LARGE)
    if triton.knobs.runtime.interpret
    else Sizes()
)
"""The sizes in use."""

Parameters = tuple["Tensor", "Tensor", "Tensor"]


def noise_forward(
    x: Tensor, y: Tensor, parameters: Parameters, seed: Tensor, walk: Walk, layout: NoiseLayout
) -> None:
    """Write y.

    Parameters
    ----------
    x, y : Tensor of float32, bfloat16 or float16
        Not empty.
    parameters : tuple of Tensor
        mu, log_sigma and mask: contiguous, float32.
    seed : Tensor of int64, one element
        On the same device.
    walk : Walk
        Of x and y, in this order.
    layout : NoiseLayout
        As the walk was found for.
    """
    bounds = layout.log_a, layout.log_b
    if not walk.per_element:
        theta, *_ = _noise(parameters, seed, walk, bounds, gradients=False)
        _scale_forward(x, y, theta, walk)
        return
    table = _coefficients(parameters, bounds)
    if walk.columns:
        tile = tile_of(SIZES.elements, walk.tokens, walk.structures, SIZES.widest_drawn)
        steps, groups = _steps(_cdiv(walk.tokens, tile.rows), SIZES.walk_drawn)
        blocks = _cdiv(walk.structures, tile.columns)
        launch(element_columns, (groups * blocks,),
            x, y, table, seed,
            walk.tokens, walk.elements, walk.structures // walk.unit, blocks, *bounds,
            *_both(walk, 2),
            UNIT=walk.unit, RUN=_run(walk), WALK=steps, ROWS=tile.rows, COLUMNS=tile.columns,
        )  # fmt: skip
        return
    tile = tile_of(SIZES.elements, walk.rows, walk.elements, SIZES.widest)
    steps, splits = _steps(_cdiv(walk.elements, tile.columns), SIZES.walk_drawn)
    launch(element_rows, (_cdiv(walk.rows, tile.rows) * splits,),
        x, y, table, seed,
        walk.rows, walk.structures, walk.elements // walk.unit, splits, *bounds,
        *_both(walk, 2),
        UNIT=walk.unit, MERGED=walk.merged, RUN=_run(walk), WALK=steps, ROWS=tile.rows, COLUMNS=tile.columns,
    )  # fmt: skip


def noise_backward(
    tensors: tuple[Tensor, Tensor, Tensor | None],
    parameters: Parameters,
    gradients: Tensor,
    seed: Tensor,
    walk: Walk,
    layout: NoiseLayout,
) -> None:
    """Write dx, d_mu and d_log_sigma.

    Parameters
    ----------
    tensors : tuple of Tensor
        dy, x and dx; dx may be None: not wanted.
    parameters, seed, layout
        As for :func:`noise_forward`.
    gradients : Tensor of float32, shape (2, structures)
        Where d_mu and d_log_sigma go; contiguous.
    walk : Walk
        Of dy, x and dx (x again if it is not wanted), in this order.
    """
    bounds = layout.log_a, layout.log_b
    if walk.per_element:
        sums = _element_backward(tensors, _coefficients(parameters, bounds), seed, walk, bounds)
        _add_up(sums, gradients)
        return
    theta, by_mu, by_log_sigma = _noise(parameters, seed, walk, bounds, gradients=True)
    sums, parts = _scale_backward(tensors, theta, walk)
    _add_products(sums, parts, by_mu, by_log_sigma, gradients)


def _coefficients(parameters: Parameters, bounds: tuple[float, float]) -> Tensor:
    """The table of coefficients."""
    structures = parameters[0].numel()
    table = parameters[0].new_empty((COEFFICIENTS, structures))
    block = (
        min(128, triton.next_power_of_2(structures))
        if SIZES.table < _LARGE
        else triton.next_power_of_2(structures)
    )
    launch(
        coefficient_table, (_cdiv(structures, block),), *parameters, table, structures, *bounds, BLOCK=block
    )
    return table


def _noise(
    parameters: Parameters, seed: Tensor, walk: Walk, bounds: tuple[float, float], *, gradients: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Theta of every sample and structure, and its derivatives if they are asked for."""
    structures = walk.structures
    shape = (walk.samples, structures)
    theta = parameters[0].new_empty(shape)
    by_mu, by_log_sigma = (theta.new_empty(shape) for _ in range(2)) if gradients else (theta, theta)
    tile = tile_of(SIZES.table, walk.samples, structures, SIZES.widest_drawn)
    steps, groups = _steps(_cdiv(walk.samples, tile.rows), SIZES.walk)
    launch(noise_table, (_cdiv(structures, tile.columns) * groups,),
        *parameters, seed, theta, by_mu, by_log_sigma, walk.samples, structures, *bounds,
        GRADIENTS=gradients, RUN=4 if structures % 4 == 0 else 1,
        WALK=steps, ROWS=tile.rows, COLUMNS=tile.columns,
    )  # fmt: skip
    return theta, by_mu, by_log_sigma


def _scale_forward(x: Tensor, y: Tensor, theta: Tensor, walk: Walk) -> None:
    elements = _elements(SIZES.forward_bytes, x, walk)
    if walk.columns:
        tile = tile_of(elements, walk.tokens, walk.structures, SIZES.widest)
        blocks, parts = _cdiv(walk.structures, tile.columns), _cdiv(walk.tokens, tile.rows)
        launch(scale_columns, (blocks * parts * walk.samples,),
            x, y, theta, walk.tokens, walk.elements, walk.structures // walk.unit, blocks, parts,
            *_both(walk, 2), UNIT=walk.unit, ROWS=tile.rows, COLUMNS=tile.columns,
        )  # fmt: skip
        return
    tile = tile_of(elements, walk.rows, walk.elements, SIZES.widest)
    chunks = _cdiv(walk.elements, tile.columns)
    launch(scale_rows, (_cdiv(walk.rows, tile.rows) * chunks,),
        x, y, theta, walk.rows, walk.positions, walk.structures, walk.elements // walk.unit, chunks,
        *_both(walk, 2), UNIT=walk.unit, MERGED=walk.merged, ROWS=tile.rows, COLUMNS=tile.columns,
    )  # fmt: skip


def _scale_backward(
    tensors: tuple[Tensor, Tensor, Tensor | None], theta: Tensor, walk: Walk
) -> tuple[Tensor, int]:
    """Write dx; return the sums of dy x, [rows, structures], and how many rows a sample has at a time."""
    dy, x, dx = tensors
    elements = _elements(SIZES.backward_bytes, x, walk)
    inner, outer = (walk.structures, walk.tokens) if walk.columns else (walk.elements, walk.rows)
    tile = tile_of(elements, outer, inner, SIZES.widest)
    common = {"WANT_DX": dx is not None, "UNIT": walk.unit, "ROWS": tile.rows, "COLUMNS": tile.columns}
    target = x if dx is None else dx
    if walk.columns:
        steps, parts = _steps(_cdiv(walk.tokens, tile.rows), SIZES.walk)
        blocks = _cdiv(walk.structures, tile.columns)
        sums = theta.new_empty((walk.samples * parts, walk.structures))
        launch(scale_columns_backward, (blocks * parts * walk.samples,),
            dy, x, target, theta, sums,
            walk.tokens, walk.elements, walk.structures // walk.unit, blocks, parts,
            *_both(walk, 3), WALK=steps, **common,
        )  # fmt: skip
        return sums, parts
    steps, splits = _steps(_cdiv(walk.elements, tile.columns), SIZES.walk)
    sums = theta.new_empty((splits * walk.samples * walk.positions, walk.structures))
    launch(scale_rows_backward, (_cdiv(walk.rows, tile.rows) * splits,),
        dy, x, target, theta, sums,
        walk.rows, walk.positions, walk.structures, walk.elements // walk.unit, splits,
        *_both(walk, 3), WALK=steps, MERGED=walk.merged, **common,
    )  # fmt: skip
    return sums, walk.positions


def _element_backward(
    tensors: tuple[Tensor, Tensor, Tensor | None],
    table: Tensor,
    seed: Tensor,
    walk: Walk,
    bounds: tuple[float, float],
) -> Tensor:
    """Write dx; return the sums of dy x dtheta, [2, parts, structures]."""
    dy, x, dx = tensors
    inner, outer = (walk.structures, walk.tokens) if walk.columns else (walk.elements, walk.rows)
    widest = SIZES.widest_drawn if walk.columns else SIZES.widest
    tile = tile_of(SIZES.elements, outer, inner, widest)
    common = {
        "WANT_DX": dx is not None, "UNIT": walk.unit, "RUN": _run(walk),
        "ROWS": tile.rows, "COLUMNS": tile.columns,
    }  # fmt: skip
    target = x if dx is None else dx
    if walk.columns:
        steps, parts = _steps(_cdiv(walk.tokens, tile.rows), SIZES.walk_drawn)
        blocks = _cdiv(walk.structures, tile.columns)
        sums = table.new_empty((2, parts, walk.structures))
        launch(element_columns_backward, (blocks * parts,),
            dy, x, target, table, seed, sums,
            walk.tokens, walk.elements, walk.structures // walk.unit, blocks, parts, *bounds,
            *_both(walk, 3), WALK=steps, **common,
        )  # fmt: skip
        return sums
    steps, splits = _steps(_cdiv(walk.elements, tile.columns), SIZES.walk_drawn)
    sums = table.new_empty((2, walk.samples * splits, walk.structures))
    launch(element_rows_backward, (_cdiv(walk.rows, tile.rows) * splits,),
        dy, x, target, table, seed, sums,
        walk.rows, walk.structures, walk.elements // walk.unit, splits, *bounds,
        *_both(walk, 3), WALK=steps, MERGED=walk.merged, **common,
    )  # fmt: skip
    return sums


def _add_products(sums: Tensor, parts: int, by_mu: Tensor, by_log_sigma: Tensor, out: Tensor) -> None:
    """Add up sums times derivatives, into `out` if that can be done at once."""
    rows, structures = sums.shape
    tile = tile_of(SIZES.table, rows, structures, NARROW_TABLE)
    steps, groups = _steps(_cdiv(rows, tile.rows), SIZES.walk)
    blocks = _cdiv(structures, tile.columns)
    first = out if groups == 1 else sums.new_empty((2, groups, structures))
    launch(add_products, (blocks * groups,),
        sums, by_mu, by_log_sigma, first, rows, parts, by_mu.shape[0], structures, blocks,
        WALK=steps, ROWS=tile.rows, COLUMNS=tile.columns,
    )  # fmt: skip
    if groups > 1:
        _add_up(first, out)


def _add_up(sums: Tensor, out: Tensor) -> None:
    """Add up sums [2, parts, structures] into `out`, in as many rounds as it takes."""
    while True:
        _, parts, structures = sums.shape
        tile = tile_of(SIZES.table, parts, structures, NARROW_TABLE)
        steps, groups = _steps(_cdiv(parts, tile.rows), SIZES.walk)
        blocks = _cdiv(structures, tile.columns)
        target = out if groups == 1 else sums.new_empty((2, groups, structures))
        launch(
            add_up,
            (blocks * groups, 2),
            sums,
            target,
            parts,
            structures,
            blocks,
            WALK=steps,
            ROWS=tile.rows,
            COLUMNS=tile.columns,
        )
        if groups == 1:
            return
        sums = target


WIDE = 16
"""Bytes that a thread can load or store at a time."""

NARROW_TABLE = 32
"""Columns of a tile of partial sums: few structures a program, so that there are many programs."""


def _both(walk: Walk, tensors: int) -> tuple[Any, ...]:
    """Outer strides of each tensor, then their inner ones."""
    return *(walk.outer(i) for i in range(tensors)), *(walk.inner(i) for i in range(tensors))


def _elements(tile_bytes: int, x: Tensor, walk: Walk) -> int:
    """Elements of a tile; fewer where less than 16 bytes go at a time, which takes more registers."""
    elements = tile_bytes // x.element_size()
    return elements if walk.unit * x.element_size() >= WIDE else min(elements, tile_bytes // 8)


def _run(walk: Walk) -> int:
    """How many numbers with consecutive counters, from a multiple of 4, a thread draws at a time.

    Not 8 of 16 bits, though they would be 16 bytes: what 8 draws hold leaves too few registers.
    """
    consecutive = walk.elements == 1 or not walk.columns
    inner = walk.structures if walk.columns else walk.elements
    return 4 if consecutive and inner % 4 == 0 else 1


def _steps(tiles: int, walk: int) -> tuple[int, int]:
    """Into how many tiles each, at most `walk`, and how many programs to cut a walk, evenly."""
    programs = _cdiv(tiles, walk)
    steps = _cdiv(tiles, programs)
    return steps, _cdiv(tiles, steps)


def _cdiv(number: int, by: int) -> int:
    return -(-number // by)
