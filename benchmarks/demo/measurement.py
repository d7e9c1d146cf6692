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
_WARM_UP, _REPETITIONS = 20, 200


@dataclass(frozen=True)
class Measurement:
    """One network, measured."""

    parameters: int
    macs: int
    file_bytes: int
    latency_ms: float
    accuracy: float


def measure(networks: dict[Path, LeNet5], data: ImageData) -> list[Measurement]:
    """Save each network to its path and measure it.

    Parameters
    ----------
    networks : dict of Path to LeNet5
        The networks, by the file to save each to.
    data : ImageData
        Images to test and time them on.

    Returns
    -------
    list of Measurement
        In the order of `networks`.
    """
    for path, model in networks.items():
        save_network(model.eval(), path)
    latencies = _latencies_ms(list(networks.values()), data.test_images[:LATENCY_BATCH])
    return [
        Measurement(
            count_parameters(model),
            count_macs(model, data.test_images),
            path.stat().st_size,
            latency,
            evaluate(model, data),
        )
        for (path, model), latency in zip(networks.items(), latencies, strict=True)
    ]


@torch.no_grad()
def _latencies_ms(models: list[LeNet5], images: Tensor) -> list[float]:
    """Median time of a forward pass of each model, taken in turns so that a busy moment hits all alike."""
    times: list[list[float]] = [[] for _ in models]
    for _ in range(_WARM_UP + _REPETITIONS):
        for model, own in zip(models, times, strict=True):
            started = time.perf_counter()
            model(images)
            own.append(time.perf_counter() - started)
    return [1e3 * statistics.median(own[_WARM_UP:]) for own in times]
