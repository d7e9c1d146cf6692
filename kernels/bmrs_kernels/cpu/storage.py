"""Arrays in the host's memory by address, and the 16-bit floating-point formats.

A kernel is called with addresses, which cost nothing to pass. Numba knows neither bfloat16 nor, on a
CPU, float16: here a uint16 is the bits of a bfloat16 and an int16 those of a float16, so that a type tells
the format and `widen` and `narrow` are chosen when a kernel is compiled. Both are integer arithmetic that
LLVM turns into SIMD on any processor, and round to nearest, ties to even.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic, overload

from bmrs_core.backends.inner import njit_inner
from bmrs_core.backends.numba_elementary import EXACT
from bmrs_kernels.cpu.float32 import bits, from_bits

__all__ = ["STORAGE", "address_to_pointer", "narrow", "widen"]

STORAGE: dict[str, type[np.generic]] = {
    "float32": np.float32,
    "float64": np.float64,
    "bfloat16": np.uint16,
    "float16": np.int16,
}
"""The NumPy type that holds a format's bits."""

_INLINED = {"forceinline": True, "fastmath": False}
SIGN = np.int32(-0x80000000)
MAGNITUDE = np.int32(0x7FFFFFFF)
SCALE_UP = np.float32(2.0**112)
INFINITE_HALF = np.float32(65536.0)
EXPONENT = np.int32(0x7F800000)
QUIET_HALF = np.int32(0x7E00)
HALF_INFINITY = np.int32(0x7C00)
# Floats at or above it round to infinity in float16; below the other they are subnormal there.
HALF_OVERFLOW = np.int32(0x477FF000)
HALF_NORMAL = np.int32(0x38800000)
# Adding 1/2 leaves a float16's subnormal mantissa, rounded, in the low bits.
ALIGN = np.float32(0.5)
ALIGN_BITS = np.int32(0x3F000000)
REBIAS = np.int32(((15 - 127) << 23) + 0xFFF)
ROUND_BFLOAT = np.int32(0x7FFF)
ONE = np.int32(1)
S13 = np.int32(13)
S16 = np.int32(16)
HALF_MAGNITUDE = np.int32(0x7FFF)
QUIET_BFLOAT = np.int32(0x40)


@intrinsic
def address_to_pointer(_context: Any, _address: Any) -> Any:
    """A void pointer for `numba.carray`."""

    def generate(_context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], _context.get_value_type(signature.return_type))

    return types.voidptr(types.int64), generate


def widen(value: Any) -> Any:
    """A stored number in the precision of the arithmetic; inside a kernel only."""
    raise NotImplementedError


def narrow(value: Any, like: Any) -> Any:
    """A number in the format of `like`, a stored number; inside a kernel only."""
    raise NotImplementedError


@njit_inner(**EXACT)
def from_bfloat(value: Any) -> Any:
    """The float32 of a bfloat16's bits."""
    return from_bits(np.int32(np.int32(value) << S16))


@njit_inner(**EXACT)
def from_half(value: Any) -> Any:
    """The float32 of a float16's bits."""
    i = np.int32(value)
    magnitude = from_bits(np.int32(np.int32(i & HALF_MAGNITUDE) << S13)) * SCALE_UP
    finite = bits(magnitude)
    unsigned = np.int32(finite | EXPONENT) if magnitude >= INFINITE_HALF else finite
    return from_bits(np.int32(unsigned | np.int32(i & SIGN)))


@njit_inner(**EXACT)
def to_bfloat(value: Any) -> Any:
    """The bits of the bfloat16 nearest to a float32."""
    i = bits(value)
    high = np.int32(i >> S16)
    rounded = np.int32(np.int32(np.int32(i + ROUND_BFLOAT) + np.int32(high & ONE)) >> S16)
    quiet = np.int32(high | QUIET_BFLOAT)
    return np.uint16(quiet if np.int32(i & MAGNITUDE) > EXPONENT else rounded)


@njit_inner(**EXACT)
def to_half(value: Any) -> Any:
    """The bits of the float16 nearest to a float32."""
    i = bits(value)
    magnitude = np.int32(i & MAGNITUDE)
    odd = np.int32(np.int32(magnitude >> S13) & ONE)
    normal = np.int32(np.int32(np.int32(magnitude + REBIAS) + odd) >> S13)
    subnormal = np.int32(bits(from_bits(magnitude) + ALIGN) - ALIGN_BITS)
    finite = subnormal if magnitude < HALF_NORMAL else normal
    special = QUIET_HALF if magnitude > EXPONENT else HALF_INFINITY
    unsigned = special if magnitude >= HALF_OVERFLOW else finite
    return np.int16(unsigned | np.int32(np.int32(i & SIGN) >> S16))


# Numba compares the names of an overload's arguments, and takes nothing but a function of its own.
@overload(widen, jit_options=_INLINED)
def _widen(value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    if value == types.uint16:
        return lambda value: from_bfloat(value)  # noqa: PLW0108
    if value == types.int16:
        return lambda value: from_half(value)  # noqa: PLW0108
    return lambda value: value


@overload(narrow, jit_options=_INLINED)
def _narrow(value, like):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
    if like == types.uint16:
        return lambda value, like: to_bfloat(value)  # noqa: ARG005
    if like == types.int16:
        return lambda value, like: to_half(value)  # noqa: ARG005
    return lambda value, like: value  # noqa: ARG005
