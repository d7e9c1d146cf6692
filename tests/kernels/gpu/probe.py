"""A kernel that evaluates one formula element by element, for the tests of the Triton binding."""

from __future__ import annotations

import types
from typing import Any

import triton
import triton.language as tl

from bmrs_core.backends.formula import FORMULAS as PUBLIC
from bmrs_kernels.gpu.formulas import FORMULAS


@triton.jit
def probe(x_ptr, out_ptr, n, INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    x0 = tl.load(x_ptr + i, mask=mask, other=0.5)
    x1 = tl.load(x_ptr + n + i, mask=mask, other=0.5)
    x2 = tl.load(x_ptr + (INPUTS > 2) * 2 * n + i, mask=mask, other=0.5)
    x3 = tl.load(x_ptr + (INPUTS > 3) * 3 * n + i, mask=mask, other=0.5)
    x4 = tl.load(x_ptr + (INPUTS > 4) * 4 * n + i, mask=mask, other=0.5)
    x5 = tl.load(x_ptr + (INPUTS > 5) * 5 * n + i, mask=mask, other=0.5)
    if INPUTS == 2:
        v = formula(x0, x1)
    elif INPUTS == 3:
        v = formula(x0, x1, x2)
    elif INPUTS == 4:
        v = formula(x0, x1, x2, x3)
    elif INPUTS == 5:
        v = formula(x0, x1, x2, x3, x4)
    elif INPUTS == 6:
        v = formula(x0, x1, x2, x3, x4, x5)
    else:
        x6 = tl.load(x_ptr + 6 * n + i, mask=mask, other=0.5)
        x7 = tl.load(x_ptr + 7 * n + i, mask=mask, other=0.5)
        x8 = tl.load(x_ptr + 8 * n + i, mask=mask, other=0.5)
        v = formula(x0, x1, x2, x3, x4, x5, x6, x7, x8)
    if OUTPUTS == 1:
        tl.store(out_ptr + i, v, mask=mask)
    else:
        tl.store(out_ptr + i, v[0], mask=mask)
        tl.store(out_ptr + n + i, v[1], mask=mask)
        if OUTPUTS == 3:
            tl.store(out_ptr + 2 * n + i, v[2], mask=mask)


def probe_of(name: str) -> tuple[Any, dict[str, int]]:
    """The probe of one formula and its compile-time arguments."""
    clone = types.FunctionType(probe.fn.__code__, {"tl": tl, "formula": FORMULAS[name]}, probe.fn.__name__)
    clone.__module__ = __name__
    clone.__annotations__ = probe.fn.__annotations__
    return triton.jit(clone), {"INPUTS": PUBLIC[name].inputs, "OUTPUTS": PUBLIC[name].outputs}
