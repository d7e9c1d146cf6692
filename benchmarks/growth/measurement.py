"""Networks of many layers, or of many structures in one, and what each thing done to them takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import log
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bmrs_torch import compact, insert_noise, noise_layers, prune, report

T = TypeVar("T")

WIDTH = 8
"""Structures of each of many layers."""
INPUTS = 4
BATCH = 4
STAGES = ("insert_noise", "prune", "compact", "report")


@dataclass(frozen=True)
class Size:
    """One network: its layers with noise, and the structures of each."""

    layers: int
    structures: int

    def __str__(self) -> str:
        return f"{self.layers:,} × {self.structures:,}"


LAYERS = (Size(10, WIDTH), Size(100, WIDTH), Size(1000, WIDTH))
STRUCTURES = (Size(1, 10_000), Size(1, 100_000), Size(1, 1_000_000))
BOTH = (Size(1000, WIDTH), Size(1000, 100))


@dataclass(frozen=True)
class Growth:
    """Seconds of the processor for each stage on one network."""

    size: Size
    seconds: dict[str, float]

    def record(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)


def network(size: Size) -> nn.Sequential:
    """Build a chain of linear layers with ReLU between."""
    widths = [INPUTS, *[size.structures] * size.layers]
    hidden = [part for given, made in pairwise(widths) for part in (nn.Linear(given, made), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(size.structures, INPUTS))


def measure(size: Size) -> Growth:
    """Put noise on a network, let half of its structures go, cut them out and compare; time each."""
    torch.manual_seed(0)
    plain, x = network(size), torch.randn(BATCH, INPUTS)
    seconds: dict[str, float] = {}

    def timed(stage: str, call: Callable[[], T]) -> T:
        start = time.process_time()
        result = call()
        seconds[stage] = time.process_time() - start
        return result

    model = timed("insert_noise", lambda: insert_noise(plain, x))
    _learn(model)
    timed("prune", lambda: str(prune(model, criterion="bmrs_u")))
    smaller = timed("compact", lambda: compact(model, x))
    timed("report", lambda: _reported(model, smaller, x))
    return Growth(size, seconds)


def _learn(model: nn.Module) -> None:
    """Noise as of a trained network: every other structure is not needed."""
    with torch.no_grad():
        for layer in noise_layers(model).values():
            layer.mu[::2] = -8.0
            layer.log_sigma.fill_(-1.0)


def _reported(model: nn.Module, smaller: nn.Module, x: Tensor) -> str:
    # What it times, the passes themselves, goes on for as long as it is told to.
    return str(report(model, smaller, x, seconds=1e-3))


def exponent(small: Growth, large: Growth, stage: str) -> float:
    """By which power of its size a stage has grown from one network to the next."""
    factor = (large.size.layers * large.size.structures) / (small.size.layers * small.size.structures)
    return log(large.seconds[stage] / small.seconds[stage]) / log(factor)
