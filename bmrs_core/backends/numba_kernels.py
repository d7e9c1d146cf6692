"""The formulas compiled by Numba: loops over contiguous float64 blocks.

One loop evaluates the common text, as a rule of every element, in SIMD; the elements of another regime
are gathered, so that the loop over their text is SIMD, too. Of a partitioned formula, so are all.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types as numba_types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

from bmrs_core.backends.clone import clone_formulas, scalar_constants
from bmrs_core.backends.disk_cache import cached_njit
from bmrs_core.backends.formula import FORMULAS
from bmrs_core.backends.inner import WITHOUT_WRAPPERS, njit_inner
from bmrs_core.backends.numba_elementary import ELEMENTARY, FAST
from bmrs_core.formulas.constants import FLOAT64_RULES

__all__ = ["BLOCK", "compiled_texts", "kernels", "numba_functions", "workspace"]

BLOCK = 8192
"""Elements per call of a loop: seven arrays of them fit a 512 KiB second-level cache."""

# A sum over nodes may be taken in any order: SIMD over the nodes of one element.
SUMMING: dict[str, Any] = {**FAST, "fastmath": {"contract", "reassoc", "nsz"}}

# Elements whose places are listed at a time: five numbers up to theirs fit a word of 64 bits.
RUN = 4095
RUN_BITS = np.uint64(12)
RUN_MASK = np.uint64(RUN)

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
def vectorized(_context: Any) -> Any:
    """Let the function that calls this compute in the widest vectors there are, and keep them aligned.

    LLVM would take half of them on Intel's processors, for the sake of code beside it that early ones with
    512 bits slowed down. And it finds out too late that it will spill vectors: on a stack aligned to 16 bytes
    most of them would lie across two cache lines.
    """

    def generate(context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        attributes = builder.function.attributes
        # Of llvmlite's own it is no known one, but any text is written.
        set.add(attributes, '"prefer-vector-width"="512"')
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


@njit_inner(error_model="numpy", nogil=True)
def gather(source: Any, places: Any, room: Any) -> None:
    """Copy some elements; a function of its own, so that the loop is over arrays, not members of tuples."""
    for j in range(places.size):
        room[j] = source[places[j]]


@njit_inner(error_model="numpy", nogil=True)
def scatter(source: Any, places: Any, target: Any) -> None:
    """Copy elements to their places."""
    for j in range(places.size):
        target[places[j]] = source[j]


@njit_inner(error_model="numpy", nogil=True)
def list_places(parts: Any, places: Any, counts: Any) -> None:
    """List the places of the elements of each part in its row, and count them.

    The five counts of a run are one word: adding to one of them is neither a branch nor a detour through
    the memory.
    """
    flat = places.ravel()
    heads = np.arange(counts.size).astype(np.uint64) * np.uint64(places.shape[1])
    for start in range(0, parts.size, RUN):
        run = parts[start : start + RUN]
        word = np.uint64(0)
        for i in range(run.size):
            part = np.uint64(run[i])
            shift = part * RUN_BITS
            flat[heads[part] + ((word >> shift) & RUN_MASK)] = np.uint64(start + i)
            word += np.uint64(1) << shift
        for k in range(counts.size):
            count = (word >> (np.uint64(k) * RUN_BITS)) & RUN_MASK
            heads[k] += count
            counts[k] += count


def _one_output(inputs: Any, outputs: Any, _workspace: Any) -> None:
    vectorized()
    out = outputs[0]
    for i in range(out.size):
        out[i] = text(*at(inputs, i))  # type: ignore[name-defined]  # noqa: F821
    interleave()


def _two_outputs(inputs: Any, outputs: Any, _workspace: Any) -> None:
    vectorized()
    for i in range(outputs[0].size):
        outputs[0][i], outputs[1][i] = text(*at(inputs, i))  # type: ignore[name-defined]  # noqa: F821


def _three_outputs(inputs: Any, outputs: Any, _workspace: Any) -> None:
    vectorized()
    for i in range(outputs[0].size):
        outputs[0][i], outputs[1][i], outputs[2][i] = text(*at(inputs, i))  # type: ignore[name-defined]  # noqa: F821


def _at_places(inputs: Any, out: Any, workspace: Any, places: Any) -> None:
    """Evaluate a text at some places: gathered, so that the loop over them is SIMD."""
    gathered, varying = workspace
    for k in varying:
        gather(inputs[k], places, gathered[k])
    result = np.empty(places.size)
    evaluate(gathered, (result,), ())  # type: ignore[name-defined]  # noqa: F821
    scatter(result, places, out)


def _places_in(inputs: Any, places: Any) -> Any:
    """List the places of a regime's elements, of which `places` has one more than there are; count them."""
    vectorized()
    size = places.size - 1
    flags = np.empty(size, np.uint8)
    for i in range(size):
        flags[i] = is_in(*at(inputs, i))  # type: ignore[name-defined]  # noqa: F821
    count = 0
    for i in range(size):
        places[count] = i
        count += flags[i]
    return count


def _partitioned(inputs: Any, outputs: Any, workspace: Any) -> None:
    """Evaluate five texts, each on its elements alone: one pass tells whose every element is."""
    vectorized()
    out = outputs[0]
    parts = np.empty(out.size, np.uint8)
    for i in range(out.size):
        x = at(inputs, i)
        part = 1.0 if is_1(*x) else 0.0  # type: ignore[name-defined]  # noqa: F821
        part = 2.0 if is_2(*x) else part  # type: ignore[name-defined]  # noqa: F821
        part = 3.0 if is_3(*x) else part  # type: ignore[name-defined]  # noqa: F821
        parts[i] = 4.0 if is_4(*x) else part  # type: ignore[name-defined]  # noqa: F821
    places = np.empty((5, out.size), np.uint32)
    counts = np.zeros(5, np.uint64)
    list_places(parts, places, counts)
    at_0(inputs, out, workspace, places[0, : counts[0]])  # type: ignore[name-defined]  # noqa: F821
    at_1(inputs, out, workspace, places[1, : counts[1]])  # type: ignore[name-defined]  # noqa: F821
    at_2(inputs, out, workspace, places[2, : counts[2]])  # type: ignore[name-defined]  # noqa: F821
    at_3(inputs, out, workspace, places[3, : counts[3]])  # type: ignore[name-defined]  # noqa: F821
    at_4(inputs, out, workspace, places[4, : counts[4]])  # type: ignore[name-defined]  # noqa: F821


@functools.cache
def compiled_texts() -> dict[str, Any]:
    """Return every formula by name as a Numba function of float64, inlined into whatever calls it."""
    rules = {
        name: np.array(value) if isinstance(value, tuple) else value for name, value in FLOAT64_RULES.items()
    }

    def decorate(text: Any) -> Any:
        return njit_inner(**(SUMMING if text.sums_over_nodes else FAST))(text)

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
    evaluates the common text, every other that of a regime; a partitioned formula has one loop. Machine
    code is kept on disk (`disk_cache`).
    """
    formula = FORMULAS[name]
    texts = compiled_texts()
    if formula.partitioned:
        parts = ("common", *formula.regimes, *formula.shortcuts)
        calls = {f"at_{i}": _at_places_of(name, part, inner=True) for i, part in enumerate(parts)}
        calls |= {f"is_{i}": texts[f"{name}_is_{part}"] for i, part in enumerate(parts) if i > 0}
        return (_compiled(_partitioned, f"{name}_partitioned", calls),)
    loop = {1: _one_output, 2: _two_outputs, 3: _three_outputs}[formula.outputs]
    loops = [_compiled(loop, formula.base, {"text": texts[formula.base]})]
    for regime in formula.regimes:
        find = _compiled(_places_in, f"{name}_{regime}_places", {"is_in": texts[f"{name}_is_{regime}"]})
        loops.append(_RegimeLoop(find, _at_places_of(name, regime)))
    return tuple(loops)


class _RegimeLoop:
    """Evaluate a regime's text on its elements alone; as long as there are none it isn't compiled."""

    def __init__(self, find: Callable[..., int], evaluate_at: Callable[..., None]) -> None:
        self.find = find
        self.evaluate_at = evaluate_at

    def __call__(self, inputs: Any, outputs: Any, workspace: Any) -> None:
        out = outputs[0]
        places = np.empty(out.size + 1, np.uint32)
        count = self.find(inputs, places)
        if count > 0:
            self.evaluate_at(inputs, out, workspace, places[:count])


def numba_functions(name: str) -> tuple[Any, ...]:
    """Return the Numba functions that the loops of a formula call, each compiled when it is first called."""
    found: list[Any] = []
    for loop in kernels(name):
        found += [loop.find, loop.evaluate_at] if isinstance(loop, _RegimeLoop) else [loop]
    return tuple(found)


def _at_places_of(name: str, regime: str, *, inner: bool = False) -> Loop:
    text = f"{name}_{regime}"
    evaluate = _compiled(_one_output, text, {"text": compiled_texts()[text]}, inner=True)
    return _compiled(_at_places, f"{text}_at", {"evaluate": evaluate}, inner=inner)


def _compiled(loop: Loop, name: str, calls: dict[str, Any], *, inner: bool = False) -> Any:
    namespace = {
        "__name__": __name__,
        "np": np,
        "at": at,
        "vectorized": vectorized,
        "gather": gather,
        "list_places": list_places,
        "scatter": scatter,
        "interleave": interleave,
        "range": range,
        **calls,
    }
    clone = types.FunctionType(loop.__code__, namespace, name)
    clone.__module__ = __name__
    clone.__qualname__ = name
    options: dict[str, Any] = WITHOUT_WRAPPERS if inner else {"no_cfunc_wrapper": True}
    return cached_njit(clone, nogil=True, error_model="numpy", **options)
