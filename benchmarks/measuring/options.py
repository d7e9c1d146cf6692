"""Command-line options that the benchmarks share, and what is accepted for them."""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.measuring.machine import usable_cores


def positive_shape(text: str) -> tuple[int, ...]:
    """Read a shape such as 32,64,56,56 or 32x64x56x56."""
    parts = text.replace("x", ",").replace("×", ",").split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"a shape is positive lengths such as 32,64,56,56, got {text!r}")
    return tuple(int(part) for part in parts)


def add_common_options(parser: argparse.ArgumentParser, *, seconds: float, per: str) -> None:
    """Add what every benchmark takes."""
    add = parser.add_argument
    add("--rounds", type=int, help="interleaved rounds (default: as many as fit into --seconds, 3 to 200)")
    add("--seconds", type=float, default=seconds, help=f"time per {per} (default: %(default)s)")
    add("--threads", type=int, default=1, help="default: %(default)s")
    add("--seed", type=int, default=0, help="of inputs and noise (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write everything measured, every round of it")
    add("--plot", type=Path, metavar="FILE.png", help="draw bars")


def check_common_options(options: argparse.Namespace) -> None:
    """Raise ValueError, before anything is measured, for what could not be done."""
    if options.rounds is not None and options.rounds < 1:
        raise ValueError(f"--rounds must be at least 1, got {options.rounds}")
    if not (math.isfinite(options.seconds) and options.seconds > 0):
        raise ValueError(f"--seconds must be positive, got {options.seconds}")
    if not 1 <= options.threads <= usable_cores():
        raise ValueError(f"--threads must be 1 to {usable_cores()}, the cores at hand; got {options.threads}")
    if not 0 <= options.seed < 2**63:
        raise ValueError(f"--seed must be 0 to 2^63 − 1, got {options.seed}")
    for name, path in (("--json", options.json), ("--plot", options.plot)):
        if path is not None and not path.parent.is_dir():
            raise ValueError(f"{name} {path}: there is no folder {path.parent}")
    if options.plot is not None and options.plot.suffix.lower() != ".png":
        raise ValueError(f"--plot writes PNG files, so its name must end in .png; got {options.plot}")


def thread_text(threads: int) -> str:
    """Write a number of threads."""
    return f"{threads} thread{'s' if threads > 1 else ''}"


@contextlib.contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Let torch, and what asks torch how many, use this many threads until the end of the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
