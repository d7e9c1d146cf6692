"""From the command line to runs and places; and where the runs stand."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.paper.energy import can_be_measured
from benchmarks.paper.execution import Place
from benchmarks.paper.experiments import Run
from benchmarks.paper.grid import Progress, duration
from benchmarks.paper.networks import RANDOM
from benchmarks.paper.results import DEFAULT_FOLDER
from benchmarks.paper.sources import SOURCES, find, missing
from benchmarks.paper.tables import DATASETS, NETWORKS


def place_of(options: argparse.Namespace) -> Place:
    """Where things lie and what is changed, checked.

    Raises
    ------
    ValueError
        For a number below its least, a package that isn't there, or a trial among the real results.
    """
    numbers = {name: getattr(options, name) for name in ("epochs", "finetune_epochs", "batch", "images")}
    for name, number in {**numbers, "jobs": options.jobs}.items():
        least = 0 if name == "finetune_epochs" else 1
        if number is not None and number < least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, got {number}")
    images = numbers.pop("images")
    overrides: dict[str, Any] = {name: number for name, number in numbers.items() if number is not None}
    is_file = options.weights not in (None, RANDOM)
    if options.weights == RANDOM:
        overrides["weights"] = RANDOM
    if is_file and not Path(options.weights).is_file():
        raise ValueError(f"--weights takes 'random' or a file, and there is no file {options.weights}")
    if (overrides or images is not None) and options.results.resolve() == DEFAULT_FOLDER.resolve():
        raise ValueError("a trial that isn't as in the paper needs a folder of its own: --results FOLDER")
    if options.energy and not can_be_measured():
        raise ValueError("--energy needs codecarbon: pip install 'bmrs-pruning[paper]'")
    if options.dask is not None and find_spec("distributed") is None:
        raise ValueError("--dask needs Dask: pip install 'bmrs-pruning[paper]'")
    return Place(
        options.results,
        options.scratch,
        options.data,
        overrides,
        images,
        Path(options.weights) if is_file else None,
        options.energy,
    )


def with_data(runs: Sequence[Run], folder: Path | None) -> list[Run]:
    """The runs whose data sets are here; of each that is missing one line says where to put it."""
    there = {name: find(name, folder) is not None for name in {run.dataset for run in runs}}
    for name in SOURCES:
        if there.get(name) is False:
            print(missing(name), file=sys.stderr)
    return [run for run in runs if there[run.dataset]]


def status(runs: Sequence[Run], place: Place) -> str:
    """A line for each network and data set, and about how long what is missing will take."""
    lines = []
    for network, dataset in dict.fromkeys((run.network, run.dataset) for run in runs):
        progress = Progress.of([r for r in runs if (r.network, r.dataset) == (network, dataset)], place)
        number = len(progress.done) + len(progress.missing)
        line = f"{NETWORKS[network]}, {DATASETS[dataset]}: {len(progress.done)} of {number} runs"
        if progress.missing and find(dataset, place.data) is None:
            line += ", no data here"
        elif progress.missing and (seconds := progress.seconds()) is not None:
            line += f", about {duration(seconds)} on a core for the others"
        lines.append(line)
    return "\n".join(lines)
