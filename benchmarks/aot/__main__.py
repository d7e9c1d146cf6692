"""``python -m benchmarks.aot``: registers and instructions of the GPU kernels, beside what memory allows."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from benchmarks.aot.budget import KernelCost, cost
from benchmarks.aot.problems import DTYPES, PROBLEMS
from benchmarks.noise.table import console

LEGEND = """\
Each kernel of the size of x, as it would be compiled for a layer, on a machine without a GPU. Instructions:
per element and thread, of structures with μ inside the support or next to it (for other regimes a block runs
their texts, too). Budget: as many fit into the time in which an H100's memory moves the bytes (3.0 TB/s);
fewer, and memory is what the kernel waits for. 16 bytes: stores of so many at a time, of those in which a
thread could write its part of a tile; – where that part is smaller."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile what was asked for and print the table; return 1 if something is over its budget or spills."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.aot", description=__doc__)
    parser.add_argument(
        "--target", choices=("sm_80", "sm_90", "sm_100"), default="sm_90", help="default: %(default)s"
    )
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="default: float32 and bfloat16")
    parser.add_argument("--problem", action="append", choices=PROBLEMS, help="default: all")
    options = parser.parse_args(arguments)
    on = console()
    on.print(Text(LEGEND))
    costs = list(
        _costs(options.problem or list(PROBLEMS), options.dtype or ["float32", "bfloat16"], options.target)
    )
    on.print(_table(costs, options.target))
    return int(any(each.resources.spilled for each in costs))


def _costs(problems: Sequence[str], dtypes: Sequence[str], target: str) -> Iterator[KernelCost]:
    for problem in dict.fromkeys(problems):
        for dtype in dict.fromkeys(dtypes):
            for direction in ("forward", "backward"):
                yield cost(problem, dtype, direction, target)


def _table(costs: Sequence[KernelCost], target: str) -> Table:
    title = f"Compiled ahead of time for {target}"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE, pad_edge=False)
    for head in ("layer", "dtype", "direction"):
        table.add_column(head, no_wrap=True)
    for head in ("registers", "spilled", "instructions", "budget", "16 bytes"):
        table.add_column(head, justify="right", no_wrap=True)
    for each in costs:
        table.add_row(
            PROBLEMS[each.problem].title,
            each.dtype,
            each.direction,
            f"{each.resources.registers}",
            f"{each.resources.spilled}",
            f"{each.instructions:.1f}",
            f"{each.budget:.0f}",
            f"{each.resources.wide_stores} of {each.stores_due}" if each.stores_due else "–",
            style=None if each.instructions <= each.budget else "dim",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
