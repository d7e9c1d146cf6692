"""exp, log, expm1 and log1p that a vectoriser can see through, for float64.

The C library's are calls, one element at a time, and no vector maths library may be assumed. These
are straight-line arithmetic with the exponent moved by bit operations, within 1 ulp (measured: see
tests/core/test_binding_numba.py), and LLVM turns loops over them into SIMD of any width.
"""

from __future__ import annotations

import math
from typing import Any

from numba import types
from numba.extending import intrinsic

from bmrs_core.backends.inner import njit_inner

__all__ = ["ELEMENTARY", "FAST"]

FAST: dict[str, Any] = {"error_model": "numpy", "forceinline": True, "fastmath": {"contract"}, "nogil": True}
"""Options of everything inlined into a kernel: no exceptions, fused multiply-adds, nothing else."""

EXACT: dict[str, Any] = {**FAST, "fastmath": False}
"""The same without fusing, said explicitly: Numba would let a callee inherit its first caller's flags."""

LOG2_E = 1.4426950408889634
# log 2 in two parts, the first with 21 trailing zero bits: k LN2_HIGH is exact for |k| < 2^11.
LN2_HIGH = 6.93147180369123816490e-01
LN2_LOW = 1.90821492927058770002e-10
# The bits of sqrt(1/2), and of 1 less those.
ROOT_HALF_BITS = 0x3FE6A09E667F3BCD
UP_TO_ONE = 0x3FF0000000000000 - ROOT_HALF_BITS
# 2^52 and the bias of an exponent; the same of a number multiplied by 2^54.
BIASED = 4503599627370496.0 + 1023.0
BIASED_54 = BIASED + 54.0
# Adding 1.5 * 2^52 rounds to an integer and leaves it in the low bits: shifted by 52, it is what a factor
# of 2^k adds to the bits of a float.
ROUND = 6755399441055744.0
EXP_MAX = 709.782712893384
EXP_MIN = -745.2
# From here on e^x is a normal number, and so are 2^k and e^r it is made of.
EXP_NORMAL = -708.396
TWO_M54 = 5.551115123125783e-17
TWO_54 = 18014398509481984.0
SMALLEST_NORMAL = 2.2250738585072014e-308


@intrinsic
def _bits(_context: Any, _x: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.int64))

    return types.int64(types.float64), generate


@intrinsic
def _from_bits(_context: Any, _i: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.float64))

    return types.float64(types.int64), generate


@njit_inner(**FAST)
def _reduce(x: float) -> tuple[float, float]:
    """Return k, r with x = k log 2 + r and |r| <= log(2)/2."""
    k = (x * LOG2_E + ROUND) - ROUND
    return k, (x - k * LN2_HIGH) - k * LN2_LOW


@njit_inner(**FAST)
def _exp_tail(r: float) -> float:
    """e^r - 1 for |r| <= log(2)/2: a minimax polynomial of degree 11, to 1.1e-17 of e^r."""
    p = 2.500008561769504e-08
    p = p * r + 2.763025132889711e-07
    p = p * r + 2.7557586314464748e-06
    p = p * r + 2.480149309008708e-05
    p = p * r + 0.00019841269506619462
    p = p * r + 0.001388888894363923
    p = p * r + 0.00833333333349446
    p = p * r + 0.04166666666653012
    p = p * r + 0.16666666666666413
    p = p * r + 0.5000000000000011
    return r + r * r * p


@njit_inner(**FAST)
def exp(x: float) -> float:
    """e^x."""
    nothing = x < EXP_MIN
    clipped = EXP_MAX if x > EXP_MAX else x
    clipped = 0.0 if nothing else clipped
    subnormal = clipped < EXP_NORMAL
    k, r = _reduce(clipped)
    k = k + 54.0 if subnormal else k
    y = _from_bits(_bits(1.0 + _exp_tail(r)) + (_bits(k + ROUND) << 52))
    y = y * (TWO_M54 if subnormal else 1.0)
    y = 0.0 if nothing else y
    return math.inf if x > EXP_MAX else y


@njit_inner(**FAST)
def decay(x: float) -> float:
    """e^x for x < 709, but 0 where that would be no normal number."""
    k, r = _reduce(x)
    y = _from_bits(_bits(1.0 + _exp_tail(r)) + (_bits(k + ROUND) << 52))
    return 0.0 if x < EXP_NORMAL else y


@njit_inner(**FAST)
def expm1(x: float) -> float:
    """e^x - 1 as 2^k (e^r - 1) + (2^k - 1)."""
    clipped = -40.0 if x < -40.0 else x
    clipped = EXP_MAX if clipped > EXP_MAX else clipped
    k, r = _reduce(clipped)
    tail = _exp_tail(r)
    shifted = _bits(k + ROUND) << 52
    power = _from_bits(shifted + _bits(1.0))
    huge = _from_bits(_bits(1.0 + tail) + shifted)
    y = huge if clipped > 700.0 else tail * power + (power - 1.0)
    return math.inf if x > EXP_MAX else y


@njit_inner(**FAST)
def log(x: float) -> float:
    """Log of x = 2^e (1 + f), sqrt(1/2) <= 1 + f < sqrt 2, log(1 + f) by fdlibm's series."""
    tiny = x < SMALLEST_NORMAL
    # The exponent field rises where the mantissa passes sqrt 2.
    bits = _bits(x * TWO_54 if tiny else x) + UP_TO_ONE
    # 2^52 with the biased exponent in its low bits, less 2^52: an exact conversion that is SIMD everywhere.
    e = _from_bits((bits >> 52) | 0x4330000000000000) - (BIASED_54 if tiny else BIASED)
    f = _from_bits((bits & 0x000FFFFFFFFFFFFF) + ROOT_HALF_BITS) - 1.0
    s = f / (2.0 + f)
    z = s * s
    t = z * 1.479819860511658591e-01 + 1.531383769920937332e-01
    t = t * z + 1.818357216161805012e-01
    t = t * z + 2.222219843214978396e-01
    t = t * z + 2.857142874366239149e-01
    t = t * z + 3.999999999940941908e-01
    t = t * z + 6.666666666666735130e-01
    square = 0.5 * f * f
    y = e * LN2_HIGH - ((square - (s * (square + z * t) + e * LN2_LOW)) - f)
    y = y if x < math.inf else x
    at_end = -math.inf if x == 0.0 else math.nan
    return y if x > 0.0 else at_end


@njit_inner(**EXACT)
def log1p(x: float) -> float:
    """log(1 + x) as log u + (x - (u - 1))/u with u = 1 + x rounded."""
    u = 1.0 + x
    correction = (x - (u - 1.0)) / u
    y = log(u) + correction
    y = y if x < math.inf else x
    return -math.inf if u == 0.0 else y


@njit_inner(**FAST)
def where(condition: bool, x: float, y: float) -> float:
    """Return x where the condition holds, else y."""
    return x if condition else y


@njit_inner(**FAST)
def maximum(x: float, y: float) -> float:
    """Return the larger of the two; NaN if the first is."""
    return y if x < y else x


@njit_inner(**FAST)
def minimum(x: float, y: float) -> float:
    """Return the smaller of the two; NaN if the first is."""
    return y if x > y else x


ELEMENTARY = {
    "absolute": math.fabs,
    "decay": decay,
    "exp": exp,
    "expm1": expm1,
    "log": log,
    "log1p": log1p,
    "maximum": maximum,
    "minimum": minimum,
    "sqrt": math.sqrt,
    "where": where,
}
