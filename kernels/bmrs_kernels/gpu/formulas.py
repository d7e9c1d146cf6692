"""The formulas of bmrs_core bound to Triton, in float32, for inlining into GPU kernels.

`FORMULAS` holds every public formula by its name in `bmrs_core.backends.formula`, and `TEXTS` every text by
that of its function in `bmrs_core.formulas`, as functions for other Triton kernels to call on float32 tiles
(bounds included: a float64 scalar would turn the whole formula into float64). The texts are
those of the CPU, with a 24-point quadrature rule, whose truncation is below float32's precision.
"""

from __future__ import annotations

import types
from typing import Any

import triton
import triton.language as tl

from bmrs_core.backends.clone import clone_formulas, scalar_constants
from bmrs_core.backends.formula import FORMULAS as PUBLIC
from bmrs_core.formulas.constants import FLOAT32_RULES, FLOAT32_SCALARS

__all__ = ["FORMULAS", "TEXTS"]

# The compiler wants compile-time constants; the interpreter fails on `constexpr OP tensor`.
_interpreted = triton.knobs.runtime.interpret
_constant: Any = (lambda value: value) if _interpreted else tl.constexpr
_range: Any = range if _interpreted else tl.static_range


@triton.jit
def exp(x):
    """e^x as the machine computes it, rounding x log2 e: within |x| eps, in the interpreter too."""
    return tl.exp2(x * 1.4426950408889634)


@triton.jit
def log(x):
    """Natural logarithm."""
    return tl.log(x)


@triton.jit
def sqrt(x):
    """Square root."""
    return tl.sqrt(x)


@triton.jit
def absolute(x):
    """|x|."""
    return tl.abs(x)


@triton.jit
def where(condition, x, y):
    """X where the condition holds, else y."""
    return tl.where(condition, x, y)


@triton.jit
def maximum(x, y):
    """The larger of the two."""
    return tl.maximum(x, y)


@triton.jit
def minimum(x, y):
    """The smaller of the two."""
    return tl.minimum(x, y)


@triton.jit
def log1p(x):
    """log(1 + x) as log u + (x - (u - 1))/u with u = 1 + x rounded."""
    u = 1.0 + x
    return tl.log(u) + (x - (u - 1.0)) / u


@triton.jit
def expm1(x):
    """e^x - 1; below 1/2 in magnitude by its Taylor series to x^9 (truncation below 1e-9 of it)."""
    s = 1.0 / 362880.0
    s = s * x + 1.0 / 40320.0
    s = s * x + 1.0 / 5040.0
    s = s * x + 1.0 / 720.0
    s = s * x + 1.0 / 120.0
    s = s * x + 1.0 / 24.0
    s = s * x + 1.0 / 6.0
    s = s * x + 0.5
    return tl.where(tl.abs(x) < 0.5, x + x * x * s, exp(x) - 1.0)


@triton.jit
def log_of_tail(x):
    """Natural logarithm of a normal x <= 1/2, within 3.9e-8 and rounding; half the price of the full one.

    x = 2^k (1 + f) with f from sqrt(1/2) - 1 to sqrt(2) - 1; log(1 + f) is a minimax polynomial.
    """
    bits = x.to(tl.int32, bitcast=True)
    shifted = (bits - 0x3F3504F3) & -0x800000
    f = (bits - shifted).to(tl.float32, bitcast=True) - 1.0
    p = -0.10034243017435074 * f + 0.16335585713386536
    p = p * f - 0.1732608526945114
    p = p * f + 0.1988828480243683
    p = p * f - 0.24961458146572113
    p = p * f + 0.33335262537002563
    p = p * f - 0.500005841255188
    return shifted.to(tl.float32) * 8.262958405176314e-08 + (f + f * f * p)  # log(2) / 2^23


def _one_regime_4(x0, x1, x2, x3):
    return where(is_regime(x0, x1, x2, x3), regime(x0, x1, x2, x3), base(x0, x1, x2, x3))


def _two_regimes_5(x0, x1, x2, x3, x4):
    is_in = is_regime(x0, x1, x2, x3, x4)
    first = where(is_in, regime(x0, x1, x2, x3, x4), base(x0, x1, x2, x3, x4))
    is_in_next = is_next_regime(x0, x1, x2, x3, x4)
    return where(is_in_next, next_regime(x0, x1, x2, x3, x4), first)


def _one_regime_6(x0, x1, x2, x3, x4, x5):
    is_in = is_regime(x0, x1, x2, x3, x4, x5)
    return where(is_in, regime(x0, x1, x2, x3, x4, x5), base(x0, x1, x2, x3, x4, x5))


def _one_regime_9(x0, x1, x2, x3, x4, x5, x6, x7, x8):
    is_in = is_regime(x0, x1, x2, x3, x4, x5, x6, x7, x8)
    in_it = regime(x0, x1, x2, x3, x4, x5, x6, x7, x8)
    return where(is_in, in_it, base(x0, x1, x2, x3, x4, x5, x6, x7, x8))


# By the number of inputs and of regimes: what Triton compiles cannot take a variable number of either.
_COMBINED = {(4, 1): _one_regime_4, (5, 2): _two_regimes_5, (6, 1): _one_regime_6, (9, 1): _one_regime_9}


def _texts(**others: Any) -> dict[str, Any]:
    """Every formula by name, with other primitives where some are given."""
    primitives = {
        "absolute": absolute,
        "decay": exp,
        "exp": exp,
        "expm1": expm1,
        "log": log,
        "log1p": log1p,
        "maximum": maximum,
        "minimum": minimum,
        "sqrt": sqrt,
        "where": where,
        **others,
    }
    values = {**scalar_constants(), **FLOAT32_SCALARS}
    scalars = {name: _constant(value) for name, value in values.items()}
    # `range` is unrolled, so that a node is a constant; the compiler looks the annotations up, too, and the
    # interpreter wants to find the language.
    names = {"range": _range, "Real": _constant(0.0), "Bool": _constant(0), "tl": tl}
    rules = {name: _constant(value) for name, value in FLOAT32_RULES.items()}
    return clone_formulas(primitives, scalars, {**rules, **names}, triton.jit, __name__)


def _combine(name: str, texts: dict[str, Any]) -> Any:
    formula = PUBLIC[name]
    if not formula.regimes:
        return texts[name]
    namespace = {"__name__": __name__, "tl": tl, "where": where, "base": texts[formula.base]}
    for regime, place in zip(formula.regimes, ("regime", "next_regime"), strict=False):
        namespace |= {place: texts[f"{name}_{regime}"], f"is_{place}": texts[f"{name}_is_{regime}"]}
    text = _COMBINED[formula.inputs, len(formula.regimes)]
    clone = types.FunctionType(text.__code__, namespace)
    clone.__module__ = __name__
    clone.__qualname__ = name  # what the compiler tells two functions of a kernel apart by
    return triton.jit(clone)


TEXTS = _texts()
FORMULAS = {name: _combine(name, TEXTS) for name in PUBLIC}
# The logarithm of an interior draw is that of the smaller of two tails.
TEXTS["interior_draw"] = _texts(log=log_of_tail)["interior_draw"]
