"""The formulas bound to Numba in float32, for inlining into SIMD loops over 32-bit numbers.

The elementary functions are straight-line arithmetic with the exponent moved by bit operations: the C
library's are calls, one number at a time. Polynomials are Chebyshev fits, truncation below 1e-8; within
1.5 ulp (measured: tests/kernels/test_numba_float32.py) on the arguments the formulas of the noise layer
have, which are narrower than those of the array functions.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from bmrs_core.backends.clone import clone_formulas, scalar_constants
from bmrs_core.backends.inner import njit_inner
from bmrs_core.backends.numba_elementary import EXACT, FAST
from bmrs_core.formulas.constants import FLOAT32_RULES, FLOAT32_SCALARS

__all__ = ["SUMMING", "compiled_texts", "exp", "log"]

SUMMING: dict[str, Any] = {**FAST, "fastmath": {"contract", "reassoc", "nsz"}}
"""Options of sums whose order is free."""

f32 = np.float32
ZERO = f32(0.0)
HALF = f32(0.5)
ONE = f32(1.0)
LOG2_E = f32(1.4426950408889634)
# log 2 in two parts, the first with 9 trailing zero bits: k LN2_HIGH is exact for |k| < 2^9.
LN2_HIGH = f32(0.693359375)
LN2_LOW = f32(-2.12194440054690583e-4)
SQRT_2 = f32(1.4142135623730951)
# Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits: shifted by 23, it is what a factor of
# 2^k adds to the bits of a float.
ROUND = f32(12582912.0)
EXP_MIN = f32(-87.33)
EXPM1_MIN = f32(-20.0)

E2 = f32(0.5)
E3 = f32(0.1666666716337204)
E4 = f32(0.04166626185178757)
E5 = f32(0.008333280682563782)
E6 = f32(0.0013946446124464273)
E7 = f32(0.00019909646653104573)

L3 = f32(0.3333335518836975)
L4 = f32(-0.2500085234642029)
L5 = f32(0.19999825954437256)
L6 = f32(-0.16621370613574982)
L7 = f32(0.14227114617824554)
L8 = f32(-0.13202103972434998)
L9 = f32(0.1262032687664032)
L10 = f32(-0.07362867891788483)


@intrinsic
def bits(_context: Any, _x: Any) -> Any:
    """The bits of a float32 as an int32."""

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.int32))

    return types.int32(types.float32), generate


@intrinsic
def from_bits(_context: Any, _i: Any) -> Any:
    """The float32 of the bits in an int32."""

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.float32))

    return types.float32(types.int32), generate


@intrinsic
def scaled_bits(_context: Any, _i: Any, _k: Any) -> Any:
    """I + (k << 23) in int32: what multiplies the float of the bits i by 2^k."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.add(args[0], builder.shl(args[1], args[1].type(23)))

    return types.int32(types.int32, types.int32), generate


@intrinsic
def mantissa_bits(_context: Any, _i: Any) -> Any:
    """The bits of the float in [1, 2) with the mantissa of i."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        integer = args[0].type
        return builder.or_(builder.and_(args[0], integer(0x007FFFFF)), integer(0x3F800000))

    return types.int32(types.int32), generate


@intrinsic
def exponent(_context: Any, _i: Any) -> Any:
    """The unbiased exponent in the bits of a positive normal float32, as a float32."""

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        integer = args[0].type
        biased = builder.lshr(args[0], integer(23))
        return builder.sitofp(builder.sub(biased, integer(127)), context.get_value_type(types.float32))

    return types.float32(types.int32), generate


@njit_inner(**FAST)
def _reduce(x: Any) -> Any:
    """Return k, r with x = k log 2 + r and |r| <= log(2)/2."""
    k = (x * LOG2_E + ROUND) - ROUND
    return k, (x - k * LN2_HIGH) - k * LN2_LOW


@njit_inner(**FAST)
def _exp_tail(r: Any) -> Any:
    """e^r - 1 for |r| <= log(2)/2."""
    return r + r * r * (((((E7 * r + E6) * r + E5) * r + E4) * r + E3) * r + E2)


@njit_inner(**FAST)
def exp(x: Any) -> Any:
    """e^x for x < 88.7; 0 where it would be subnormal."""
    k, r = _reduce(max(x, EXP_MIN))
    y = from_bits(scaled_bits(bits(ONE + _exp_tail(r)), bits(k + ROUND)))
    return ZERO if x < EXP_MIN else y


@njit_inner(**FAST)
def expm1(x: Any) -> Any:
    """e^x - 1 for x < 88 as 2^k (e^r - 1) + (2^k - 1)."""
    k, r = _reduce(max(x, EXPM1_MIN))
    power = from_bits(scaled_bits(bits(ONE), bits(k + ROUND)))
    return _exp_tail(r) * power + (power - ONE)


@njit_inner(**FAST)
def log(x: Any) -> Any:
    """Natural logarithm of a positive, normal, finite x."""
    i = bits(x)
    m = from_bits(mantissa_bits(i))
    e = exponent(i)
    large = m > SQRT_2
    m = HALF * m if large else m
    e = e + ONE if large else e
    f = m - ONE
    square = f * f
    p = ((((((L10 * f + L9) * f + L8) * f + L7) * f + L6) * f + L5) * f + L4) * f + L3
    return e * LN2_LOW + (f * square * p - HALF * square) + f + e * LN2_HIGH


@njit_inner(**EXACT)
def log1p(x: Any) -> Any:
    """log(1 + x) as log u + (x - (u - 1))/u with u = 1 + x rounded."""
    u = ONE + x
    return log(u) + (x - (u - ONE)) / u


@njit_inner(**FAST)
def where(condition: Any, x: Any, y: Any) -> Any:
    """Return x where the condition holds, else y."""
    return x if condition else y


@njit_inner(**FAST)
def maximum(x: Any, y: Any) -> Any:
    """Return the larger of the two; NaN if the first is."""
    return max(x, y)


@njit_inner(**FAST)
def minimum(x: Any, y: Any) -> Any:
    """Return the smaller of the two; NaN if the first is."""
    return min(x, y)


ELEMENTARY = {
    "absolute": math.fabs,
    "decay": exp,
    "exp": exp,
    "expm1": expm1,
    "log": log,
    "log1p": log1p,
    "maximum": maximum,
    "minimum": minimum,
    "sqrt": math.sqrt,
    "where": where,
}


@functools.cache
def compiled_texts() -> dict[str, Any]:
    """Return every formula by name as a Numba function of float32, inlined into whatever calls it."""
    scalars = {name: f32(value) for name, value in {**scalar_constants(), **FLOAT32_SCALARS}.items()}
    rules: dict[str, Any] = dict(FLOAT32_RULES)
    for name, value in rules.items():
        if name != "MANY":
            rules[name] = np.array(value, f32) if isinstance(value, tuple) else f32(value)

    def decorate(text: Any) -> Any:
        return njit_inner(**(SUMMING if text.sums_over_nodes else FAST))(text)

    return clone_formulas(ELEMENTARY, scalars, rules, decorate, __name__)
