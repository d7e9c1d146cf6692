"""What a network costs: parameters, multiply-accumulates, bytes on disk, time; and how good it is."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.demo.data import ImageData
from benchmarks.demo.network import LeNet5, count_macs, count_parameters, save_network
from benchmarks.demo.training import evaluate

LATENCY_BATCH = 32
_WARM_UP, _REPETITIONS = 10, 100


@dataclass(frozen=True)
class Measurement:
    """One network, measured."""

    parameters: int
    macs: int
    file_bytes: int
    latency_ms: float
    accuracy: float


def measure(model: LeNet5, data: ImageData, path: Path) -> Measurement:
    """Save a network to `path` and measure it."""
    model.eval()
    save_network(model, path)
    return Measurement(
        count_parameters(model),
        count_macs(model, data.test_images),
        path.stat().st_size,
        _latency_ms(model, data.test_images[:LATENCY_BATCH]),
        evaluate(model, data),
    )


@torch.no_grad()
def _latency_ms(model: LeNet5, images: Tensor) -> float:
    """Median time of a forward pass."""
    times = []
    for _ in range(_WARM_UP + _REPETITIONS):
        started = time.perf_counter()
        model(images)
        times.append(time.perf_counter() - started)
    return 1e3 * statistics.median(times[_WARM_UP:])
