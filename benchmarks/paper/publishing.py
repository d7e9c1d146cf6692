"""All tables and figures that the results allow, as files beside them."""

from __future__ import annotations

import contextlib
from pathlib import Path

from benchmarks.measuring.keeping import replace
from benchmarks.paper import figures
from benchmarks.paper.experiments import experiments
from benchmarks.paper.results import Results
from benchmarks.paper.summary import Found
from benchmarks.paper.tables import DATASETS, FORMATS, write

_ENDINGS = {"markdown": "md", "latex": "tex", "csv": "csv"}
_CORRELATIONS = ("3", "6", "7")
"""Of CIFAR-10, Fashion-MNIST and MNIST in the paper: the same drawing."""


def draw(number: str, dataset: str, results: Path, to: Path | None = None) -> Path:
    """Draw a figure.

    Parameters
    ----------
    number : str
        As in the paper, or ``"tolerance"``.
    dataset : str
        Of which.
    results : Path
        The folder of the results.
    to : Path, optional
        A PNG file; by default one beside the results.

    Returns
    -------
    Path
        Where it is.

    Raises
    ------
    NoResultsError
        If there is nothing to draw.
    """
    return _draw(number, dataset, Results(results).read(), to or results / f"{_name(number)}_{dataset}.png")


def _name(number: str) -> str:
    return "tolerance" if number == "tolerance" else f"figure{number}"


def _draw(number: str, dataset: str, found: Found, path: Path) -> Path:
    if number in ("2", "5"):
        figures.draw_curves(dataset, found, path, gradient=number == "5")
    elif number in _CORRELATIONS:
        figures.draw_correlations(dataset, found, path)
    elif number == "4":
        figures.draw_sweep(dataset, found, path)
    else:
        figures.draw_tolerance(dataset, found, path)
    return path


def publish(results: Path) -> list[Path]:
    """Write all tables and figures for which there are results; return what was written."""
    found = Results(results).read()
    written = []
    for table in ("table 1", "table 2"):
        there = {run.dataset for run, _ in found}
        datasets = [d for d in experiments()["experiments"][table]["datasets"] if d in there]
        for form in FORMATS if datasets else ():
            path = results / f"{table.replace(' ', '')}.{_ENDINGS[form]}"
            replace(path, write(table, form, datasets, found))
            written.append(path)
    correlations = {"cifar10": "3", "fashion_mnist": "6"}
    for dataset in DATASETS:
        for number in ("2", "5", correlations.get(dataset, "7"), "4", "tolerance"):
            with contextlib.suppress(figures.NoResultsError):
                written.append(_draw(number, dataset, found, results / f"{_name(number)}_{dataset}.png"))
    return written
