"""``python -m benchmarks.gpu``: the CUDA tests, the noise layer and training steps, in under 20 minutes.

What they print and measure goes into one folder, to be sent as it is.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.measuring.machine import this_machine, versions
from benchmarks.measuring.source import ROOT, commit
from benchmarks.noise.command import PACKAGES

# With a limit in seconds each: together less than 20 minutes, whatever hangs.
STEPS: dict[str, tuple[tuple[str, ...], int]] = {
    "tests": (("-m", "pytest", "-q", "-k", "cuda", "tests/bindings", "tests/kernels"), 480),
    "noise": (("-m", "benchmarks", "--device", "cuda", "--json", "{}/noise_cuda.json"), 360),
    "training-step": (
        ("-m", "benchmarks", "training-step", "--device", "cuda", "--json", "{}/training_step_cuda.json"),
        330,
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all, each to its log; return how many failed, or 1 without a GPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="default: gpu-results, and in it the name of the GPU"
    )
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        sys.stderr.write(
            f"no GPU: torch {torch.__version__} sees no CUDA device, and nothing was run; "
            "`python -m benchmarks` measures the processor\n"
        )
        return 1
    name = torch.cuda.get_device_name()
    out = options.out or ROOT / "gpu-results" / re.sub(r"\W+", "_", name).strip("_").lower()
    out.mkdir(parents=True, exist_ok=True)
    installed = versions(*PACKAGES).items()
    about = [
        str(this_machine(name)),
        f"commit {commit()}",
        *(f"{package} {one}" for package, one in installed),
    ]
    outcomes = [run(step, command, limit, out) for step, (command, limit) in STEPS.items()]
    (out / "summary.txt").write_text("\n".join([*about, "", *outcomes]) + "\n", encoding="utf-8")
    print("\n".join([*outcomes, f"All of it lies in {out}."]))
    return sum(": failed" in outcome for outcome in outcomes)


def run(step: str, command: Sequence[str], limit: float, out: Path) -> str:
    """Run one step in the repository, its output into a log; tell in a line how it went."""
    started = time.monotonic()
    program = [sys.executable, *(part.format(out) for part in command)]
    with (out / f"{step}.log").open("w", encoding="utf-8") as log:
        try:
            done = subprocess.run(
                program, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, timeout=limit, check=False
            )
            how = "done" if done.returncode == 0 else f"failed with status {done.returncode}"
        except subprocess.TimeoutExpired:
            how = f"failed: not done after {limit:.0f} s"
    return f"{step}: {how}, {time.monotonic() - started:.0f} s, {step}.log"


if __name__ == "__main__":
    sys.exit(main())
