"""The command line of ``python -m benchmarks first-use``: from an empty cache to the first result."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring.machine import this_machine, versions
from benchmarks.noise.command import PACKAGES
from benchmarks.noise.record import run_record, write
from bmrs_torch.warm import DTYPES

FIRST_DELTA_F = (
    "import json, time; start = time.perf_counter(), time.process_time(); import bmrs_core; "
    "bmrs_core.delta_f_{}(-3.0, 0.5); print(json.dumps(dict(seconds=time.perf_counter() - start[0], "
    "processor_seconds=time.process_time() - start[1])))"
)


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and write what was asked for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks first-use", description=__doc__)
    parser.add_argument(
        "--dtype",
        action="append",
        choices=DTYPES,
        help="whose kernels are compiled one by one; may be repeated (default: float32)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements as JSON too")
    options = parser.parse_args(arguments)
    machine, installed = this_machine(), versions(*PACKAGES)
    print(f"{machine}\n" + ", ".join(f"{name} {number}" for name, number in installed.items()))
    measured = measure(options.dtype or ["float32"])
    print("\n".join(table(measured)))
    if options.json is not None:
        write(run_record(machine, installed, ["first-use", *arguments]) | measured, options.json)
    return 0


def measure(dtypes: Sequence[str]) -> dict[str, Any]:
    """Time the script with an empty and with a full cache, the first ΔF, and each kernel's compilation."""
    with tempfile.TemporaryDirectory() as folder:
        script = ["-m", "benchmarks.first_use.script"]
        empty, full = timed(script, folder), timed(script, folder)
    first = {}
    for formula in ("normal", "uniform"):
        with tempfile.TemporaryDirectory() as folder:
            first[formula] = timed(["-c", FIRST_DELTA_F.format(formula)], folder)
    with tempfile.TemporaryDirectory() as folder:
        kernels = timed(["-m", "benchmarks.first_use.kernels", *dtypes], folder)
    return {"empty_cache": empty, "full_cache": full, "first_delta_f": first, "kernels": kernels}


def timed(program: Sequence[str], cache: str) -> Any:
    """What a program of this repository, in a process with this cache, prints as JSON."""
    environment = {
        **os.environ,
        "NUMBA_CACHE_DIR": cache,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    done = subprocess.run(
        [sys.executable, *program], check=True, stdout=subprocess.PIPE, text=True, env=environment
    )
    return json.loads(done.stdout)


def table(measured: dict[str, Any]) -> list[str]:
    """Format the measurements: seconds on the clock, and of the processor."""

    def both(times: dict[str, float]) -> str:
        return f"{times['seconds']:10.2f}{times['processor_seconds']:10.2f}"

    lines = ["", f"{'seconds, of the processor':32}{'empty cache':>20}{'full cache':>20}"]
    lines += [
        f"{stage:32}{both(times)}{both(measured['full_cache'][stage])}"
        for stage, times in measured["empty_cache"].items()
    ]
    lines += [
        f"{'import and first ΔF_' + name[0].upper():32}{both(times)}"
        for name, times in measured["first_delta_f"].items()
    ]
    lines += ["", f"{'compilation':32}{'seconds':>10}{'processor':>10}{'functions':>10}"]
    lines += [f"{row['part']:32}{both(row)}{row['functions']:10}" for row in measured["kernels"]]
    return [*lines, "What several parts need is compiled with the first of them."]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
