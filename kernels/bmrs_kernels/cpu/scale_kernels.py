"""Multiplying by noise that is drawn already: forward and backward kernels in float32.

Like the kernels of `noise_kernels` they take addresses and a plan, but all of its units at once.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numba import carray

from bmrs_kernels.cpu.announce import announcing
from bmrs_kernels.cpu.cache import cached_inner, cached_njit
from bmrs_kernels.cpu.storage import STORAGE, address_to_pointer
from bmrs_kernels.cpu.tiles import tile_kernels
from bmrs_kernels.strides import SPEC

__all__ = ["ScaleKernels", "scale_kernels"]

# No array ends before what is read from it: sizes are the plan's business.
ENDLESS = 1 << 60

ROWS = SPEC["rows"]
TILE = SPEC["tile"]
POSITIONS = SPEC["positions"]
CHUNK = SPEC["chunk"]
CHUNKS = SPEC["chunks"]
STRUCTURES = SPEC["structures"]
STRIDES = len(SPEC)
REAL = np.float32
STORE = STORAGE["float32"]

# Bound by `scale_kernels`.
row_of_theta: Any = None
tile_forward: Any = None
tile_backward: Any = None


class ScaleKernels(NamedTuple):
    """The kernels, in float32.

    Parameters
    ----------
    forward : callable
        ``(plan, x, y, theta, stride, units, width)``: theta of one sample lies contiguous, `stride` elements
        from that of the next.
    backward : callable
        ``(plan, dy, x, dx, theta, stride, d_theta, units, width)``: dx may be 0, not wanted; the gradient of
        theta is written, [samples, structures].
    """

    forward: Any
    backward: Any


def _row_of_theta(spec: Any, theta: Any, stride: Any, row: Any, out: Any) -> None:
    """Theta of the samples of a row, which lie `stride` apart, side by side."""
    structures = spec[STRUCTURES]
    first = row * spec[TILE]
    for sample in range(spec[TILE]):
        place = (first + sample) * stride
        out[sample * structures : (sample + 1) * structures] = theta[place : place + structures]


def _scale_forward(
    plan_address: Any,
    x_address: Any,
    y_address: Any,
    theta_address: Any,
    theta_stride: Any,
    units: Any,
    width: Any,
) -> None:
    spec = carray(address_to_pointer(plan_address), STRIDES + 8, np.int64)
    x = carray(address_to_pointer(x_address), ENDLESS, STORE)
    y = carray(address_to_pointer(y_address), ENDLESS, STORE)
    all_theta = carray(address_to_pointer(theta_address), ENDLESS, REAL)
    theta = np.empty(width, REAL)
    for unit in range(units):
        row = unit // spec[CHUNKS]
        begin = (unit % spec[CHUNKS]) * spec[CHUNK]
        row_of_theta(spec, all_theta, theta_stride, row, theta)
        tile_forward(spec, x, y, row, begin, min(begin + spec[CHUNK], spec[POSITIONS]), theta)


def _scale_backward(
    plan_address: Any,
    dy_address: Any,
    x_address: Any,
    dx_address: Any,
    theta_address: Any,
    theta_stride: Any,
    d_theta_address: Any,
    units: Any,
    width: Any,
) -> None:
    spec = carray(address_to_pointer(plan_address), STRIDES + 12, np.int64)
    dy = carray(address_to_pointer(dy_address), ENDLESS, STORE)
    x = carray(address_to_pointer(x_address), ENDLESS, STORE)
    dx = carray(address_to_pointer(dx_address), ENDLESS, STORE)
    all_theta = carray(address_to_pointer(theta_address), ENDLESS, REAL)
    d_theta = carray(address_to_pointer(d_theta_address), (spec[ROWS], width), REAL)
    d_theta[:] = 0
    theta = np.empty(width, REAL)
    stretch = np.empty(width, REAL)
    products = np.empty(width, np.float64)
    for unit in range(units):
        row = unit // spec[CHUNKS]
        begin = (unit % spec[CHUNKS]) * spec[CHUNK]
        end = min(begin + spec[CHUNK], spec[POSITIONS])
        row_of_theta(spec, all_theta, theta_stride, row, theta)
        tile_backward(spec, dy, x, dx, row, begin, end, theta, stretch, products, dx_address != 0)
        for i in range(width):
            d_theta[row, i] += products[i]


@functools.cache
def scale_kernels() -> ScaleKernels:
    """Return the compiled kernels."""
    words = ", ".join(["int64"] * 7)
    with announcing("the multiplication by joint noise"):
        names = {**tile_kernels("float32"), "row_of_theta": cached_inner(_row_of_theta)}
        return ScaleKernels(
            cached_njit(_scale_forward, signature=f"void({words})", **names),
            cached_njit(_scale_backward, signature=f"void({words}, int64, int64)", **names),
        )
