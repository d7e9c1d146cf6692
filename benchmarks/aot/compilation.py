"""Compile what a launch would compile, for a GPU that need not be there."""

from __future__ import annotations

import types
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bmrs_kernels.gpu.launch import OPTIONS, Launch

__all__ = ["TARGETS", "compile_launch"]

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
"""A100, H100, B200, MI300X."""

_POINTERS = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int64: "*i64",
    torch.int32: "*i32",
}
_ALIGNED = [["tt.divisibility", 16]]


def compile_launch(launch: Launch, target: str) -> Any:
    """Compile a recorded launch for a target.

    What the values of the arguments tell the compiler is what it would learn at run time: which are 1, which
    multiples of 16. Memory is taken to be aligned, as torch's allocator gives it.

    Parameters
    ----------
    launch : Launch
        As :func:`bmrs_kernels.gpu.launch.recorded` collects them.
    target : str
        A key of `TARGETS`.
    """
    signature: dict[str, Any] = {}
    constants: dict[Any, Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    values = dict(zip(launch.kernel.arg_names, launch.arguments, strict=False)) | launch.constants
    for place, parameter in enumerate(launch.kernel.params):
        value, name = values[parameter.name], parameter.name
        if parameter.is_constexpr:
            signature[name], constants[place,] = "constexpr", value
        elif isinstance(value, tuple):
            signature[name] = tuple(
                _argument((place, i), each, parameter, constants, attributes) for i, each in enumerate(value)
            )
        else:
            signature[name] = _argument((place,), value, parameter, constants, attributes)
    source = ASTSource(launch.kernel, signature, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=TARGETS[target], options=OPTIONS)


def _argument(
    path: tuple[int, ...],
    value: Any,
    parameter: Any,
    constants: dict[Any, Any],
    attributes: dict[tuple[int, ...], Any],
) -> str:
    """The type of one argument; note down what else the compiler may know of it."""
    if isinstance(value, torch.Tensor):
        attributes[path] = _ALIGNED
        return _POINTERS[value.dtype]
    if isinstance(value, float):
        return "fp32"
    if not parameter.do_not_specialize:
        if value == 1:
            constants[path] = 1
            return "constexpr"
        if value % 16 == 0:
            attributes[path] = _ALIGNED
    return "i32" if -(2**31) <= value < 2**31 else "i64"


@triton.jit
def _interior_only(own):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
    return True, False, False


def interior_only(launch: Launch) -> Launch:
    """The launch of a kernel that knows all structures to have mu inside the support or next to it.

    A block skips the texts of regimes that none of its structures is in; counting its instructions must, too.
    """
    text = launch.kernel.fn
    names = {**text.__globals__, "regimes_of": _interior_only}
    clone = types.FunctionType(text.__code__, names, text.__name__, text.__defaults__)
    clone.__module__, clone.__qualname__ = text.__module__, f"{text.__qualname__}_interior"
    clone.__annotations__ = text.__annotations__
    kernel = triton.jit(clone, do_not_specialize=list(launch.kernel.do_not_specialize))
    return launch._replace(kernel=kernel)
