"""``python -m benchmarks.paper``: the paper's tables and figures, made again."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.demo.data import DataError
from benchmarks.paper.execution import Place, do_all
from benchmarks.paper.experiments import experiments, runs_of
from benchmarks.paper.results import DEFAULT_FOLDER
from benchmarks.rivals.record import made_with


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked for; return the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="do the runs of experiments that are missing")
    run.add_argument("experiments", nargs="+", choices=experiments()["experiments"], metavar="EXPERIMENT")
    run.add_argument("--networks", nargs="+")
    run.add_argument("--datasets", nargs="+")
    run.add_argument("--methods", nargs="+")
    run.add_argument("--seeds", nargs="+", type=int)
    run.add_argument("--data", type=Path)
    run.add_argument("--scratch", type=Path, default=Path("runs/paper"))
    run.add_argument("--results", type=Path, default=DEFAULT_FOLDER)
    options = parser.parse_args(arguments)
    place = Place(options.results, options.scratch, options.data)
    found = [run for name in options.experiments for run in runs_of(name)]
    runs = [
        run
        for run in sorted(found, key=lambda run: run.seed)
        if (options.networks is None or run.network in options.networks)
        and (options.datasets is None or run.dataset in options.datasets)
        and (options.methods is None or run.method in options.methods)
        and (options.seeds is None or run.seed in options.seeds)
    ]
    try:
        do_all(runs, place, made_with(arguments, "benchmarks.paper"))
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
