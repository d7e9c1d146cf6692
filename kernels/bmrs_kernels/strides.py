"""How the kernels walk through tensors of any shape and strides: a plan of rows, positions and tiles.

x is seen as [samples, positions, structures, elements]: axis 0, the axes between it and the structures', the
structures, the axes after. With noise per sample (or batch) all positions share one row of noise. A *row*
is what is drawn at once: the noise of `tile` samples, so that few structures still fill the SIMD lanes.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bmrs_kernels.contract import NoiseLayout

__all__ = ["SPEC", "Strides", "Traversal", "four_strides", "plan"]

# A row of noise has at least this many draws where there are as many, and per-element noise on the
# elements of one structure is drawn together with that of others up to the second number.
ROW_WIDTH = 512
JOINT_WIDTH = 4096
# Elements of x that one task works through, at least; below, threads cost more than they save.
TASK_ELEMENTS = 1 << 16
MAX_TASKS = 64

STREAMED_BYTES = 16 << 20
"""Results of this size, in float32, are written past the caches, which would not keep them anyway."""

STREAMED_RUN = 256
"""Shortest run of results with a theta each for which that pays: with 64 it was three times slower."""

VECTOR, SCALAR, STRIDED = range(3)
"""How a tile is walked: one contiguous run with a theta each; contiguous runs of one theta; by strides."""

_FIELDS = (
    "rows",
    "tile",
    "positions",
    "chunk",
    "chunks",
    "structures",
    "elements",
    "per_element",
    "in_runs",
    "walk",
    "streamed",
)
SPEC = {name: i for i, name in enumerate(_FIELDS)}
"""Places of the numbers in `Traversal.spec`; after them the four strides of each tensor, in elements."""

Strides = tuple[int, ...]


class Traversal(NamedTuple):
    """A plan in the form the kernels read, with what its caller needs.

    Parameters
    ----------
    spec : ndarray of int64
        The numbers named in `SPEC`, then the strides of each tensor.
    spec_address : int
        Where they lie.
    units : int
        Units of work, in order; any contiguous range of them can be done on its own.
    tasks : int
        Into how many ranges the work is cut, whatever the number of threads.
    structures, repeats, width : int
        Number of structures, of draws in a row for each of them in a sample, and of draws in a row.
    """

    spec: NDArray[np.int64]
    spec_address: int
    units: int
    tasks: int
    structures: int
    repeats: int
    width: int

    def ranges(self) -> list[tuple[int, int]]:
        """First and last unit of each task."""
        bounds = [self.units * i // self.tasks for i in range(self.tasks + 1)]
        return list(itertools.pairwise(bounds))


def _merged(sizes: tuple[int, ...], strides: Strides) -> int | None:
    """The stride of axes seen as one, or None if they do not lie so."""
    if 0 in sizes:
        return 0
    kept = [(size, stride) for size, stride in zip(sizes, strides, strict=True) if size != 1]
    for (_, outer), (size, inner) in itertools.pairwise(kept):
        if outer != size * inner:
            return None
    return kept[-1][1] if kept else 0


def four_strides(shape: tuple[int, ...], strides: Strides, axis: int, samples: int) -> Strides | None:
    """Strides of [samples, positions, structures, elements], or None where axes can't be merged."""
    first = strides[0] if samples else 0
    before = _merged(shape[samples:axis], strides[samples:axis])
    after = _merged(shape[axis + 1 :], strides[axis + 1 :])
    if before is None or after is None:
        return None
    return first, before, strides[axis], after


def _walk(structures: int, elements: int, vector: bool, tensors: tuple[Strides, ...]) -> int:
    if vector:
        joint = all(
            (elements == 1 or strides[3] == 1) and (structures == 1 or strides[2] == (max(1, elements)))
            for strides in tensors
        )
        return VECTOR if joint else STRIDED
    return SCALAR if all(strides[3] == 1 for strides in tensors) else STRIDED


@functools.lru_cache(maxsize=4096)
def plan(shape: tuple[int, ...], all_strides: tuple[Strides, ...], layout: NoiseLayout) -> Traversal | None:
    """Plan the walk through tensors of one shape.

    Parameters
    ----------
    shape : tuple of int
        Shape of x.
    all_strides : tuple of tuple of int
        Strides, in elements, of each tensor of that shape that the kernel reads or writes.
    layout : NoiseLayout
        Axis and sharing.

    Returns
    -------
    Traversal or None
        None if a tensor's axes do not merge: it must be made contiguous first.
    """
    axis, share = layout.axis, layout.share
    samples = int(share == "sample" and axis > 0)
    found = [four_strides(shape, strides, axis, samples) for strides in all_strides]
    if any(strides is None for strides in found):
        return None
    tensors = tuple(strides for strides in found if strides is not None)
    rows = shape[0] if samples else 1
    positions = math.prod(shape[samples:axis])
    structures, elements = shape[axis], math.prod(shape[axis + 1 :])
    per_element = share == "element"
    if per_element:
        rows, positions = positions, 1
        tensors = tuple((s[1], 0, s[2], s[3]) for s in tensors)
    elif elements > 1 and positions == 1 and all(s[2] == 1 for s in tensors):
        positions, elements = elements, 1  # channels last: the elements are positions of whole structures
        tensors = tuple((s[0], s[3], 1, 1) for s in tensors)
    joint = per_element and structures * elements <= JOINT_WIDTH
    in_runs = per_element and elements > 1 and not joint
    return _assemble(rows, positions, structures, elements, per_element, in_runs, tensors)


def _assemble(
    rows: int,
    positions: int,
    structures: int,
    elements: int,
    per_element: bool,
    in_runs: bool,
    tensors: tuple[Strides, ...],
) -> Traversal:
    repeats = elements if per_element and not in_runs else 1
    noise = structures * repeats
    total = rows * positions * structures * elements
    tasks = max(1, min(total // TASK_ELEMENTS, MAX_TASKS))
    tile = 1
    if not in_runs and noise and rows:
        widest = min(ROW_WIDTH // noise, rows // tasks)
        tile = max((k for k in range(1, widest + 1) if rows % k == 0), default=1)
    groups = structures if in_runs else 1
    rows //= tile
    chunks = max(1, min(positions, -(-tasks // max(rows * groups, 1))))
    chunk = -(-positions // chunks) if positions else 0
    chunks = max(1, -(-positions // chunk)) if chunk else 1
    units = rows * groups * chunks
    walk = _walk(structures, elements, per_element or elements == 1, tensors)
    numbers = (
        rows,
        tile,
        positions,
        chunk,
        chunks,
        structures,
        elements,
        int(per_element),
        int(in_runs),
        walk,
        int(4 * total >= STREAMED_BYTES and (walk != VECTOR or structures * elements >= STREAMED_RUN)),
    )
    spec = np.array([*numbers, *(stride for strides in tensors for stride in strides)], np.int64)
    return Traversal(
        spec, spec.ctypes.data, units, max(1, min(tasks, units)), structures, repeats, tile * noise
    )
