"""The training steps under pytest-benchmark: ``pytest benchmarks/training_step --benchmark-enable``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from benchmarks.training_step.measurement import wrong
from benchmarks.training_step.networks import NETWORKS
from benchmarks.training_step.steps import VARIANTS, WITHOUT, Adam, make_step

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("key", ["mlp-7x100", "lenet5-1"])
def test_training_step(benchmark: BenchmarkFixture, key: str, variant: str) -> None:
    """Time the step of one variant, after it was found to train like the network without noise."""
    about = (NETWORKS[key], Adam(), 0, torch.device("cpu"))
    if variant != WITHOUT:
        assert wrong(make_step(variant, *about), make_step(WITHOUT, *about)) is None
    step = make_step(variant, *about)
    benchmark.group = f"training step, {NETWORKS[key].title}, batch of 32"
    benchmark.pedantic(lambda: step.backward(step.forward()), rounds=20, warmup_rounds=3)
