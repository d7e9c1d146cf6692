"""Measuring what Tables 3 and 4 hold: batches of 32 images, the network as it is before it is pruned.

On one thread of the processor, by the time that the processor spent on it: what else runs on the machine may
slow a step down, but isn't counted.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.measuring.keeping import replace
from benchmarks.measuring.options import limited_threads
from benchmarks.measuring.turns import take_turns
from benchmarks.paper.data import LARGE_SIZE, SMALL_SIZE
from benchmarks.paper.experiments import Run, experiments, settings
from benchmarks.paper.networks import LARGE, RANDOM, build
from benchmarks.paper.times import FILE
from bmrs_torch import elbo_loss

BATCH = 32
_CLASSES = {"tiny_imagenet": 200}
_COLOURED = ("cifar10", "tiny_imagenet")
_WITHOUT, _WITH = "none", "bmrs_n"


def measure(networks: Sequence[str], seconds: float, results: Path, made: Mapping[str, Any]) -> None:
    """Measure networks on all their data sets' sizes and write the times beside the results.

    Parameters
    ----------
    networks : sequence of str
        By their names in ``experiments.json``.
    seconds : float
        For each network and data set.
    results : Path
        The folder of the results.
    made : mapping
        Command, commit, machine and versions.
    """
    rows = []
    with limited_threads(1):
        for network in networks:
            for dataset in experiments()["networks"][network]:
                if dataset != "mnist_5000":  # as MNIST
                    rows.append(_measured(network, dataset, seconds))
                    print(f"{network}, {dataset}: {rows[-1]}", flush=True)
    results.mkdir(parents=True, exist_ok=True)
    replace(results / FILE, json.dumps({"batch": BATCH, "rows": rows, "made": dict(made)}, indent=1) + "\n")


def _measured(network: str, dataset: str, seconds: float) -> dict[str, Any]:
    size = LARGE_SIZE if network in LARGE else SMALL_SIZE
    image = (3 if dataset in _COLOURED else 1, size, size)
    classes = _CLASSES.get(dataset, 10)
    inputs, labels = torch.rand(BATCH, *image), torch.randint(classes, (BATCH,))
    steps: dict[str, Callable[[], float]] = {}
    answers: dict[str, Callable[[], float]] = {}
    for name in (_WITHOUT, _WITH):
        known = settings(Run(dataset, network, name, 0), {"weights": RANDOM})
        steps[name], answers[name] = _timers(known, image, classes, inputs, labels)
    found = {"training": take_turns(steps, seconds=seconds / 2)}
    found["inference"] = take_turns(answers, seconds=seconds / 2)
    return {"network": network, "dataset": dataset, **{name: _summary(t) for name, t in found.items()}}


def _timers(
    known: Mapping[str, Any],
    image: tuple[int, int, int],
    classes: int,
    inputs: torch.Tensor,
    labels: torch.Tensor,
) -> tuple[Callable[[], float], Callable[[], float]]:
    model = build(known, image, classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=known["lr"], fused=True)
    noisy = known["method"] != _WITHOUT

    def step() -> float:
        model.train()
        started = time.thread_time()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), labels)
        if noisy:
            loss = elbo_loss(loss, model, num_samples=len(labels), kl_scale="published")
        loss.backward()
        optimizer.step()
        return time.thread_time() - started

    @torch.no_grad()
    def answer() -> float:
        model.eval()
        started = time.thread_time()
        model(inputs)
        return time.thread_time() - started

    return step, answer


def _summary(taken: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Medians in ms and the median of the ratios of turns taken one after the other."""
    ratios = [b / a for a, b in zip(taken[_WITHOUT], taken[_WITH], strict=True)]
    return {
        "without_ms": round(1000 * statistics.median(taken[_WITHOUT]), 4),
        "with_ms": round(1000 * statistics.median(taken[_WITH]), 4),
        "ratio": round(statistics.median(ratios), 3),
    }
