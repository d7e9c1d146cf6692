"""Doing a run once, wherever it is asked for, and going on where a killed process was."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.measuring.keeping import claimed
from benchmarks.measuring.options import limited_threads
from benchmarks.paper import experiments
from benchmarks.paper.after_training import Curves
from benchmarks.paper.continuous import continuous
from benchmarks.paper.data import Images, images_for, small
from benchmarks.paper.energy import Energy
from benchmarks.paper.experiments import CURVES, Run
from benchmarks.paper.networks import LARGE
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
        How many images of each part are used.
    weights : Path or None
        File that large networks start from.
    energy : bool
        Whether the energy of each run is measured.
    """

    results: Path
    scratch: Path
    data: Path | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    images: int | None = None
    weights: Path | None = None
    energy: bool = False

    def settings(self, run: Run) -> dict[str, Any]:
        """All that decides what comes of a run; no place on this machine is in it."""
        found = experiments.settings(run, self.overrides)
        if self.weights is not None and run.network in LARGE:
            found["weights"] = self.weights.name
        return found if self.images is None else {**found, "images": self.images}


def do(run: Run, place: Place, made: Mapping[str, Any]) -> dict[str, Any] | None:
    """Do a run unless it is done.

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
    dict or None
        Its result; None if another process is at it.
    """
    with _claimed(run, place, wait=False) as ours:
        return _done(run, place, made) if ours else None


def _claimed(run: Run, place: Place, *, wait: bool) -> Any:
    return claimed(place.scratch / "claims" / f"{run.name.replace('/', '-')}.claim", wait=wait)


def _done(run: Run, place: Place, made: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a run that this process has claimed: that which is there, or a new one."""
    results, settings = Results(place.results), place.settings(run)
    found = results.find(run, settings)
    if found is not None:
        return found
    number = _number(run, place, made)
    with limited_threads(1), Energy(place.energy) as energy:
        started = time.monotonic()
        images = _images(run.dataset, place.data, run.network in LARGE)
        split = images_for(run.network, images, seed=run.seed)
        if place.images is not None:
            split = split.first(place.images)
        if run.method == CURVES:
            outcome = Curves(settings, split, place.scratch, place.weights).outcome()
        else:
            rule = experiments.method(run.method)
            outcome = continuous(settings, rule, split, place.scratch, number, place.weights)
        seconds = round(time.monotonic() - started, 1)
    finished = datetime.now(timezone.utc).isoformat(timespec="seconds")
    whole = {"data": {"name": images.name, "images": split.sizes()}, **outcome}
    by = {**made, "finished": finished, "seconds": seconds, **energy.measured()}
    return results.add(run, settings, whole, by)


def _number(run: Run, place: Place, made: Mapping[str, Any]) -> int | None:
    """How many structures go, for a method that goes by the number of another, whose run is done first."""
    if run.method == CURVES or (other := experiments.method(run.method).as_many_as) is None:
        return None
    leader = replace(run, method=other)
    with _claimed(leader, place, wait=True):
        found = _done(leader, place, made)
    return int(sum(found["structures"].values()) - sum(found["kept"].values()))


@lru_cache(maxsize=1)
def _images(dataset: str, folder: Path | None, for_large: bool) -> Images:
    """A data set; for the small networks it is resized once for all runs of a process."""
    found = load(dataset, folder)
    if for_large:
        return found
    return replace(found, train_images=small(found.train_images), test_images=small(found.test_images))
