"""``python -m benchmarks.paper``: the tables and figures of the BMRS paper, made again."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.paper.experiments import Run, experiments, runs_of
from benchmarks.paper.results import DEFAULT_FOLDER, Results
from benchmarks.paper.tables import DATASETS, FORMATS, NETWORKS, variants, write

VARIANTS = "variants"
_DESCRIPTION = "The tables and figures of the BMRS paper, made again."
FIGURES = ("2", "3", "4", "5", "6", "7", "tolerance")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked for; return the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser()
    options = parser.parse_args(arguments)
    commands = {
        "run": _run,
        "all": _all,
        "status": _status,
        "table": _table,
        "figure": _figure,
        "time": _time,
    }
    try:
        return commands[options.command](options, arguments)
    except ValueError as error:
        if type(error) is ValueError:
            parser.error(str(error))
        print(error, file=sys.stderr)  # data, weights or results that aren't there, in one line
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper", description=_DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument(
            "--results",
            type=Path,
            default=DEFAULT_FOLDER,
            help="folder of the results (default: benchmarks/results/paper)",
        )
        return command

    run = add("run", "Do the runs of some experiments that are missing; what is done is skipped.")
    names = list(experiments()["experiments"])
    told = ", ".join(f"'{name}'" for name in names)
    told += "; 'figure 5' has what Figures 2, 3, 6 and 7 and 'tolerance' are drawn from"
    run.add_argument("experiments", nargs="+", choices=names, metavar="EXPERIMENT", help=told)
    everything = add("all", "Do all runs for which there are data, then write all tables and figures.")
    status = add("status", "Say what is done, what is missing and about how long that will take.")
    for command in (run, everything, status):
        _add_runs(command)
    table = add("table", "Print a table of the paper beside what was found here.")
    table.add_argument("number", choices=("1", "2", "3", "4", VARIANTS))
    table.add_argument("--dataset", choices=DATASETS, help="default: all")
    table.add_argument("--format", choices=FORMATS, default="markdown")
    figure = add("figure", "Draw a figure of the paper from the results.")
    figure.add_argument("number", choices=FIGURES)
    figure.add_argument("--dataset", choices=DATASETS, default="fashion_mnist")
    figure.add_argument("--to", type=Path, help="a PNG file (default: beside the results)")
    clock = add("time", "Measure training steps and inference for Tables 3 and 4.")
    clock.add_argument("--networks", nargs="+", choices=NETWORKS, default=["mlp", "lenet5"])
    clock.add_argument("--seconds", type=float, default=20.0, help="per network (default: %(default)s)")
    return parser


def _add_runs(command: argparse.ArgumentParser) -> None:
    """Which runs, where, how many at a time, and what is changed for a trial."""
    add = command.add_argument
    add("--networks", nargs="+", choices=NETWORKS)
    add("--datasets", nargs="+", choices=DATASETS)
    add("--methods", nargs="+", help="by their names in benchmarks/paper/experiments.json")
    add("--seeds", nargs="+", type=int, help="which (default: as many as the paper)")
    add("--data", type=Path, help="folder with a folder for each data set (default: what BMRS_DATA names)")
    add("--scratch", type=Path, default=Path("runs/paper"), help="for what resumes (default: %(default)s)")
    add("--jobs", type=int, default=1, help="processes, each on one core (default: %(default)s)")
    add("--dask", metavar="ADDRESS", help="a Dask scheduler, or 'local' for a cluster of --jobs workers")
    add("--energy", action="store_true", help="measure each run's energy by codecarbon")
    add("--weights", metavar="random|FILE", help="of the large networks (default: pretrained, by their zoo)")
    trial = command.add_argument_group("for a trial, whose --results must be a folder of its own")
    for name in ("--epochs", "--finetune-epochs", "--batch", "--images"):
        trial.add_argument(name, type=int, help="images of each part" if name == "--images" else None)


def _chosen(options: argparse.Namespace) -> list[Run]:
    """The runs asked for: one seed of everything, then the next; each once."""
    names = getattr(options, "experiments", None) or list(experiments()["experiments"])
    found = dict.fromkeys(run for name in names for run in runs_of(name))
    wanted = {"network": options.networks, "dataset": options.datasets, "method": options.methods}
    runs = [
        run
        for run in sorted(found, key=lambda run: run.seed)
        if all(choice is None or getattr(run, key) in choice for key, choice in wanted.items())
        and (options.seeds is None or run.seed in options.seeds)
    ]
    if not runs:
        raise ValueError("no run of these experiments is of such networks, data sets, methods and seeds")
    return runs


def _run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    from benchmarks.paper.grid import do_all
    from benchmarks.paper.options import place_of, with_data
    from benchmarks.rivals.record import made_with

    place = place_of(options)
    runs = with_data(_chosen(options), place.data)
    if not runs:
        return 2
    do_all(runs, place, made_with(arguments, "benchmarks.paper"), jobs=options.jobs, dask=options.dask)
    return 0


def _all(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    status = _run(options, arguments)
    if status == 0:
        from benchmarks.paper.publishing import publish

        publish(options.results)
    return status


def _status(options: argparse.Namespace, _arguments: Sequence[str]) -> int:
    from benchmarks.paper.options import place_of, status

    print(status(_chosen(options), place_of(options)))
    return 0


def _table(options: argparse.Namespace, _arguments: Sequence[str]) -> int:
    if options.number in ("3", "4"):
        from benchmarks.paper.times import write as write_times

        print(write_times(f"table {options.number}", options.format, options.results), end="")
        return 0
    found = Results(options.results).read()
    for name in variants() if options.number == VARIANTS else [f"table {options.number}"]:
        own = experiments()["experiments"][name]["datasets"]
        if options.dataset is not None and options.dataset not in own:
            raise ValueError(f"{name} has {', '.join(own)}, not {options.dataset}")
        if options.number == VARIANTS:
            print(f"{name}:\n")
        print(write(name, options.format, [options.dataset] if options.dataset else own, found))
    return 0


def _figure(options: argparse.Namespace, _arguments: Sequence[str]) -> int:
    from benchmarks.paper.publishing import draw

    print(draw(options.number, options.dataset, options.results, options.to))
    return 0


def _time(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    from benchmarks.paper.timing import measure
    from benchmarks.rivals.record import made_with

    measure(options.networks, options.seconds, options.results, made_with(arguments, "benchmarks.paper"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
