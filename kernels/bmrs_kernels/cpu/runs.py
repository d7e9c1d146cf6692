"""Noise per element where a structure has many: drawn in runs, one structure at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from bmrs_kernels.cpu.cache import cached_inner
from bmrs_kernels.cpu.coefficients import COEFFICIENTS
from bmrs_kernels.cpu.multiply import dots, run_backward, run_forward, vector_backward, vector_forward
from bmrs_kernels.cpu.philox import fill_words
from bmrs_kernels.strides import SPEC

__all__ = ["run_kernels"]

RUN = 256
"""Draws made at once: their coefficients and results stay in the first-level cache."""

STRUCTURES = SPEC["structures"]
ELEMENTS = SPEC["elements"]
STRIDES = len(SPEC)

# Bound by `run_kernels`.
REAL: Any = None
draw: Any = None
draw_gradients: Any = None
one_structure: Any = None


def _one_structure(table: Any, starts: Any, j: Any, run_table: Any, run_starts: Any) -> None:
    """The coefficients of the j-th sorted structure for a run of draws."""
    for k in range(table.shape[0]):
        for i in range(run_table.shape[1]):
            run_table[k, i] = table[k, j]
    for k in range(1, 5):
        run_starts[k] = run_table.shape[1] if j < starts[k] else 0


def _runs_forward(
    spec: Any,
    x: Any,
    y: Any,
    seed: Any,
    log_a: Any,
    log_b: Any,
    first: Any,
    last: Any,
    table: Any,
    order: Any,
    starts: Any,
) -> None:
    sx = spec[STRIDES : STRIDES + 4]
    sy = spec[STRIDES + 4 : STRIDES + 8]
    structures = spec[STRUCTURES]
    elements = spec[ELEMENTS]
    run = min(RUN, elements)
    words = np.empty(run + 8, np.uint32)
    theta = np.empty(run, REAL)
    run_table = np.empty((COEFFICIENTS, run), REAL)
    run_starts = np.zeros(5, np.int64)
    for unit in range(first, last):
        row = unit // structures
        j = unit % structures
        c = order[j]
        one_structure(table, starts, j, run_table, run_starts)
        theta[:] = 0
        for begin in range(0, elements, run):
            count = min(run, elements - begin)
            offset = fill_words(seed, (row * structures + c) * elements + begin, count, words)
            draw(words[offset : offset + count], log_a, log_b, run_table, run_starts, theta)
            ox = row * sx[0] + c * sx[2] + begin * sx[3]
            oy = row * sy[0] + c * sy[2] + begin * sy[3]
            if sx[3] == 1 and sy[3] == 1:
                vector_forward(x[ox : ox + count], y[oy : oy + count], theta[:count])
            else:
                run_forward(x, y, theta[:count], (ox, oy), (sx[3], sy[3]))


def _runs_backward(
    spec: Any,
    dy: Any,
    x: Any,
    dx: Any,
    seed: Any,
    log_a: Any,
    log_b: Any,
    first: Any,
    last: Any,
    table: Any,
    order: Any,
    starts: Any,
    sums: Any,
    wanted: Any,
) -> None:
    sg = spec[STRIDES : STRIDES + 4]
    sx = spec[STRIDES + 4 : STRIDES + 8]
    sd = spec[STRIDES + 8 : STRIDES + 12]
    structures = spec[STRUCTURES]
    elements = spec[ELEMENTS]
    run = min(RUN, elements)
    words = np.empty(run + 8, np.uint32)
    theta = np.zeros(run, REAL)
    by_mu = np.empty(run, REAL)
    by_log_sigma = np.empty(run, REAL)
    products = np.zeros(run, REAL)
    run_table = np.empty((COEFFICIENTS, run), REAL)
    run_starts = np.zeros(5, np.int64)
    for unit in range(first, last):
        row = unit // structures
        j = unit % structures
        c = order[j]
        one_structure(table, starts, j, run_table, run_starts)
        if j >= starts[3]:
            theta[:] = 0
        for begin in range(0, elements, run):
            count = min(run, elements - begin)
            offset = fill_words(seed, (row * structures + c) * elements + begin, count, words)
            draw_gradients(
                words[offset : offset + count],
                log_a,
                log_b,
                run_table,
                run_starts,
                theta,
                by_mu,
                by_log_sigma,
            )
            og = row * sg[0] + c * sg[2] + begin * sg[3]
            ox = row * sx[0] + c * sx[2] + begin * sx[3]
            od = row * sd[0] + c * sd[2] + begin * sd[3]
            if sg[3] == 1 and sx[3] == 1 and sd[3] == 1:
                products[:count] = 0
                vector_backward(
                    dy[og : og + count],
                    x[ox : ox + count],
                    dx[od : od + count],
                    theta[:count],
                    products[:count],
                    wanted,
                )
            else:
                run_backward(
                    dy,
                    x,
                    dx,
                    theta[:count],
                    products[:count],
                    (og, ox, od),
                    (sg[3], sx[3], sd[3]),
                    wanted,
                )
            if j < starts[3]:
                left, right = dots(products[:count], by_mu[:count], by_log_sigma[:count])
                sums[0, c] += left
                sums[1, c] += right


def run_kernels(dtype: str, names: dict[str, Any]) -> dict[str, Any]:
    """Return `runs_forward` and `runs_backward` for a dtype; `names` has REAL and its draws."""
    bound = {**names, "one_structure": cached_inner(_one_structure)}
    return {
        "runs_forward": cached_inner(_runs_forward, name=dtype, **bound),
        "runs_backward": cached_inner(_runs_backward, name=dtype, **bound),
    }
