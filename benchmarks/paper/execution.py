"""Doing runs: each once, by any number of processes, going on where a killed one was."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring.keeping import claimed
from benchmarks.measuring.options import limited_threads
from benchmarks.paper import experiments
from benchmarks.paper.after_training import Curves
from benchmarks.paper.continuous import continuous
from benchmarks.paper.data import Images, Split, small, split
from benchmarks.paper.experiments import CURVES, Run
from benchmarks.paper.results import Results
from benchmarks.paper.sources import load


@dataclass(frozen=True)
class Place:
    """Where things lie on this machine, and what is changed for a trial.

    Attributes
    ----------
    results, scratch : Path
        Folders.
    data : Path or None
        Folder of the data sets.
    overrides : dict
        Hyperparameters that differ from the paper's.
    images : int or None
        How many images of each part are used, for a trial.
    """

    results: Path
    scratch: Path
    data: Path | None = None
    overrides: Mapping[str, int] = field(default_factory=dict)
    images: int | None = None

    def settings(self, run: Run) -> dict[str, Any]:
        """All that decides what comes of a run."""
        found = experiments.settings(run, self.overrides)
        return found if self.images is None else {**found, "images": self.images}


def do(run: Run, place: Place, made: Mapping[str, Any]) -> str:
    """Do a run unless it is done or another process is at it.

    Parameters
    ----------
    run : Run
        What is to be done.
    place : Place
        Where.
    made : mapping
        Command, commit, machine and versions.

    Returns
    -------
    str
        A line about it.
    """
    results, settings = Results(place.results), place.settings(run)
    claim = place.scratch / "claims" / f"{run.name.replace('/', '-')}.claim"
    with claimed(claim, wait=False) as ours:
        if not ours:
            return f"{run.name}: another process is at it"
        found = results.find(run, settings)
        if found is None:
            with limited_threads(1):
                found = _done(run, settings, place, made)
    return f"{run.name}: {in_words(found)}"


def in_words(found: Mapping[str, Any]) -> str:
    """What came of a run, in a line."""
    seconds = f"({found['made']['seconds']:.0f} s)"
    if "test" not in found:
        return f"{len(found['curves'])} curves {seconds}"
    gone = found["compression"]
    return f"{found['test']['accuracy']:.2f} % with {gone['published']:.2f} % gone {seconds}"


def _done(run: Run, settings: dict[str, Any], place: Place, made: Mapping[str, Any]) -> dict[str, Any]:
    results = Results(place.results)
    number = _number(run, place, made)
    started = time.monotonic()
    images = _images(run.dataset, place.data)
    parts = _split(run, images, place.images)
    if run.method == CURVES:
        outcome = Curves(settings, parts, place.scratch).outcome()
    else:
        outcome = continuous(settings, experiments.method(run.method), parts, place.scratch, number)
    results.add(
        run,
        settings,
        {"data": {"name": images.name, "images": parts.sizes()}, **outcome},
        {
            **made,
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - started, 1),
        },
    )
    found = results.find(run, settings)
    assert found is not None
    return found


def _number(run: Run, place: Place, made: Mapping[str, Any]) -> int | None:
    """How many structures the method prunes after which a run goes, whose run is done first."""
    if run.method == CURVES or (other := experiments.method(run.method).as_many_as) is None:
        return None
    leader = replace(run, method=other)
    results, settings = Results(place.results), place.settings(leader)
    claim = place.scratch / "claims" / f"{leader.name.replace('/', '-')}.claim"
    with claimed(claim, wait=True):
        found = results.find(leader, settings) or _done(leader, settings, place, made)
    return int(sum(found["structures"].values()) - sum(found["kept"].values()))


@lru_cache(maxsize=1)
def _images(dataset: str, folder: Path | None) -> Images:
    """The images, resized once for all runs of a process."""
    found = load(dataset, folder)
    return replace(found, train_images=small(found.train_images), test_images=small(found.test_images))


def _split(run: Run, images: Images, number: int | None) -> Split:
    parts = split(images, seed=run.seed)
    if number is None:
        return parts
    few = slice(0, number)

    def fewer(part: Any) -> Any:
        return replace(part, images=part.images[few], labels=part.labels[few])

    return replace(
        parts, train=fewer(parts.train), validation=fewer(parts.validation), test=fewer(parts.test)
    )


def do_all(runs: Sequence[Run], place: Place, made: Mapping[str, Any]) -> None:
    """Do runs one after another and say how far it is."""
    torch.set_num_threads(1)
    for done, run in enumerate(runs, 1):
        print(f"[{done}/{len(runs)}] {do(run, place, made)}", flush=True)
