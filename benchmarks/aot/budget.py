"""What a kernel's instructions cost per element, beside what fits into the time its memory traffic takes."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.aot.compilation import compile_launch, interior_only
from benchmarks.aot.problems import DTYPES, PROBLEMS, launches
from benchmarks.aot.resources import Resources, resources
from bmrs_kernels.gpu.launch import OPTIONS, Launch

__all__ = ["KernelCost", "cost", "main_launch"]

THREADS = 32 * OPTIONS["num_warps"]

# An H100 SXM: 132 processors that start an instruction for 4 warps of 32 threads a clock, at 1.755 GHz, and
# 3.0 TB/s, which a copy reaches.
LANES_PER_SECOND = 132 * 4 * 32 * 1.755e9
BYTES_PER_SECOND = 3.0e12
MOVED = {"forward": 2, "backward": 3}
"""Tensors of the size of x that are read or written."""


@dataclass(frozen=True)
class KernelCost:
    """What the kernel of the size of x costs in one direction.

    Attributes
    ----------
    problem, dtype, direction : str
        What was compiled.
    resources : Resources
        Of the kernel.
    instructions, budget : float
        Per element and thread; as many fit into the time of the memory traffic.
    loads_due, stores_due : int
        Accesses of 16 bytes in which a thread can load and store its part of a tile.
    """

    problem: str
    dtype: str
    direction: str
    resources: Resources
    instructions: float
    budget: float
    loads_due: int
    stores_due: int


def main_launch(problem: str, dtype: str, direction: str) -> Launch:
    """The launch of the kernel that walks through x."""
    wanted = [
        each
        for each in launches(PROBLEMS[problem], dtype)
        if each.kernel.__name__.startswith(("scale_", "element_"))
        and each.kernel.__name__.endswith("backward") == (direction == "backward")
    ]
    (only,) = wanted
    return only


def cost(problem: str, dtype: str, direction: str, target: str) -> KernelCost:
    """Compile the kernel of one direction for a target and count."""
    launch = main_launch(problem, dtype, direction)
    found = resources(compile_launch(interior_only(launch), target))
    tile = launch.constants["ROWS"] * launch.constants["COLUMNS"] / THREADS
    walked = launch.constants.get("WALK", 1)
    once = found.instructions - found.loop
    per_element = (once / walked + found.loop) / tile
    per_tile = MOVED[direction] * DTYPES[dtype].itemsize / BYTES_PER_SECOND
    due = int(tile * DTYPES[dtype].itemsize / 16)
    budget = per_tile * LANES_PER_SECOND
    return KernelCost(
        problem, dtype, direction, found, per_element, budget, due * (MOVED[direction] - 1), due
    )
