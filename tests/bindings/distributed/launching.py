"""Start several processes on checks of a file, and bring back what each rank found."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed

LIMIT = 300
"""Seconds for all checks of a file on all ranks; a rank waits for another at most COLLECTIVE of them."""

COLLECTIVE = 120

ROOT = Path(__file__).resolve().parents[3]


def environment() -> dict[str, str]:
    """That of processes which import this checkout, each on one thread."""
    path = [str(ROOT / part) for part in ("", "kernels", "bindings")]
    given = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*path, given] if given else path),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def run_on_ranks(checks: Path, number: int, folder: Path) -> list[dict[str, Any]]:
    """What every check of a file gave on every rank, an error as text; what hangs is an error, too.

    Parameters
    ----------
    checks : Path
        Of a file that calls :func:`serve`.
    number : int
        Of processes.
    folder : Path
        Empty: where they meet, and leave what they found.
    """
    commands = [[sys.executable, str(checks), str(folder), str(rank), str(number)] for rank in range(number)]
    logs = [folder / f"log{rank}" for rank in range(number)]
    started = []
    for command, log in zip(commands, logs, strict=True):
        with log.open("w") as file:
            started.append(
                subprocess.Popen(command, env=environment(), stdout=file, stderr=subprocess.STDOUT)
            )
    until = time.monotonic() + LIMIT
    try:
        codes = [process.wait(max(until - time.monotonic(), 1)) for process in started]
    finally:
        for process in started:
            process.kill()
    told = "\n".join(log.read_text()[-3000:] for log in logs)
    assert not any(codes), told
    return [torch.load(folder / f"found{rank}", weights_only=False) for rank in range(number)]


def torchrun(*arguments: str | Path, must_end: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a script on two processes; what hangs is an error, and so is what fails if it must end well."""
    options = ["--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, "-m", "torch.distributed.run", *options, *map(str, arguments)]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 0 or not must_end, done.stderr[-3000:]
    return done


def serve(checks: Mapping[str, Callable[[], Any]]) -> None:
    """As one rank: join the others, run all checks in their order, and leave what they gave."""
    folder, rank, number = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'meeting'}",
        rank=rank,
        world_size=number,
        timeout=timedelta(seconds=COLLECTIVE),
    )
    found: dict[str, Any] = {}
    for name, check in checks.items():
        found[name] = _tried(check)
    torch.save(found, folder / f"found{rank}")
    distributed.destroy_process_group()


def _tried(check: Callable[[], Any]) -> Any:
    try:
        return check()
    except Exception:  # noqa: BLE001 - told by the test
        return traceback.format_exc()
