"""Multiply tiles of x by their noise, and back: the loops over memory.

A tile is [structures, elements] at some place of each tensor. Each loop runs over contiguous slices, which
LLVM turns into SIMD; sums are carried in the arithmetic's precision over short stretches only.
"""

from __future__ import annotations

from typing import Any

from bmrs_core.backends.inner import njit_inner
from bmrs_core.backends.numba_elementary import FAST
from bmrs_kernels.cpu.float32 import SUMMING
from bmrs_kernels.cpu.storage import narrow, widen

__all__ = [
    "PLAIN_LOOPS",
    "run_backward",
    "run_forward",
    "scalar_backward",
    "scalar_forward",
    "strided_backward",
    "strided_forward",
    "vector_backward",
    "vector_forward",
]

# Products added up in the arithmetic's precision before the sum goes on in float64.
STRETCH = 2048


@njit_inner(**FAST)
def vector_forward(x: Any, y: Any, theta: Any) -> None:
    """Y = x theta along one contiguous run with a theta each."""
    for i in range(theta.size):
        product = widen(x[i]) * theta[i]
        y[i] = narrow(product if theta[i] != 0 else theta[i], y[i])


@njit_inner(**FAST)
def scalar_forward(x: Any, y: Any, theta: Any) -> None:
    """Y = x theta along one contiguous run with one theta."""
    if theta == 0:
        for i in range(y.size):
            y[i] = narrow(theta, y[i])
    else:
        for i in range(y.size):
            y[i] = narrow(widen(x[i]) * theta, y[i])


@njit_inner(**FAST)
def strided_forward(x: Any, y: Any, theta: Any, at: Any, strides: Any, size: Any, per_element: Any) -> None:
    """Y = x theta of a tile of any strides; `at`, `strides` and `size` in pairs."""
    for c in range(size[0]):
        for i in range(size[1]):
            t = theta[c * size[1] + i] if per_element else theta[c]
            value = widen(x[at[0] + c * strides[0] + i * strides[1]]) * t
            place = at[1] + c * strides[2] + i * strides[3]
            y[place] = narrow(value if t != 0 else t, y[place])


@njit_inner(**FAST)
def vector_backward(dy: Any, x: Any, dx: Any, theta: Any, sums: Any, wanted: Any) -> None:
    """Dx = dy theta along one contiguous run with a theta each; dy x is added to the sums."""
    if wanted:
        for i in range(theta.size):
            g = widen(dy[i])
            dx[i] = narrow(g * theta[i] if theta[i] != 0 else theta[i], dx[i])
            sums[i] += g * widen(x[i])
    else:
        for i in range(theta.size):
            sums[i] += widen(dy[i]) * widen(x[i])


@njit_inner(**SUMMING)
def _scaled_dot(dy: Any, x: Any, dx: Any, theta: Any) -> Any:
    total = theta - theta
    for i in range(dx.size):
        g = widen(dy[i])
        dx[i] = narrow(g * theta, dx[i])
        total += g * widen(x[i])
    return total


@njit_inner(**SUMMING)
def _dot(dy: Any, x: Any, zero: Any) -> Any:
    total = zero
    for i in range(dy.size):
        total += widen(dy[i]) * widen(x[i])
    return total


@njit_inner(**FAST)
def scalar_backward(dy: Any, x: Any, dx: Any, theta: Any, wanted: Any) -> Any:
    """Dx = dy theta along one contiguous run with one theta; return the sum of dy x."""
    total = 0.0
    if theta == 0:
        if wanted:
            for i in range(dx.size):
                dx[i] = narrow(theta, dx[i])
        return total
    for start in range(0, dx.size, STRETCH):
        stop = min(start + STRETCH, dx.size)
        if wanted:
            total += _scaled_dot(dy[start:stop], x[start:stop], dx[start:stop], theta)
        else:
            total += _dot(dy[start:stop], x[start:stop], theta - theta)
    return total


@njit_inner(**FAST)
def strided_backward(
    dy: Any,
    x: Any,
    dx: Any,
    theta: Any,
    sums: Any,
    at: Any,
    strides: Any,
    size: Any,
    per_element: Any,
    wanted: Any,
) -> None:
    """Dx = dy theta of a tile of any strides; dy x is added to the sums, one per theta."""
    for c in range(size[0]):
        for i in range(size[1]):
            k = c * size[1] + i if per_element else c
            g = widen(dy[at[0] + c * strides[0] + i * strides[1]])
            if wanted:
                place = at[2] + c * strides[4] + i * strides[5]
                dx[place] = narrow(g * theta[k] if theta[k] != 0 else theta[k], dx[place])
            sums[k] += g * widen(x[at[1] + c * strides[2] + i * strides[3]])


@njit_inner(**FAST)
def run_forward(x: Any, y: Any, theta: Any, at: Any, strides: Any) -> None:
    """Y = x theta along one strided run with a theta each."""
    for i in range(theta.size):
        place = at[1] + i * strides[1]
        t = theta[i]
        value = widen(x[at[0] + i * strides[0]]) * t
        y[place] = narrow(value if t != 0 else t, y[place])


@njit_inner(**FAST)
def run_backward(
    dy: Any, x: Any, dx: Any, theta: Any, products: Any, at: Any, strides: Any, wanted: Any
) -> None:
    """Dx = dy theta along one strided run with a theta each; dy x is stored in `products`."""
    for i in range(theta.size):
        g = widen(dy[at[0] + i * strides[0]])
        products[i] = g * widen(x[at[1] + i * strides[1]])
        if wanted:
            place = at[2] + i * strides[2]
            dx[place] = narrow(g * theta[i] if theta[i] != 0 else theta[i], dx[place])


@njit_inner(**SUMMING)
def dots(products: Any, left: Any, right: Any) -> Any:
    """Return the inner products of the first with either of the others."""
    first = products[0] - products[0]
    second = first
    for i in range(left.size):
        first += products[i] * left[i]
        second += products[i] * right[i]
    return first, second


@njit_inner(**FAST)
def _vector_forward(x: Any, y: Any, theta: Any, _streamed: Any) -> None:
    vector_forward(x, y, theta)


@njit_inner(**FAST)
def _scalar_forward(x: Any, y: Any, theta: Any, _streamed: Any) -> None:
    scalar_forward(x, y, theta)


@njit_inner(**FAST)
def _vector_backward(dy: Any, x: Any, dx: Any, theta: Any, sums: Any, wanted: Any, _streamed: Any) -> None:
    vector_backward(dy, x, dx, theta, sums, wanted)


@njit_inner(**FAST)
def _scalar_backward(dy: Any, x: Any, dx: Any, theta: Any, wanted: Any, _streamed: Any) -> Any:
    return scalar_backward(dy, x, dx, theta, wanted)


PLAIN_LOOPS: dict[str, Any] = {
    "vector_forward": _vector_forward,
    "scalar_forward": _scalar_forward,
    "vector_backward": _vector_backward,
    "scalar_backward": _scalar_backward,
}
"""The loops under the names and with the arguments of `stream.LOOPS`, which float32 has."""
