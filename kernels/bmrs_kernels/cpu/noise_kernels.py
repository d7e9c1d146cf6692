"""The noise operation on the CPU: forward and backward kernels for one storage format each.

Kernels take addresses and a `strides.Traversal` and do a range of its units; they hold no lock, keep no
state and start no thread.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numba import carray

from bmrs_kernels.cpu.announce import announcing
from bmrs_kernels.cpu.cache import cached_njit
from bmrs_kernels.cpu.coefficients import COEFFICIENTS
from bmrs_kernels.cpu.draws import DRAWS
from bmrs_kernels.cpu.philox import fill_words
from bmrs_kernels.cpu.rows import row_kernels
from bmrs_kernels.cpu.runs import run_kernels
from bmrs_kernels.cpu.storage import STORAGE, address_to_pointer
from bmrs_kernels.cpu.tiles import tile_kernels
from bmrs_kernels.strides import SPEC

__all__ = ["NoiseKernels", "noise_kernels"]

# Draws of one structure made at once, and positions whose products are added up before the sum goes on in
# float64.
RUN = 1024
STRETCH = 32
# No array ends before what is read from it: sizes are the plan's business.
ENDLESS = 1 << 60

TILE = SPEC["tile"]
POSITIONS = SPEC["positions"]
CHUNK = SPEC["chunk"]
CHUNKS = SPEC["chunks"]
STRUCTURES = SPEC["structures"]
ELEMENTS = SPEC["elements"]
PER_ELEMENT = SPEC["per_element"]
IN_RUNS = SPEC["in_runs"]
WALK = SPEC["walk"]
STRIDES = len(SPEC)


# Bound to each format's own by `noise_kernels`.
REAL: Any = None
STORE: Any = None
draw: Any = None
draw_gradients: Any = None
parameters: Any = None
sorted_words: Any = None
unsorted: Any = None
tile_forward: Any = None
tile_backward: Any = None
runs_forward: Any = None
runs_backward: Any = None
backward: Any = None
reduce: Any = None


class NoiseKernels(NamedTuple):
    """The kernels of one storage format.

    Parameters
    ----------
    forward : callable
        ``(plan, x, y, mu, log_sigma, mask, seed, log_a, log_b, first, last) -> bad``: do units first to last
        of the plan for tensors x, y. Addresses, two float64, two units; returns the first structure whose
        parameters are unusable, having done nothing, or -1.
    backward : callable
        ``(plan, dy, x, dx, mu, log_sigma, mask, seed, log_a, log_b, first, last, sums)``: likewise for a plan
        for dy, x, dx; dx may be 0: not wanted. `sums` is the address of 2 x width float64 to write to.
    reduce : callable
        ``(sums, tasks, width, structures, repeats, d_mu, d_log_sigma)``: add up the tasks' sums in order.
    backward_serial : callable
        ``(plan, dy, …, log_b, units, tasks, width, d_mu, d_log_sigma)``: all tasks and their sum.
    """

    forward: Any
    backward: Any
    reduce: Any
    backward_serial: Any


def _forward(
    plan_address: Any,
    x_address: Any,
    y_address: Any,
    mu_address: Any,
    log_sigma_address: Any,
    mask_address: Any,
    seed: Any,
    log_a: Any,
    log_b: Any,
    first: Any,
    last: Any,
) -> Any:
    spec = carray(address_to_pointer(plan_address), STRIDES + 8, np.int64)
    x = carray(address_to_pointer(x_address), ENDLESS, STORE)
    y = carray(address_to_pointer(y_address), ENDLESS, STORE)
    structures = spec[STRUCTURES]
    elements = spec[ELEMENTS]
    in_runs = spec[IN_RUNS] != 0
    per_element = spec[PER_ELEMENT] != 0
    repeats = elements if per_element and not in_runs else 1
    tile_width = structures * repeats
    width = spec[TILE] * tile_width
    table = np.empty((COEFFICIENTS, width), REAL)
    order = np.empty(width + 1, np.int64)
    starts = np.empty(5, np.int64)
    bad = parameters(
        mu_address,
        log_sigma_address,
        mask_address,
        log_a,
        log_b,
        structures,
        repeats,
        table,
        order,
        starts,
    )
    if bad >= 0:
        return bad
    if in_runs:
        runs_forward(spec, x, y, seed, log_a, log_b, first, last, table, order, starts)
        return -1
    words = np.empty(width + 8, np.uint32)
    scratch = np.empty(width, np.uint32)
    values = np.empty(width, REAL)
    theta = np.empty(width, REAL)
    chunks = spec[CHUNKS]
    drawn = -1
    for unit in range(first, last):
        row = unit // chunks
        begin = (unit % chunks) * spec[CHUNK]
        end = min(begin + spec[CHUNK], spec[POSITIONS])
        if row != drawn:
            offset = fill_words(seed, row * width, width, words)
            draw(
                sorted_words(words[offset : offset + width], order, starts, scratch),
                log_a,
                log_b,
                table,
                starts,
                theta,
            )
            unsorted(theta, order, starts, values)
            drawn = row
        tile_forward(spec, x, y, row, begin, end, theta)
    return -1


def _backward(
    plan_address: Any,
    dy_address: Any,
    x_address: Any,
    dx_address: Any,
    mu_address: Any,
    log_sigma_address: Any,
    mask_address: Any,
    seed: Any,
    log_a: Any,
    log_b: Any,
    first: Any,
    last: Any,
    sums_address: Any,
) -> Any:
    spec = carray(address_to_pointer(plan_address), STRIDES + 12, np.int64)
    dy = carray(address_to_pointer(dy_address), ENDLESS, STORE)
    x = carray(address_to_pointer(x_address), ENDLESS, STORE)
    dx = carray(address_to_pointer(dx_address), ENDLESS, STORE)
    wanted = dx_address != 0
    structures = spec[STRUCTURES]
    elements = spec[ELEMENTS]
    in_runs = spec[IN_RUNS] != 0
    per_element = spec[PER_ELEMENT] != 0
    repeats = elements if per_element and not in_runs else 1
    tile_width = structures * repeats
    width = spec[TILE] * tile_width
    sums = carray(address_to_pointer(sums_address), (2, width), np.float64)
    sums[:] = 0.0
    table = np.empty((COEFFICIENTS, width), REAL)
    order = np.empty(width + 1, np.int64)
    starts = np.empty(5, np.int64)
    bad = parameters(
        mu_address,
        log_sigma_address,
        mask_address,
        log_a,
        log_b,
        structures,
        repeats,
        table,
        order,
        starts,
    )
    if bad >= 0:
        return bad
    if in_runs:
        runs_backward(spec, dy, x, dx, seed, log_a, log_b, first, last, table, order, starts, sums, wanted)
        return -1
    words = np.empty(width + 8, np.uint32)
    scratch = np.empty(width, np.uint32)
    values = np.empty(width, REAL)
    theta = np.empty(width, REAL)
    by_mu = np.empty(width, REAL)
    by_log_sigma = np.empty(width, REAL)
    stretch = np.empty(width, REAL)
    products = np.empty(width, np.float64)
    chunks = spec[CHUNKS]
    drawn = -1
    for unit in range(first, last):
        row = unit // chunks
        begin = (unit % chunks) * spec[CHUNK]
        end = min(begin + spec[CHUNK], spec[POSITIONS])
        if row != drawn:
            offset = fill_words(seed, row * width, width, words)
            draw_gradients(
                sorted_words(words[offset : offset + width], order, starts, scratch),
                log_a,
                log_b,
                table,
                starts,
                theta,
                by_mu,
                by_log_sigma,
            )
            unsorted(theta, order, starts, values)
            unsorted(by_mu, order, starts, values)
            unsorted(by_log_sigma, order, starts, values)
            drawn = row
        tile_backward(spec, dy, x, dx, row, begin, end, theta, stretch, products, wanted)
        for i in range(width):
            if theta[i] != 0:
                sums[0, i] += products[i] * by_mu[i]
                sums[1, i] += products[i] * by_log_sigma[i]
    return -1


def _reduce(
    sums_address: Any,
    tasks: Any,
    width: Any,
    structures: Any,
    repeats: Any,
    d_mu_address: Any,
    d_log_sigma_address: Any,
) -> None:
    sums = carray(address_to_pointer(sums_address), (tasks, 2, width), np.float64)
    d_mu = carray(address_to_pointer(d_mu_address), structures, REAL)
    d_log_sigma = carray(address_to_pointer(d_log_sigma_address), structures, REAL)
    total = np.zeros((2, structures))
    for task in range(tasks):
        for k in range(2):
            for i in range(width):
                total[k, (i // repeats) % structures] += sums[task, k, i]
    for c in range(structures):
        d_mu[c] = total[0, c]
        d_log_sigma[c] = total[1, c]


def _backward_serial(
    plan_address: Any,
    dy_address: Any,
    x_address: Any,
    dx_address: Any,
    mu_address: Any,
    log_sigma_address: Any,
    mask_address: Any,
    seed: Any,
    log_a: Any,
    log_b: Any,
    units: Any,
    tasks: Any,
    width: Any,
    d_mu_address: Any,
    d_log_sigma_address: Any,
) -> Any:
    spec = carray(address_to_pointer(plan_address), STRIDES, np.int64)
    in_runs = spec[IN_RUNS] != 0
    repeats = spec[ELEMENTS] if spec[PER_ELEMENT] != 0 and not in_runs else 1
    sums = np.empty((tasks, 2, width), np.float64)
    for task in range(tasks):
        bad = backward(
            plan_address,
            dy_address,
            x_address,
            dx_address,
            mu_address,
            log_sigma_address,
            mask_address,
            seed,
            log_a,
            log_b,
            units * task // tasks,
            units * (task + 1) // tasks,
            sums[task].ctypes.data,
        )
        if bad >= 0:
            return bad
    reduce(sums.ctypes.data, tasks, width, spec[STRUCTURES], repeats, d_mu_address, d_log_sigma_address)
    return -1


_ADDRESSES = "int64, int64, int64"
_REST = "int64, float64, float64, int64, int64"
_SIGNATURES = {
    "forward": f"int64({_ADDRESSES}, {_ADDRESSES}, {_REST})",
    "backward": f"int64({_ADDRESSES}, {_ADDRESSES}, int64, {_REST}, int64)",
    "reduce": "void(int64, int64, int64, int64, int64, int64, int64)",
    "backward_serial": f"int64({_ADDRESSES}, {_ADDRESSES}, int64, {_REST}, int64, int64, int64)",
}


@functools.cache
def noise_kernels(dtype: str) -> NoiseKernels:
    """Return the compiled kernels for tensors of a dtype, a key of `STORAGE`."""
    real = "float64" if dtype == "float64" else "float32"
    names: dict[str, Any] = {"REAL": np.dtype(real).type, "STORE": STORAGE[dtype], **DRAWS[real]}
    with announcing(f"the noise kernels of {dtype}"):
        names |= row_kernels(real) | tile_kernels(dtype) | run_kernels(dtype, names)
        for text in (_forward, _backward, _reduce, _backward_serial):
            name = text.__name__[1:]
            names[name] = cached_njit(text, name=dtype, signature=_SIGNATURES[name], **names)
    return NoiseKernels(*(names[name] for name in NoiseKernels._fields))
