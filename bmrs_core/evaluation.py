"""Evaluate a formula: in Numba on data in the host's memory, else in the array's own library."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmrs_core.arrays import Arguments, Array
from bmrs_core.backends import array_api
from bmrs_core.backends.formula import FORMULAS

__all__ = ["evaluate", "evaluate_raw", "run"]

# Elements between the ends of neighbouring blocks: 320 bytes, five cache lines.
STAGGER = 40

Out = NDArray[Any] | tuple[NDArray[Any], ...] | None


def evaluate(name: str, arguments: Arguments, out: Out = None) -> Any:
    """Return a formula of checked arguments, broadcast against each other.

    Parameters
    ----------
    name
        A key of `FORMULAS`.
    arguments
        In the order of the formula's text.
    out
        NumPy arrays (a tuple where the formula has several results) of the broadcast shape to write to;
        only for NumPy arguments.
    """
    if out is not None and arguments.namespace is not np:
        raise TypeError(f"out= is for NumPy arguments, got arrays of {arguments.namespace.__name__}")
    if not arguments.on_host:
        return _on_device(name, arguments)
    inputs = tuple(arguments.values.values())
    dtype = np.dtype(np.float32 if arguments.float32 else np.float64)
    count = FORMULAS[name].outputs
    results = _given(out, count) if out is not None else _allocate(inputs, count, dtype)
    if out is not None:
        _check_shapes(results, inputs)
    run(name, inputs, results)
    if out is None:
        results = tuple(arguments.in_kind(result if result.ndim else result[()]) for result in results)
    return results if count > 1 else results[0]


def evaluate_raw(name: str, arguments: Arguments) -> tuple[Array, ...]:
    """Return a formula's several results in float64 as more arguments, for the next formula."""
    if not arguments.on_host:
        return tuple(array_api.bind_namespace(arguments.namespace)[name](*arguments.values.values()))
    inputs = tuple(arguments.values.values())
    results = _allocate(inputs, FORMULAS[name].outputs, np.dtype(np.float64))
    run(name, inputs, results)
    return results


def _given(out: Any, count: int) -> tuple[NDArray[Any], ...]:
    given = out if isinstance(out, tuple) else (out,)
    if len(given) != count:
        raise ValueError(f"out must hold {count} arrays, one for each result, got {len(given)}")
    for i, array in enumerate(given):
        if any(array is other for other in given[:i]):
            raise ValueError(
                "out must hold different arrays, got the same one twice: one result would be lost"
            )
        if isinstance(array, np.ma.MaskedArray):
            raise TypeError(
                "out must be a NumPy array without a mask, which would not be heeded: give out.data"
            )
        if not isinstance(array, np.ndarray):
            raise TypeError(f"out must be a NumPy array, got {type(array).__name__}")
        if not array.flags.writeable:
            raise ValueError("out must be writeable, got a read-only array: the result goes there")
        if array.dtype.kind != "f" or array.dtype.itemsize < 4:
            raise TypeError(f"out must be a float32 or float64 array, got dtype {array.dtype}")
    return given


def _allocate(inputs: tuple[NDArray[Any], ...], count: int, dtype: np.dtype[Any]) -> tuple[NDArray[Any], ...]:
    """Return empty arrays of the broadcast shape in the memory order of the inputs, as a ufunc would."""
    flags: Any = [["readonly"]] * len(inputs) + [["writeonly", "allocate"]] * count
    dtypes = [array.dtype for array in inputs] + [dtype] * count
    operands: Any = (*inputs, *[None] * count)
    iterator = np.nditer(operands, ["zerosize_ok", "refs_ok"], flags, dtypes)
    return tuple(iterator.operands[len(inputs) :])


def _check_shapes(results: tuple[NDArray[Any], ...], inputs: tuple[NDArray[Any], ...]) -> None:
    shape = np.broadcast_shapes(*(array.shape for array in inputs))
    for array in results:
        if array.shape != shape:
            raise ValueError(f"out must have the arguments' broadcast shape {shape}, got {array.shape}")


def run(name: str, inputs: tuple[NDArray[Any], ...], outputs: tuple[NDArray[Any], ...]) -> None:
    """Run a formula's loops over blocks; any strides, byte orders and float dtypes.

    Scalars are spread over one block once; the iterator converts and packs whatever else is not a
    contiguous float64 array already.
    """
    from bmrs_core.backends.numba_kernels import BLOCK, kernels, workspace

    loops = kernels(name)
    size = min(BLOCK, outputs[0].size)
    constants, room = _spread(inputs, size), workspace(name, inputs, size)
    varying = [x for x in inputs if x.ndim > 0]
    flags: Any = [["readonly", "contig", "aligned", "nbo"]] * len(varying)
    flags += [["writeonly", "contig", "aligned", "nbo", "no_broadcast"]] * len(outputs)
    iterator = np.nditer(
        (*varying, *outputs),
        flags=["external_loop", "buffered", "zerosize_ok", "copy_if_overlap", "delay_bufalloc"],
        op_flags=flags,
        op_dtypes=[np.float64] * len(flags),
        casting="same_kind",
        buffersize=BLOCK,
    )
    with iterator:
        iterator.reset()
        if iterator.itersize == 0:
            return
        for operands in iterator:
            block = operands if isinstance(operands, tuple) else (operands,)
            packed = iter(block)
            filled = tuple(next(packed) if x is None else x[: block[-1].size] for x in constants)
            results = tuple(packed)
            for loop in loops:
                loop(filled, results, room)


def _spread(inputs: tuple[NDArray[Any], ...], size: int) -> list[NDArray[np.float64] | None]:
    """Return a block of every scalar among the inputs, None for the others.

    The blocks start at different offsets within a page: as many streams as a cache has ways, all at the
    same offset, would push each other out of it. They are read-only like the iterator's blocks: one
    signature for the compiler.
    """
    rows = np.empty((len(inputs), size + STAGGER))
    for row, scalar in zip(rows, inputs, strict=True):
        row[:] = scalar if scalar.ndim == 0 else 0.0
    rows.flags.writeable = False
    return [row[:size] if x.ndim == 0 else None for row, x in zip(rows, inputs, strict=True)]


def _on_device(name: str, arguments: Arguments) -> Any:
    xp = arguments.namespace
    result = array_api.bind_namespace(xp)[name](*arguments.values.values())
    dtype = xp.float32 if arguments.float32 else xp.float64
    if isinstance(result, tuple):
        return tuple(xp.astype(value, dtype) for value in result)
    return xp.astype(result, dtype)
