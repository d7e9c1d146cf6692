"""The command line of ``python -m benchmarks growth``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.growth.measurement import BOTH, LAYERS, STAGES, STRUCTURES, Growth, Size, exponent, measure
from benchmarks.measuring.machine import this_machine, versions
from benchmarks.measuring.options import limited_threads
from benchmarks.noise.command import PACKAGES
from benchmarks.noise.record import run_record, write


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and write what was asked for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks growth", description=__doc__)
    parser.add_argument("--most-layers", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--most-structures", type=int, default=1_000_000, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements as JSON too")
    options = parser.parse_args(arguments)
    machine, installed = this_machine(), versions(*PACKAGES)
    print(f"{machine}\n" + ", ".join(f"{name} {number}" for name, number in installed.items()))
    print("Seconds of the processor, one thread; in brackets the power of the size by which they grew.\n")
    rows = []
    with limited_threads(1):
        measure(Size(2, 8))  # what is imported and compiled at the first use
        for sizes in (LAYERS, STRUCTURES, BOTH):
            chosen = [
                size
                for size in sizes
                if size.layers <= options.most_layers and size.structures <= options.most_structures
            ]
            found = [measure(size) for size in chosen]
            print("\n".join(table(found)) + "\n")
            rows += [growth.record() for growth in found]
    if options.json is not None:
        write(run_record(machine, installed, ["growth", *arguments]) | {"rows": rows}, options.json)
    return 0


def table(found: Sequence[Growth]) -> list[str]:
    """Format networks of one kind, the smaller ones first."""
    lines = [f"{'layers × structures':20}" + "".join(f"{stage:>20}" for stage in STAGES)]
    for i, growth in enumerate(found):
        cells = ""
        for stage in STAGES:
            power = f"({exponent(found[i - 1], growth, stage):.2f})" if i else ""
            cells += f"{growth.seconds[stage]:12.3f}{power:>8}"
        lines.append(f"{growth.size!s:20}{cells}")
    return lines
