"""One measurement in a process of its own: ``python -m benchmarks.zoo.child WHO SEED NAME`` prints JSON."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
import warnings
from dataclasses import asdict
from typing import Any

BMRS, TORCH_PRUNING = "bmrs", "torch_pruning"
LONGEST = 240
"""Characters of an error that are kept."""


def measured(who: str, name: str, *, seed: int, seconds: float) -> dict[str, Any]:
    """Measure in a child process; what goes wrong there, too slow included, is the entry "error".

    Parameters
    ----------
    who : {"bmrs", "torch_pruning"}
        Which of the two.
    name : str
        Of the architecture.
    seed : int
        Of everything random.
    seconds : float
        After which the child is stopped.
    """
    command = [sys.executable, "-m", "benchmarks.zoo.child", who, str(seed), name]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"stopped after {seconds:g} s"}
    lines = finished.stdout.splitlines()
    if finished.returncode or not lines:
        told = finished.stderr.strip().splitlines() or ["nothing was said"]
        return {"error": one_line(f"the process ended with status {finished.returncode}: {told[-1]}")}
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def one_line(text: str) -> str:
    """The beginning of a text, without line breaks."""
    flat = " ".join(text.split())
    return flat if len(flat) <= LONGEST else flat[: LONGEST - 1] + "…"


def main(who: str, seed: int, name: str) -> dict[str, Any]:
    """Measure here."""
    import torch

    from benchmarks.zoo.measurement import StageError, measure
    from benchmarks.zoo.rival import measure_rival

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    started = time.perf_counter()
    try:
        found = asdict(measure(name, seed=seed) if who == BMRS else measure_rival(name, seed=seed))
    except StageError as error:
        found = {"error": one_line(str(error))}
    return {**found, "whole_seconds": time.perf_counter() - started}


if __name__ == "__main__":
    print("\n" + json.dumps(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]), ensure_ascii=False))
