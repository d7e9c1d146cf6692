"""The rivals under pytest-benchmark: ``pytest benchmarks/arrays --benchmark-enable``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks.arrays import speed

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

SIZE = 1_000_000


@pytest.mark.parametrize("rival", ["ours", "scipy", "printed"])
@pytest.mark.parametrize("name", speed.FUNCTIONS)
def test_million_elements(benchmark: BenchmarkFixture, name: str, rival: str) -> None:
    """Time one rival on one function, after its result was verified."""
    benchmark.group = f"{name}, {SIZE:,} float64"
    rivals = speed.calls(name, *speed.arguments(SIZE))
    with np.errstate(all="ignore"):
        speed.check_agreement(name, rivals["ours"](), rivals["scipy"]())
        benchmark.pedantic(rivals[rival], rounds=5, warmup_rounds=1)
