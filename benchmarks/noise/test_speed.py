"""The rivals under pytest-benchmark: ``pytest benchmarks/noise --benchmark-enable``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.measuring import allocator
from benchmarks.noise.measurement import check
from benchmarks.noise.problem import Problem
from benchmarks.noise.variant import COPY, DROPOUT, HOISTED, NAIVE, OURS, copy_variant

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

PROBLEMS = (Problem("rows", (128, 150)), Problem("elements", (32, 16, 14, 14)), Problem("kl", (8, 100)))


@pytest.mark.parametrize("rival", [COPY, OURS, NAIVE, HOISTED, DROPOUT])
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda one: one.op)
def test_forward_and_backward(benchmark: BenchmarkFixture, problem: Problem, rival: str) -> None:
    """Time one rival, after its result was verified."""
    ready, left_out = check(problem, with_compiled=False)
    ready[COPY] = copy_variant(problem.elements_read_and_written, problem.torch_dtype, problem.device)
    if rival not in ready:
        pytest.skip(left_out.get(rival, f"{rival} has no part in {problem.op}"))
    benchmark.group = f"{problem.title}, forward and backward"
    variant = ready[rival]
    with allocator.freed_memory_kept():
        benchmark.pedantic(lambda: variant.backward(variant.forward()), rounds=20, warmup_rounds=3)
