"""How the GPU kernels walk through tensors of any shape and strides: in rows or in columns, tile by tile.

x is seen as [samples, positions, structures, elements], as on the CPU (`strides`). Where the elements of a
structure lie next to each other, tiles hold rows of them; where the structures do (tokens, channels last, no
spatial axes), tiles hold tokens by structures.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

from bmrs_kernels.contract import NoiseLayout
from bmrs_kernels.strides import Strides, four_strides

__all__ = ["Tile", "Walk", "tile_of", "walk"]

UNITS = (16, 8, 4, 2)
"""What lengths and strides may have in common, largest first: 16 bytes are 8 numbers of 16 bits."""

PADDING = 1.1
"""Idle lanes that a wide tile may have at the end of a row; a narrower one would have fewer."""

NARROW = 32
"""Narrowest tile that is chosen to save idle lanes: 128 bytes of float32, a line of the cache."""

LONGEST = 2**31 - 2**17
"""Elements of the innermost axis that 32 bits can count, with those that the last tile has too many."""


class Walk(NamedTuple):
    """A way through the tensors of one operation.

    Parameters
    ----------
    columns : bool
        Whether tiles hold tokens by structures, else rows of elements.
    per_element : bool
        Whether every element has a theta of its own.
    samples, positions, structures, elements : int
        Sizes of the four axes.
    unit : int
        What the length of the innermost axis and all strides but its own are multiples of.
    strides : tuple
        Of each tensor, in elements, one for each of the four axes; 0 for an axis of one.
    """

    columns: bool
    per_element: bool
    samples: int
    positions: int
    structures: int
    elements: int
    unit: int
    strides: tuple[Strides, ...]

    @property
    def rows(self) -> int:
        """Rows of elements of one structure."""
        return self.samples * self.positions * self.structures

    @property
    def tokens(self) -> int:
        """Tokens of one sample."""
        return self.positions * self.elements

    @property
    def merged(self) -> bool:
        """Whether rows are evenly spaced in every tensor."""
        return self.positions == 1 and all(
            self.samples == 1 or own[0] == self.structures * own[2] for own in self.strides
        )

    def outer(self, tensor: int) -> Strides:
        """The strides of all axes but the innermost of a tensor, in units."""
        own = self.strides[tensor]
        places = (0, 1, 3) if self.columns else (0, 1, 2)
        return tuple(own[place] // self.unit for place in places)

    def inner(self, tensor: int) -> int:
        """The stride of the innermost axis of a tensor."""
        return self.strides[tensor][2 if self.columns else 3]


class Tile(NamedTuple):
    """Rows (or tokens) by columns, both powers of two."""

    rows: int
    columns: int


@functools.lru_cache(maxsize=4096)
def walk(shape: tuple[int, ...], all_strides: tuple[Strides, ...], layout: NoiseLayout) -> Walk | None:
    """Find a way through tensors of one shape.

    Parameters
    ----------
    shape : tuple of int
        Shape of x.
    all_strides : tuple of tuple of int
        Strides, in elements, of each tensor of that shape that is read or written.
    layout : NoiseLayout
        Axis and sharing.

    Returns
    -------
    Walk or None
        None if a tensor's axes do not merge: it must be made contiguous first.

    Raises
    ------
    ValueError
        For an innermost axis of more than `LONGEST` elements; the others, and x, may have any number.

    Examples
    --------
    >>> found = walk((32, 64, 56, 56), ((200704, 3136, 56, 1),), NoiseLayout(1, "sample", -20.0, 0.0))
    >>> found.columns, found.rows, found.elements, found.unit, found.outer(0)
    (False, 2048, 3136, 16, (12544, 0, 196))
    """
    axis = layout.axis
    per_element = math.prod(layout.noise_shape(shape)) == math.prod(shape)
    samples = int(layout.share == "sample" and axis > 0 and not per_element)
    sizes = (
        shape[0] if samples else 1,
        math.prod(shape[samples:axis]),
        shape[axis],
        math.prod(shape[axis + 1 :]),
    )
    tensors: list[Strides] = []
    for strides in all_strides:
        found = four_strides(shape, strides, axis, samples)
        if found is None:
            return None
        tensors.append(tuple(s if size > 1 else 0 for s, size in zip(found, sizes, strict=True)))
    columns = sizes[3] == 1 or (sizes[2] > 1 and all(strides[2] == 1 for strides in tensors))
    if per_element and not columns:  # any outer axis will do: without positions, rows need one division less
        sizes = (sizes[1], 1, *sizes[2:])
        tensors = [(own[1], 0, *own[2:]) for own in tensors]
    inner = 2 if columns else 3
    if sizes[inner] > LONGEST:
        raise ValueError(
            f"the innermost axis may have at most {LONGEST} elements on a GPU (they are counted in 32 bits "
            f"there), got {sizes[inner]} in x of shape {shape}; split x"
        )
    multiples = [sizes[inner], *(s for own in tensors for i, s in enumerate(own) if i != inner)]
    unit = next((u for u in UNITS if all(number % u == 0 for number in multiples)), 1)
    return Walk(columns, per_element, *sizes, unit, tuple(tensors))


def tile_of(elements: int, outer: int, inner: int, widest: int) -> Tile:
    """The tile of so many elements for `outer` rows of `inner` columns, at most `widest` columns.

    Examples
    --------
    >>> tile_of(4096, 16384, 3136, 1024)
    Tile(rows=16, columns=256)
    >>> tile_of(4096, 100, 49, 1024)
    Tile(rows=64, columns=64)
    """
    widest = min(_power_of_two(inner), widest, elements)
    widths = [widest]
    while widths[-1] > NARROW:
        widths.append(widths[-1] // 2)
    padded = [-(-inner // width) * width for width in widths]
    limit = max(PADDING * inner, min(padded))
    columns = next(width for width, length in zip(widths, padded, strict=True) if length <= limit)
    return Tile(min(_power_of_two(outer), max(1, elements // columns)), columns)


def _power_of_two(number: int) -> int:
    """The smallest power of two that is no smaller."""
    return 1 << max(0, number - 1).bit_length()
