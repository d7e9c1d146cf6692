"""The formulas compiled by Numba: loops over contiguous float64 blocks.

One loop evaluates the common text, as a rule of every element, in SIMD; the elements of another regime
are gathered, so that the loop over their text is SIMD, too.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numba import types as numba_types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

from bmrs_core.backends import numba_elementary
from bmrs_core.backends.clone import clone_formulas, scalar_constants, source_digest
from bmrs_core.backends.formula import FORMULAS
from bmrs_core.backends.numba_elementary import ELEMENTARY, FAST
from bmrs_core.formulas.constants import FLOAT64_RULES

__all__ = ["BLOCK", "compiled_texts", "kernels", "workspace"]

BLOCK = 8192
"""Elements per call of a loop: seven arrays of them fit a 512 KiB second-level cache."""

# A sum over nodes may be taken in any order: SIMD over the nodes of one element.
SUMMING: dict[str, Any] = {**FAST, "fastmath": {"contract", "reassoc", "nsz"}}

Loop = Callable[..., None]


def at(arrays: tuple[Any, ...], i: int) -> tuple[float, ...]:
    """Return the i-th element of each array; inside a kernel only."""
    return tuple(array[i] for array in arrays)


@overload(at, jit_options={"forceinline": True, "error_model": "numpy"})
def _at(arrays, i):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
    # Numba compares the signature with the lambdas', which can carry no annotations.
    return {
        2: lambda arrays, i: (arrays[0][i], arrays[1][i]),
        3: lambda arrays, i: (arrays[0][i], arrays[1][i], arrays[2][i]),
        4: lambda arrays, i: (arrays[0][i], arrays[1][i], arrays[2][i], arrays[3][i]),
        5: lambda arrays, i: (arrays[0][i], arrays[1][i], arrays[2][i], arrays[3][i], arrays[4][i]),
        6: lambda arrays, i: (
            arrays[0][i],
            arrays[1][i],
            arrays[2][i],
            arrays[3][i],
            arrays[4][i],
            arrays[5][i],
        ),
        9: lambda arrays, i: (
            arrays[0][i],
            arrays[1][i],
            arrays[2][i],
            arrays[3][i],
            arrays[4][i],
            arrays[5][i],
            arrays[6][i],
            arrays[7][i],
            arrays[8][i],
        ),
    }[len(arrays)]


@intrinsic
def align_stack(_context: Any) -> Any:
    """Let the function that calls this keep what its registers cannot hold at multiples of 64 bytes.

    LLVM finds out too late that it will spill vectors: on a stack aligned to 16 bytes most of them would lie
    across two cache lines.
    """

    def generate(context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        attributes = builder.function.attributes
        attributes.add("nounwind")  # llvmlite writes none of a function that has no simple one
        attributes.alignstack = 64
        return context.get_dummy_value()

    return numba_types.none(), generate


@intrinsic
def interleave(_context: Any) -> Any:
    """Let the function that calls this after its loop compute two vectors at a time in it.

    A text is a long chain of operations that wait for each other, and a processor looks ahead less than
    the length of one.
    """

    def generate(context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        module = builder.module
        two = context.get_constant(numba_types.int32, 2)
        count = module.add_metadata(["llvm.loop.interleave.count", two])
        loop = module.add_metadata([count])
        loop.operands = (loop, count)  # LLVM knows a loop's properties by a list that starts with itself
        blocks = builder.function.blocks
        for i, block in enumerate(blocks):
            last = block.terminator
            if last is not None and last.opname == "br" and last.operands[-1] in blocks[:i]:
                last.set_metadata("llvm.loop", loop)
        return context.get_dummy_value()

    return numba_types.none(), generate


@njit(error_model="numpy", nogil=True)
def gather(source: Any, places: Any, room: Any) -> None:
    """Copy some elements; a function of its own, so that the loop is over arrays, not members of tuples."""
    for j in range(places.size):
        room[j] = source[places[j]]


def _one_output(inputs: Any, outputs: Any, _workspace: Any) -> None:
    align_stack()
    out = outputs[0]
    for i in range(out.size):
        out[i] = text(*at(inputs, i))  # type: ignore[name-defined]  # noqa: F821
    interleave()


def _two_outputs(inputs: Any, outputs: Any, _workspace: Any) -> None:
    align_stack()
    for i in range(outputs[0].size):
        outputs[0][i], outputs[1][i] = text(*at(inputs, i))  # type: ignore[name-defined]  # noqa: F821


def _three_outputs(inputs: Any, outputs: Any, _workspace: Any) -> None:
    align_stack()
    for i in range(outputs[0].size):
        outputs[0][i], outputs[1][i], outputs[2][i] = text(*at(inputs, i))  # type: ignore[name-defined]  # noqa: F821


def _regime(inputs: Any, outputs: Any, workspace: Any) -> None:
    """Evaluate a regime's text on its elements alone: gathered, so that the loop over them is SIMD."""
    align_stack()
    out = outputs[0]
    gathered, varying = workspace
    flags = np.empty(out.size, np.uint8)
    for i in range(out.size):
        flags[i] = is_in(*at(inputs, i))  # type: ignore[name-defined]  # noqa: F821
    places = np.empty(out.size + 1, np.uint32)
    count = 0
    for i in range(out.size):
        places[count] = i
        count += flags[i]
    for k in varying:
        gather(inputs[k], places[:count], gathered[k])
    result = np.empty(count)
    evaluate(gathered, (result,), ())  # type: ignore[name-defined]  # noqa: F821
    for j in range(count):
        out[places[j]] = result[j]


@functools.cache
def compiled_texts() -> dict[str, Any]:
    """Return every formula by name as a Numba function of float64, inlined into whatever calls it."""
    rules = {
        name: np.array(value) if isinstance(value, tuple) else value for name, value in FLOAT64_RULES.items()
    }

    def decorate(text: Any) -> Any:
        return njit(**(SUMMING if text.sums_over_nodes else FAST))(text)

    return clone_formulas(ELEMENTARY, scalar_constants(), rules, decorate, __name__)


def workspace(name: str, inputs: tuple[NDArray[Any], ...], size: int) -> tuple[Any, ...]:
    """Return room for the inputs of the elements of one regime in a block, and which of them vary.

    The others are scalars, and there already.
    """
    if not FORMULAS[name].regimes:
        return ()
    gathered = tuple(np.empty(size) if x.ndim else np.full(size, x, np.float64) for x in inputs)
    return gathered, np.array([k for k, x in enumerate(inputs) if x.ndim], np.int64)


@functools.cache
def kernels(name: str) -> tuple[Loop, ...]:
    """Return the loops of a formula, to be called in turn with ``(inputs, outputs, workspace(...))``.

    Inputs and outputs are tuples of contiguous float64 arrays of one size <= `BLOCK`. The first loop
    evaluates the common text (of all elements, unless the formula is partitioned), every other that of a
    regime. Machine code is cached on disk under a name that contains a hash of all it was compiled from:
    it never outlives its source.
    """
    formula = FORMULAS[name]
    texts = compiled_texts()
    first = {1: _one_output, 2: _two_outputs, 3: _three_outputs}[formula.outputs]
    loops = [] if formula.partitioned else [_compiled(first, formula.base, {"text": texts[formula.base]})]
    for regime in ("common", *formula.regimes) if formula.partitioned else formula.regimes:
        evaluate = _compiled(_one_output, f"{name}_{regime}", {"text": texts[f"{name}_{regime}"]})
        calls = {"evaluate": evaluate, "is_in": texts[f"{name}_is_{regime}"]}
        loops.append(_compiled(_regime, f"{name}_{regime}_gathered", calls))
    return tuple(loops)


def _compiled(loop: Loop, name: str, calls: dict[str, Any]) -> Loop:
    namespace = {
        "__name__": __name__,
        "np": np,
        "at": at,
        "align_stack": align_stack,
        "gather": gather,
        "interleave": interleave,
        "range": range,
        **calls,
    }
    clone = types.FunctionType(loop.__code__, namespace, name)
    clone.__module__ = __name__
    clone.__qualname__ = f"{name}_{source_digest(sys.modules[__name__], numba_elementary)}"
    return njit(cache=True, nogil=True, error_model="numpy")(clone)
