"""Many runs: over the cores by joblib, or on a Dask cluster, and how far they are."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.paper.execution import Place, do
from benchmarks.paper.experiments import CURVES, Run
from benchmarks.paper.results import Results

LOCAL = "local"


@dataclass(frozen=True)
class Progress:
    """What of the runs asked for is done, and about how long the others will take.

    Attributes
    ----------
    done : list of tuple of Run and dict
        Runs and results.
    missing : list of Run
        The others, in their order.
    """

    done: list[tuple[Run, Mapping[str, Any]]]
    missing: list[Run]

    @classmethod
    def of(cls, runs: Sequence[Run], place: Place) -> Progress:
        """Look at what is there."""
        results = Results(place.results)
        found = [(run, results.find(run, place.settings(run))) for run in runs]
        return cls([(run, f) for run, f in found if f is not None], [run for run, f in found if f is None])

    def seconds(self) -> float | None:
        """An estimate for the missing runs on one core, by the means of finished ones; None without any."""
        times: dict[tuple[str, ...], list[float]] = {}
        for run, result in self.done:
            for kind in _kinds(run):
                times.setdefault(kind, []).append(result["made"]["seconds"])
        if not times:
            return None
        return sum(
            next(statistics.fmean(times[kind]) for kind in _kinds(run) if kind in times)
            for run in self.missing
        )


def _kinds(run: Run) -> tuple[tuple[str, ...], ...]:
    """What a run may be like another in, from the most to the least."""
    what = "curves" if run.method == CURVES else "run"
    return (run.network, run.dataset, run.method), (run.network, what), (what,), ()


def duration(seconds: float) -> str:
    """A time, in print."""
    minutes, hours = seconds / 60, seconds / 3600
    return f"{hours:.1f} h" if hours >= 2 else f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"


def in_words(result: Mapping[str, Any] | None) -> str:
    """What came of a run, in a line."""
    if result is None:
        return "another process is at it"
    took = f"({duration(result['made']['seconds'])})"
    if "test" not in result:
        return f"{len(result['curves'])} curves {took}"
    gone = result["compression"]["published"]
    return f"{result['test']['accuracy']:.2f} % at a compression of {gone:.2f} % {took}"


def do_all(
    runs: Sequence[Run], place: Place, made: Mapping[str, Any], *, jobs: int = 1, dask: str | None = None
) -> None:
    """Do the runs that are missing and say after each how far it is.

    Parameters
    ----------
    runs : sequence of Run
        In the order in which they are begun.
    place : Place
        Where.
    made : mapping
        Command, commit, machine and versions.
    jobs : int
        Processes at a time; 1 works in this one.
    dask : str, optional
        Address of a Dask scheduler whose workers do them instead, or ``"local"`` for `jobs` of this machine.
    """
    progress = Progress.of(runs, place)
    print(f"{len(progress.done)} of {len(runs)} runs are done", flush=True)
    last = time.monotonic()
    for number, (run, result) in enumerate(_results(progress.missing, place, made, jobs, dask), 1):
        line = f"[{len(progress.done) + number}/{len(runs)}] {run.name}: {in_words(result)}"
        if time.monotonic() - last > 1:
            last = time.monotonic()
            left = Progress.of(runs, place)
            seconds = left.seconds()
            if left.missing and seconds is not None:
                line += f"; about {duration(seconds / jobs)} to go"
        print(line, flush=True)


def _results(
    runs: Sequence[Run], place: Place, made: Mapping[str, Any], jobs: int, dask: str | None
) -> Iterator[tuple[Run, Mapping[str, Any] | None]]:
    if jobs == 1 and dask is None:
        yield from ((run, do(run, place, made)) for run in runs)
        return
    import joblib

    with _backend(jobs, dask):
        parallel = joblib.Parallel(n_jobs=-1 if dask else jobs, return_as="generator_unordered")
        yield from parallel(joblib.delayed(_named)(run, place, made) for run in runs)


def _named(run: Run, place: Place, made: Mapping[str, Any]) -> tuple[Run, Mapping[str, Any] | None]:
    return run, do(run, place, made)


@contextlib.contextmanager
def _backend(jobs: int, dask: str | None) -> Iterator[None]:
    """Where joblib works until the end of the block."""
    if dask is None:
        yield
        return
    import joblib
    from distributed import Client, LocalCluster

    with contextlib.ExitStack() as stack:
        where: Any = dask
        if dask == LOCAL:
            where = stack.enter_context(
                LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None)
            )
        stack.enter_context(Client(where))
        stack.enter_context(joblib.parallel_config("dask"))
        yield
