"""The noise operation on the CPU: forward and backward kernels for one storage format each.

Kernels take addresses and a plan (`geometry.Plan`) and do a range of its units; they hold no lock, keep no
state and start no thread.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numba import carray

from bmrs_kernels.announce import announcing
from bmrs_kernels.geometry import SCALAR, SPEC, VECTOR
from bmrs_kernels.numba_cache import cached_njit
from bmrs_kernels.numba_draws import COEFFICIENTS, DRAWS
from bmrs_kernels.numba_multiply import (
    dots,
    run_backward,
    run_forward,
    scalar_backward,
    scalar_forward,
    strided_backward,
    strided_forward,
    vector_backward,
    vector_forward,
)
from bmrs_kernels.numba_philox import fill_words
from bmrs_kernels.numba_storage import STORAGE, address_to_pointer

__all__ = ["NoiseKernels", "noise_kernels", "sorting_kernels"]

# Draws of one structure made at once, and positions whose products are added up before the sum goes on in
# float64.
RUN = 1024
STRETCH = 32
# No array ends before what is read from it: sizes are the plan's business.
ENDLESS = 1 << 60

ROWS = SPEC["rows"]
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


# What follows is bound to each format's own when its kernels are made: see `noise_kernels`.
REAL: Any = None
STORE: Any = None
prepare: Any = None
draw: Any = None
draw_gradients: Any = None
parameters: Any = None
repeated: Any = None
tiled: Any = None
sorted_words: Any = None
unsorted: Any = None
one_structure: Any = None
tile_forward: Any = None
tile_backward: Any = None
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
        ``(sums, tasks, width, structures, repeats, d_mu, d_log_sigma)``: add up the sums of all tasks in order.
    backward_serial : callable
        ``(plan, dy, …, log_b, units, tasks, width, d_mu, d_log_sigma)``: all tasks and their sum, in one call.
    scale_forward : callable
        ``(plan, x, y, theta, units, width)``: all units with noise already drawn.
    scale_backward : callable
        ``(plan, dy, x, dx, theta, d_theta, units, width)``: likewise; the gradient of theta is written.
    """

    forward: Any
    backward: Any
    reduce: Any
    backward_serial: Any
    scale_forward: Any
    scale_backward: Any


def _repeated(source: Any, repeats: Any) -> Any:
    """A parameter of every draw of one sample: structures repeated over their elements."""
    if repeats == 1:
        return source
    full = np.empty(source.size * repeats, source.dtype)
    for c in range(source.size):
        full[c * repeats : (c + 1) * repeats] = source[c]
    return full


def _tiled(table: Any, order: Any, starts: Any, full_table: Any, full_order: Any, full_starts: Any) -> None:
    """Repeat the sorted structures of one sample for a row of several, regime by regime."""
    noise = order.size - 1
    tile = (full_order.size - 1) // noise
    for regime in range(4):
        low = starts[regime]
        count = starts[regime + 1] - low
        full_starts[regime] = tile * low
        if count == 0:
            continue
        for copy in range(tile):
            place = tile * low + copy * count
            for j in range(count):
                full_order[place + j] = order[low + j] + copy * noise
            for k in range(table.shape[0]):
                full_table[k][place : place + count] = table[k][low : low + count]
    full_starts[4] = tile * noise


def _parameters(
    mu_address: Any,
    log_sigma_address: Any,
    mask_address: Any,
    log_a: Any,
    log_b: Any,
    structures: Any,
    repeats: Any,
    table: Any,
    order: Any,
    starts: Any,
) -> Any:
    """Prepare the coefficients of every draw of a row; return the first bad structure or -1."""
    mu = carray(address_to_pointer(mu_address), structures, REAL)
    log_sigma = carray(address_to_pointer(log_sigma_address), structures, REAL)
    mask = np.ones(structures, REAL)
    if mask_address != 0:
        mask = carray(address_to_pointer(mask_address), structures, REAL)
    noise = structures * repeats
    mu = repeated(mu, repeats)
    log_sigma = repeated(log_sigma, repeats)
    mask = repeated(mask, repeats)
    if noise == order.size - 1:
        bad = prepare(mu, log_sigma, mask, log_a, log_b, table, order, starts)
        return bad // repeats if bad >= 0 else bad
    one_table = np.empty((COEFFICIENTS, noise), REAL)
    one_order = np.empty(noise + 1, np.int64)
    one_starts = np.empty(5, np.int64)
    bad = prepare(mu, log_sigma, mask, log_a, log_b, one_table, one_order, one_starts)
    if bad >= 0:
        return bad // repeats
    tiled(one_table, one_order, one_starts, table, order, starts)
    return bad


def _sorted_words(words: Any, order: Any, starts: Any, scratch: Any) -> Any:
    """The words of the structures in the order of their regimes."""
    if starts[1] == order.size - 1:
        return words
    for j in range(starts[3]):
        scratch[j] = words[order[j]]
    return scratch


def _unsorted(values: Any, order: Any, starts: Any, scratch: Any) -> None:
    """Put values in the order of their regimes where their structures are; the pruned get 0."""
    if starts[1] == order.size - 1:
        return
    for j in range(starts[3]):
        scratch[j] = values[j]
    for j in range(starts[3]):
        values[order[j]] = scratch[j]
    for j in range(starts[3], order.size - 1):
        values[order[j]] = 0


def _one_structure(table: Any, order: Any, starts: Any, j: Any, run_table: Any, run_starts: Any) -> None:
    """The coefficients of the j-th sorted structure for a run of draws."""
    for k in range(table.shape[0]):
        for i in range(run_table.shape[1]):
            run_table[k, i] = table[k, j]
    for k in range(1, 5):
        run_starts[k] = run_table.shape[1] if j < starts[k] else 0


def _tile_forward(spec: Any, x: Any, y: Any, row: Any, begin: Any, end: Any, theta: Any) -> None:
    """Multiply positions `begin` to `end` of all samples of a row by its noise."""
    sx = spec[STRIDES : STRIDES + 4]
    sy = spec[STRIDES + 4 : STRIDES + 8]
    structures = spec[STRUCTURES]
    elements = spec[ELEMENTS]
    per_element = spec[PER_ELEMENT] != 0
    width = theta.size // spec[TILE]
    for k in range(spec[TILE]):
        sample = row * spec[TILE] + k
        noise = theta[k * width : (k + 1) * width]
        for p in range(begin, end):
            ox = sample * sx[0] + p * sx[1]
            oy = sample * sy[0] + p * sy[1]
            if spec[WALK] == VECTOR:
                vector_forward(x[ox : ox + width], y[oy : oy + width], noise)
            elif spec[WALK] == SCALAR:
                for c in range(structures):
                    jx = ox + c * sx[2]
                    jy = oy + c * sy[2]
                    scalar_forward(x[jx : jx + elements], y[jy : jy + elements], noise[c])
            else:
                strided_forward(
                    x,
                    y,
                    noise,
                    (ox, oy),
                    (sx[2], sx[3], sy[2], sy[3]),
                    (structures, elements),
                    per_element,
                )


def _tile_backward(
    spec: Any,
    dy: Any,
    x: Any,
    dx: Any,
    row: Any,
    begin: Any,
    end: Any,
    theta: Any,
    stretch: Any,
    products: Any,
    wanted: Any,
) -> None:
    """The same backward: dx, if wanted, and the sums of dy x over the positions, one per theta."""
    sg = spec[STRIDES : STRIDES + 4]
    sx = spec[STRIDES + 4 : STRIDES + 8]
    sd = spec[STRIDES + 8 : STRIDES + 12]
    structures = spec[STRUCTURES]
    elements = spec[ELEMENTS]
    per_element = spec[PER_ELEMENT] != 0
    width = theta.size // spec[TILE]
    products[:] = 0.0
    for k in range(spec[TILE]):
        sample = row * spec[TILE] + k
        low = k * width
        high = low + width
        for start in range(begin, end, STRETCH):
            stretch[low:high] = 0
            for p in range(start, min(start + STRETCH, end)):
                og = sample * sg[0] + p * sg[1]
                ox = sample * sx[0] + p * sx[1]
                od = sample * sd[0] + p * sd[1]
                if spec[WALK] == VECTOR:
                    vector_backward(
                        dy[og : og + width],
                        x[ox : ox + width],
                        dx[od : od + width],
                        theta[low:high],
                        stretch[low:high],
                        wanted,
                    )
                elif spec[WALK] == SCALAR:
                    for c in range(structures):
                        jg = og + c * sg[2]
                        jx = ox + c * sx[2]
                        jd = od + c * sd[2]
                        products[low + c] += scalar_backward(
                            dy[jg : jg + elements],
                            x[jx : jx + elements],
                            dx[jd : jd + elements],
                            theta[low + c],
                            wanted,
                        )
                else:
                    strided_backward(
                        dy,
                        x,
                        dx,
                        theta[low:high],
                        products[low:high],
                        (og, ox, od),
                        (sg[2], sg[3], sx[2], sx[3], sd[2], sd[3]),
                        (structures, elements),
                        per_element,
                        wanted,
                    )
            for i in range(low, high):
                products[i] += stretch[i]


def _scale_forward(
    plan_address: Any, x_address: Any, y_address: Any, theta_address: Any, units: Any, width: Any
) -> None:
    spec = carray(address_to_pointer(plan_address), STRIDES + 8, np.int64)
    x = carray(address_to_pointer(x_address), ENDLESS, STORE)
    y = carray(address_to_pointer(y_address), ENDLESS, STORE)
    theta = carray(address_to_pointer(theta_address), (spec[ROWS], width), REAL)
    for unit in range(units):
        row = unit // spec[CHUNKS]
        begin = (unit % spec[CHUNKS]) * spec[CHUNK]
        tile_forward(spec, x, y, row, begin, min(begin + spec[CHUNK], spec[POSITIONS]), theta[row])


def _scale_backward(
    plan_address: Any,
    dy_address: Any,
    x_address: Any,
    dx_address: Any,
    theta_address: Any,
    d_theta_address: Any,
    units: Any,
    width: Any,
) -> None:
    spec = carray(address_to_pointer(plan_address), STRIDES + 12, np.int64)
    dy = carray(address_to_pointer(dy_address), ENDLESS, STORE)
    x = carray(address_to_pointer(x_address), ENDLESS, STORE)
    dx = carray(address_to_pointer(dx_address), ENDLESS, STORE)
    theta = carray(address_to_pointer(theta_address), (spec[ROWS], width), REAL)
    d_theta = carray(address_to_pointer(d_theta_address), (spec[ROWS], width), REAL)
    d_theta[:] = 0
    stretch = np.empty(width, REAL)
    products = np.empty(width, np.float64)
    for unit in range(units):
        row = unit // spec[CHUNKS]
        begin = (unit % spec[CHUNKS]) * spec[CHUNK]
        end = min(begin + spec[CHUNK], spec[POSITIONS])
        tile_backward(spec, dy, x, dx, row, begin, end, theta[row], stretch, products, dx_address != 0)
        for i in range(width):
            d_theta[row, i] += products[i]


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
    sx = spec[STRIDES : STRIDES + 4]
    sy = spec[STRIDES + 4 : STRIDES + 8]
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
        run = min(RUN, elements)
        words = np.empty(run + 8, np.uint32)
        theta = np.empty(run, REAL)
        run_table = np.empty((COEFFICIENTS, run), REAL)
        run_starts = np.zeros(5, np.int64)
        for unit in range(first, last):
            row = unit // structures
            j = unit % structures
            c = order[j]
            one_structure(table, order, starts, j, run_table, run_starts)
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
    sg = spec[STRIDES : STRIDES + 4]
    sx = spec[STRIDES + 4 : STRIDES + 8]
    sd = spec[STRIDES + 8 : STRIDES + 12]
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
            one_structure(table, order, starts, j, run_table, run_starts)
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
    "scale_forward": f"void({_ADDRESSES}, {_ADDRESSES})",
    "scale_backward": f"void({_ADDRESSES}, {_ADDRESSES}, int64, int64)",
}


@functools.cache
def sorting_kernels() -> dict[str, Any]:
    """Return `sorted_words` and `unsorted`: into the order of regimes and back."""
    return {"sorted_words": cached_njit(_sorted_words), "unsorted": cached_njit(_unsorted)}


@functools.cache
def noise_kernels(dtype: str) -> NoiseKernels:
    """Return the compiled kernels for tensors of a dtype, a key of `STORAGE`."""
    real = "float64" if dtype == "float64" else "float32"
    names: dict[str, Any] = {"REAL": np.dtype(real).type, "STORE": STORAGE[dtype], **DRAWS[real]}
    with announcing(f"the noise kernels of {dtype}"):
        names |= sorting_kernels()
        for text in (_one_structure, _repeated, _tiled):
            names[text.__name__[1:]] = cached_njit(text)
        names["parameters"] = cached_njit(_parameters, name=real, **names)
        for text in (_tile_forward, _tile_backward):
            names[text.__name__[1:]] = cached_njit(text, name=dtype, **names)
        for text in (_forward, _backward, _reduce, _backward_serial, _scale_forward, _scale_backward):
            name = text.__name__[1:]
            names[name] = cached_njit(text, name=dtype, signature=_SIGNATURES[name], **names)
    return NoiseKernels(*(names[name] for name in NoiseKernels._fields))
