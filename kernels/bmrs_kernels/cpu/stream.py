"""Float32 results too large for any cache, written past the caches.

An ordinary store first reads the cache line it writes to: a third of the traffic of y = x theta, a quarter of
the backward pass's. LLVM's vectoriser makes no non-temporal stores of elements, so these loops are
written in vectors of 16, which LLVM cuts to what a processor has.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bmrs_core.backends.inner import njit_inner
from bmrs_core.backends.numba_elementary import FAST
from bmrs_kernels.cpu.multiply import scalar_backward, scalar_forward, vector_backward, vector_forward

__all__ = ["LOOPS", "fence"]

LANES = 16
BYTES = 64
ACCUMULATORS = 4
STRETCH = 2048
_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
_INDEX = ir.IntType(64)


class _Emitter:
    """Loads and stores vectors of the arrays of one call."""

    def __init__(self, context: Any, builder: Any, signature: Any) -> None:
        self._context, self.builder, self._signature = context, builder, signature
        self._once = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])

    def data(self, position: int, value: Any) -> Any:
        """The address of an array argument's data."""
        array = cgutils.create_struct_proxy(self._signature.args[position])(
            self._context, self.builder, value
        )
        return array.data

    def load(self, data: Any, block: Any) -> Any:
        """The 16 numbers of a block, wherever they lie."""
        return self.builder.load(self._place(data, block), align=4)

    def store(self, value: Any, data: Any, block: Any) -> None:
        """Store a block where it stays in a cache, if it was in one."""
        self.builder.store(value, self._place(data, block), align=4)

    def stream(self, value: Any, data: Any, block: Any) -> None:
        """Store a block past the caches; it lies at a multiple of 64 bytes."""
        store = self.builder.store(value, self._place(data, block), align=BYTES)
        store.set_metadata("nontemporal", self._once)

    def splat(self, value: Any) -> Any:
        """A vector of one number."""
        first = self.builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, ir.Constant(_INDEX, 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return self.builder.shuffle_vector(first, ir.Constant(_VECTOR, ir.Undefined), zeros)

    def product(self, values: Any, scales: Any) -> Any:
        """Values times scales; 0 where the scale is, whatever the value."""
        zero = ir.Constant(_VECTOR, [0.0] * LANES)
        pruned = self.builder.fcmp_ordered("==", scales, zero)
        return self.builder.select(pruned, zero, self.builder.fmul(values, scales))

    def sum_of(self, left: Any, right: Any, total: Any) -> Any:
        """Return left right + total, fused where a processor can."""
        fused = ("contract",)
        return self.builder.fadd(self.builder.fmul(left, right, flags=fused), total, flags=fused)

    def _place(self, data: Any, block: Any) -> Any:
        offset = self.builder.mul(block, ir.Constant(_INDEX, LANES))
        return self.builder.bitcast(self.builder.gep(data, [offset]), _VECTOR.as_pointer())


@intrinsic
def fence(_context: Any) -> Any:
    """Make what was streamed visible to other threads."""

    def generate(context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.none(), generate


@intrinsic
def _scalar_forward(_context: Any, x: Any, y: Any, theta: Any, blocks: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = _Emitter(context, builder, signature)
        source, target, scale = emit.data(0, args[0]), emit.data(1, args[1]), emit.splat(args[2])
        with cgutils.for_range(builder, args[3], intp=_INDEX) as loop:
            emit.stream(builder.fmul(emit.load(source, loop.index), scale), target, loop.index)
        return context.get_dummy_value()

    return types.none(x, y, theta, types.int64), generate


@intrinsic
def _vector_forward(_context: Any, x: Any, y: Any, theta: Any, blocks: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = _Emitter(context, builder, signature)
        source, target, scales = (emit.data(i, args[i]) for i in range(3))
        with cgutils.for_range(builder, args[3], intp=_INDEX) as loop:
            product = emit.product(emit.load(source, loop.index), emit.load(scales, loop.index))
            emit.stream(product, target, loop.index)
        return context.get_dummy_value()

    return types.none(x, y, theta, types.int64), generate


@intrinsic
def _scalar_backward(_context: Any, dy: Any, x: Any, dx: Any, theta: Any, groups: Any) -> Any:  # noqa: ARG001
    """Groups of `ACCUMULATORS` blocks, so that a sum need not wait for the one before."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = _Emitter(context, builder, signature)
        gradient, source, target = (emit.data(i, args[i]) for i in range(3))
        scale = emit.splat(args[3])
        zero = ir.Constant(_VECTOR, [0.0] * LANES)
        sums = [cgutils.alloca_once_value(builder, zero) for _ in range(ACCUMULATORS)]
        with cgutils.for_range(builder, args[4], intp=_INDEX) as loop:
            first = builder.mul(loop.index, ir.Constant(_INDEX, ACCUMULATORS))
            for k, total in enumerate(sums):
                block = builder.add(first, ir.Constant(_INDEX, k))
                g = emit.load(gradient, block)
                emit.stream(builder.fmul(g, scale), target, block)
                builder.store(emit.sum_of(g, emit.load(source, block), builder.load(total)), total)
        left, right = (builder.fadd(builder.load(sums[i]), builder.load(sums[i + 1])) for i in (0, 2))
        lanes = builder.fadd(left, right)
        result = ir.Constant(_FLOAT, 0.0)
        for i in range(LANES):
            result = builder.fadd(result, builder.extract_element(lanes, ir.Constant(_INDEX, i)))
        return result

    return types.float32(dy, x, dx, theta, types.int64), generate


@intrinsic
def _vector_backward(_context: Any, dy: Any, x: Any, dx: Any, theta: Any, sums: Any, blocks: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = _Emitter(context, builder, signature)
        gradient, source, target, scales, totals = (emit.data(i, args[i]) for i in range(5))
        with cgutils.for_range(builder, args[5], intp=_INDEX) as loop:
            g = emit.load(gradient, loop.index)
            emit.stream(emit.product(g, emit.load(scales, loop.index)), target, loop.index)
            total = emit.sum_of(g, emit.load(source, loop.index), emit.load(totals, loop.index))
            emit.store(total, totals, loop.index)
        return context.get_dummy_value()

    return types.none(dy, x, dx, theta, sums, types.int64), generate


@njit_inner(**FAST)
def _head(target: Any) -> Any:
    """Elements before the first multiple of 64 bytes."""
    return min(((BYTES - target.ctypes.data % BYTES) % BYTES) // 4, target.size)


@njit_inner(**FAST)
def _stream_scalar_forward(x: Any, y: Any, theta: Any) -> None:
    """Y = x theta along one contiguous run with one theta."""
    head = _head(y)
    blocks = (y.size - head) // LANES
    tail = head + blocks * LANES
    for i in range(head):
        y[i] = x[i] * theta
    _scalar_forward(x[head:], y[head:], theta, blocks)
    for i in range(tail, y.size):
        y[i] = x[i] * theta


@njit_inner(**FAST)
def _stream_vector_forward(x: Any, y: Any, theta: Any) -> None:
    """Y = x theta along one contiguous run with a theta each."""
    head = _head(y)
    blocks = (y.size - head) // LANES
    tail = head + blocks * LANES
    for i in range(head):
        y[i] = x[i] * theta[i] if theta[i] != 0 else theta[i]
    _vector_forward(x[head:], y[head:], theta[head:], blocks)
    for i in range(tail, y.size):
        y[i] = x[i] * theta[i] if theta[i] != 0 else theta[i]


@njit_inner(**FAST)
def _stream_scalar_backward(dy: Any, x: Any, dx: Any, theta: Any) -> Any:
    """Dx = dy theta along one contiguous run with one theta; return the sum of dy x."""
    total = 0.0
    start = _head(dx)
    for i in range(start):
        dx[i] = dy[i] * theta
        total += dy[i] * x[i]
    while start < dx.size:
        stop = min(start + STRETCH, dx.size)
        groups = (stop - start) // (LANES * ACCUMULATORS)
        total += _scalar_backward(dy[start:stop], x[start:stop], dx[start:stop], theta, groups)
        for i in range(start + groups * LANES * ACCUMULATORS, stop):
            dx[i] = dy[i] * theta
            total += dy[i] * x[i]
        start = stop
    return total


@njit_inner(**FAST)
def _stream_vector_backward(dy: Any, x: Any, dx: Any, theta: Any, sums: Any) -> None:
    """Dx = dy theta along one contiguous run with a theta each; dy x is added to the sums."""
    head = _head(dx)
    blocks = (dx.size - head) // LANES
    tail = head + blocks * LANES
    for i in range(head):
        dx[i] = dy[i] * theta[i] if theta[i] != 0 else theta[i]
        sums[i] += dy[i] * x[i]
    _vector_backward(dy[head:], x[head:], dx[head:], theta[head:], sums[head:], blocks)
    for i in range(tail, dx.size):
        dx[i] = dy[i] * theta[i] if theta[i] != 0 else theta[i]
        sums[i] += dy[i] * x[i]


@njit_inner(**FAST)
def _either_scalar_forward(x: Any, y: Any, theta: Any, streamed: Any) -> None:
    if streamed and theta != 0:
        _stream_scalar_forward(x, y, theta)
    else:
        scalar_forward(x, y, theta)


@njit_inner(**FAST)
def _either_vector_forward(x: Any, y: Any, theta: Any, streamed: Any) -> None:
    if streamed:
        _stream_vector_forward(x, y, theta)
    else:
        vector_forward(x, y, theta)


@njit_inner(**FAST)
def _either_scalar_backward(dy: Any, x: Any, dx: Any, theta: Any, wanted: Any, streamed: Any) -> Any:
    if streamed and wanted and theta != 0:
        return _stream_scalar_backward(dy, x, dx, theta)
    return scalar_backward(dy, x, dx, theta, wanted)


@njit_inner(**FAST)
def _either_vector_backward(
    dy: Any, x: Any, dx: Any, theta: Any, sums: Any, wanted: Any, streamed: Any
) -> None:
    if streamed and wanted:
        _stream_vector_backward(dy, x, dx, theta, sums)
    else:
        vector_backward(dy, x, dx, theta, sums, wanted)


LOOPS: dict[str, Any] = {
    "vector_forward": _either_vector_forward,
    "scalar_forward": _either_scalar_forward,
    "vector_backward": _either_vector_backward,
    "scalar_backward": _either_scalar_backward,
}
"""The loops of `multiply` with one more argument: whether to write past the caches."""
