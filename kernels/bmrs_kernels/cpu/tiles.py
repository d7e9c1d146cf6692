"""Tiles of x and their noise: which loop walks which."""

from __future__ import annotations

from typing import Any

from bmrs_kernels.cpu.cache import cached_inner
from bmrs_kernels.cpu.multiply import PLAIN_LOOPS, strided_backward, strided_forward
from bmrs_kernels.cpu.stream import LOOPS, fence
from bmrs_kernels.strides import SCALAR, SPEC, VECTOR

__all__ = ["tile_kernels"]


# Positions whose products are added up before the sum goes on in float64.
STRETCH = 32

TILE = SPEC["tile"]
STRUCTURES = SPEC["structures"]
ELEMENTS = SPEC["elements"]
PER_ELEMENT = SPEC["per_element"]
WALK = SPEC["walk"]
STREAMED = SPEC["streamed"]
STRIDES = len(SPEC)


# Bound by `tile_kernels`.
vector_forward: Any = None
scalar_forward: Any = None
vector_backward: Any = None
scalar_backward: Any = None


def _tile_forward(spec: Any, x: Any, y: Any, row: Any, begin: Any, end: Any, theta: Any) -> None:
    """Multiply positions `begin` to `end` of all samples of a row by its noise."""
    sx = spec[STRIDES : STRIDES + 4]
    sy = spec[STRIDES + 4 : STRIDES + 8]
    structures = spec[STRUCTURES]
    elements = spec[ELEMENTS]
    per_element = spec[PER_ELEMENT] != 0
    width = theta.size // spec[TILE]
    streamed = spec[STREAMED] != 0
    for k in range(spec[TILE]):
        sample = row * spec[TILE] + k
        noise = theta[k * width : (k + 1) * width]
        for p in range(begin, end):
            ox = sample * sx[0] + p * sx[1]
            oy = sample * sy[0] + p * sy[1]
            if spec[WALK] == VECTOR:
                vector_forward(x[ox : ox + width], y[oy : oy + width], noise, streamed)
            elif spec[WALK] == SCALAR:
                for c in range(structures):
                    jx = ox + c * sx[2]
                    jy = oy + c * sy[2]
                    scalar_forward(x[jx : jx + elements], y[jy : jy + elements], noise[c], streamed)
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
    if streamed:
        fence()


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
    streamed = spec[STREAMED] != 0
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
                        streamed,
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
                            streamed,
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
    if streamed:
        fence()


def tile_kernels(dtype: str) -> dict[str, Any]:
    """Return `tile_forward` and `tile_backward` for tensors of a dtype."""
    loops = LOOPS if dtype == "float32" else PLAIN_LOOPS
    return {
        "tile_forward": cached_inner(_tile_forward, name=dtype, **loops),
        "tile_backward": cached_inner(_tile_backward, name=dtype, **loops),
    }
