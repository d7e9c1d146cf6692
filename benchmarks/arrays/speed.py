"""Nanoseconds per element on one core, beside a stable SciPy composition and the formulas as printed.

All rivals take turns within each round, so that a machine that slows down slows them all; only ratios are
worth quoting.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bmrs_core
from benchmarks.arrays import naive, scipy_reference
from benchmarks.measuring.machine import one_core, processor, processor_kind, processor_model
from benchmarks.measuring.source import commit
from benchmarks.measuring.turns import take_turns

Array = NDArray[np.float64]

FUNCTIONS = ("log_normalizer", "kl_divergence", "mean", "quantile", "delta_f_normal", "delta_f_uniform")
# Relative, and for logarithms absolute where they are below 1. The SciPy composition is the worse of the two:
# its quantile, from ndtri_exp far out, reaches 2e-11 on the reference tables; all else 3e-14.
AGREEMENT = 1e-10


@dataclass(frozen=True)
class ArrayTiming:
    """One function's times in nanoseconds per element, fastest and median round of each rival."""

    function: str
    ours: float
    ours_median: float
    scipy: float
    scipy_median: float
    printed: float
    printed_median: float

    @property
    def over_scipy(self) -> float:
        """How many times faster than the SciPy composition, by medians."""
        return self.scipy_median / self.ours_median

    @property
    def over_printed(self) -> float:
        """How many times faster than the formulas as printed, by medians."""
        return self.printed_median / self.ours_median

    def record(self) -> dict[str, float | str]:
        """All of it as plain values, the ratios too."""
        return asdict(self) | {"over_scipy": self.over_scipy, "over_printed": self.over_printed}


def arguments(size: int) -> tuple[Array, Array, Array]:
    """Draw u, μ and σ from what a noise layer can reach."""
    rng = np.random.default_rng(20260)
    return rng.random(size), rng.uniform(-40.0, 20.0, size), np.exp(rng.uniform(-20.0, 5.0, size))


def check_agreement(name: str, found: Array, expected: Array) -> None:
    """Refuse to time a function whose results differ from the second opinion's."""
    scale = np.abs(expected) if name in ("mean", "quantile") else np.maximum(1.0, np.abs(expected))
    worst = float(np.max(np.abs(found - expected) / scale))
    if not worst <= AGREEMENT:
        raise RuntimeError(
            f"bmrs_core.{name} and its SciPy composition differ by {worst:.1e}, more than {AGREEMENT:.0e}: "
            "a time for a wrong result says nothing"
        )


def calls(name: str, u: Array, mu: Array, sigma: Array) -> dict[str, Callable[[], Any]]:
    """Bind each rival's function to the same arguments."""
    inputs = (u, mu, sigma) if name == "quantile" else (mu, sigma)
    return {
        "ours": partial(getattr(bmrs_core, name), *inputs),
        "scipy": partial(getattr(scipy_reference, name), *inputs),
        "printed": partial(getattr(naive, name), *inputs),
    }


def seconds(call: Callable[[], Any]) -> float:
    """Time the fastest of three calls in a row: a rival has pushed the first one's data out of the caches."""

    def once() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return min(once() for _ in range(3))


def measure(name: str, size: int, rounds: int) -> ArrayTiming:
    """Verify, then time the rivals in turn, after one round that is thrown away."""
    rivals = calls(name, *arguments(size))
    with np.errstate(all="ignore"):
        check_agreement(name, rivals["ours"](), rivals["scipy"]())
        taken = take_turns({rival: partial(seconds, call) for rival, call in rivals.items()}, rounds=rounds)
    times = {
        rival + suffix: 1e9 * reduce(turns) / size
        for rival, turns in taken.items()
        for suffix, reduce in (("", min), ("_median", statistics.median))
    }
    return ArrayTiming(name, **times)


def in_a_new_process(code: str) -> float:
    """Run code that prints a number in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout)


TIMER = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
IMPORT = TIMER.format("import bmrs_core")
FIRST_CALL = "import bmrs_core; " + TIMER.format("bmrs_core.delta_f_normal(-3.0, 0.5)")


def start_up() -> dict[str, float]:
    """Seconds to import the package, NumPy alone, and to make the first call with a filled cache."""
    in_a_new_process(FIRST_CALL)  # compiles, if this machine has not yet
    return {
        "import": min(in_a_new_process(IMPORT) for _ in range(3)),
        "import_numpy": min(in_a_new_process(TIMER.format("import numpy")) for _ in range(3)),
        "first_call": min(in_a_new_process(FIRST_CALL) for _ in range(3)),
    }


def versions() -> str:
    """Say what was timed, on what."""
    packages = " ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "numba"))
    return f"{processor()}, Python {platform.python_version()}, {packages}"


def table(timings: list[ArrayTiming]) -> list[str]:
    """Format the measurements, below 120 columns."""
    head = f"{'ns per element, median (fastest)':33}{'bmrs_core':>15}{'SciPy, stable':>17}{'as printed':>17}"
    rows = [f"{head}{'× SciPy':>11}{'× printed':>11}"]
    for one in timings:
        cells = (
            f"{one.ours_median:7.1f} ({one.ours:5.1f})",
            f"{one.scipy_median:7.1f} ({one.scipy:5.1f})",
            f"{one.printed_median:7.1f} ({one.printed:5.1f})",
        )
        rows.append(
            f"{one.function:33}{cells[0]:>15}{cells[1]:>17}{cells[2]:>17}"
            f"{one.over_scipy:>11.1f}{one.over_printed:>11.1f}"
        )
    return rows


RESULTS = Path(__file__).resolve().parent.parent / "results"


def record_file() -> Path:
    """Where the record of this kind of processor is kept."""
    return RESULTS / f"arrays_speed_{processor_kind()}.json"


def main(size: int, rounds: int, json_file: Path | None) -> None:
    """Measure, print and, if asked, write JSON."""
    print(f"{versions()}\n{processor_model()}")
    print(f"{size:,} elements, float64, μ in [−40, 20], log σ in [−20, 5]; one core, {rounds} rounds")
    print("Every result was first found to agree with the SciPy composition's to 1e-10.\n")
    with one_core():
        timings = [measure(name, size, rounds) for name in FUNCTIONS]
        print("\n".join(table(timings)))
        starting = start_up()
    print(
        f"\nimport bmrs_core {starting['import']:.3f} s (NumPy alone {starting['import_numpy']:.3f} s); "
        f"first call in a new process {starting['first_call']:.3f} s"
    )
    if json_file is not None:
        record = {
            "commit": commit(),
            "machine": versions(),
            "processor_model": processor_model(),
            "size": size,
            "rounds": rounds,
            "timings": [one.record() for one in timings],
            "start_up_seconds": starting,
        }
        json_file.write_text(json.dumps(record, indent=2) + "\n")
