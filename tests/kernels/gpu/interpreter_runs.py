"""Runs of test files in Triton's interpreter, which wants processes of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, NamedTuple

__all__ = ["INSIDE", "outcome", "start", "stop"]

ROOT = Path(__file__).parents[3]
INSIDE = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether this is such a process."""


class Run(NamedTuple):
    """A process and what it prints."""

    process: subprocess.Popen[bytes]
    printed: IO[bytes]


_runs: dict[str, Run] = {}


def start(file: str) -> None:
    """Start the tests of Triton in a file of this folder, unless they run already or cannot."""
    if file in _runs or INSIDE or importlib.util.find_spec("triton") is None:
        return
    command = [sys.executable, "-m", "pytest", f"tests/kernels/{file}", "-k", "triton or gpu", "-q"]
    options = ["-o", "pythonpath=", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning"]
    path = os.pathsep.join([str(ROOT), *sys.path])
    printed = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process runs
    process = subprocess.Popen(
        [*command, *options],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=printed,
        stderr=subprocess.STDOUT,
    )
    _runs[file] = Run(process, printed)


def outcome(file: str) -> tuple[int, str]:
    """Wait for a file's run; return its exit status and the end of what it printed."""
    start(file)
    run = _runs.pop(file)
    status = run.process.wait()
    run.printed.seek(0)
    with run.printed:
        return status, run.printed.read().decode(errors="replace")[-15_000:]


def stop() -> None:
    """Kill what still runs."""
    for run in _runs.values():
        run.process.kill()
        run.process.wait()
        run.printed.close()
    _runs.clear()
