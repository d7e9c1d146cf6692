"""The paper's figures from the results, and one of our own: BMRS_N by its tolerance."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.paper.experiments import CURVES, Run, method
from benchmarks.paper.summary import Found
from benchmarks.paper.tables import DATASETS, NETWORKS
from bmrs_torch.reporting.knee import knee_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

Results = Sequence[Mapping[str, Any]]

COLOURS = {
    "l2": "#999999",
    "gradient": "#CC79A7",
    "snr": "#000000",
    "mean": "#56B4E9",
    "bmrs_n": "#D55E00",
    "bmrs_u_8": "#0072B2",
    "bmrs_u_4": "#009E73",
}
"""Okabe and Ito's: told apart in any colour vision."""

_MARKED = {"bmrs_n": ("o", 9.0), "bmrs_u_8": ("s", 6.0), "bmrs_u_4": ("^", 3.5)}
"""Each with a shape, and each smaller than those below it: often they stop at the same structures."""

_DASHED = ("mean", "bmrs_u_4")
"""Close to SNR and BMRS_U-8, which are seen through the gaps."""

_CORRELATED = ("snr", "mean", "l2", "bmrs_n", "bmrs_u_8", "bmrs_u_4")
_FEWEST_FOR_DENSITY = 5


class NoResultsError(ValueError):
    """There are no results that a figure could be drawn from."""


def draw_curves(dataset: str, found: Found, path: Path, *, gradient: bool) -> None:
    """Draw accuracy against compression after training (Fig. 2; with gradients Fig. 5).

    Parameters
    ----------
    dataset : str
        Of which.
    found : sequence of pairs of Run and dict
        All results.
    path : Path
        A PNG file.
    gradient : bool
        Whether pruning by gradients is among the curves.
    """
    held = _curves(dataset, found)
    title = f"{DATASETS[dataset]}: accuracy against compression after training"
    with _figure((len(held), 2), (10.5, 3.7 * len(held)), title, path) as axes:
        for row, (network, results) in zip(axes, held.items(), strict=True):
            number = len(results)
            names = [name for name in COLOURS if gradient or name != "gradient"]
            for name in names:
                _band(row[0], [r["curves"][name] for r in results], name, results)
            for name in _MARKED:
                _mark(row[0], results, name)
            row[0].plot([], [], "o", color="white", mec="black", label="Where a rule stops")
            spread = "" if number == 1 else ", mean ± standard deviation"
            row[0].set(title=f"{NETWORKS[network]}, {_seeds(number)}{spread}", ylabel="Accuracy %")
            row[0].legend(fontsize=7, loc="lower left", frameon=False)
            _near_the_marks(row[1], results)
            row[1].set(title="Where each rule stops, and SNR's curve near it")
            for axis in row:
                axis.set_xlabel("Structures removed %")


def _curves(dataset: str, found: Found) -> dict[str, Results]:
    """Results of runs after training by network, in the order of the tables."""
    held: dict[str, list[Mapping[str, Any]]] = {}
    for run, result in found:
        if run.method == CURVES and run.dataset == dataset:
            held.setdefault(run.network, []).append(result)
    if not held:
        raise NoResultsError(f"no runs after training on {DATASETS[dataset]} are among the results")
    return {network: held[network] for network in NETWORKS if network in held}


def _seeds(number: int) -> str:
    return f"{number} seed{'s' if number > 1 else ''}"


def _share(result: Mapping[str, Any], point: Mapping[str, Any]) -> float:
    return 100 * float(point["gone"]) / len(result["delta_f_n"])


def _band(axis: Any, curves: Sequence[Sequence[Mapping[str, Any]]], name: str, results: Results) -> None:
    """Mean and deviation at each level that all seeds reach."""
    levels = min(map(len, curves))
    if not levels:
        return
    x = [_share(results[0], point) for point in curves[0][:levels]]
    accuracy = np.array([[point["accuracy"] for point in curve[:levels]] for curve in curves])
    mean, deviation = accuracy.mean(0), accuracy.std(0, ddof=1) if len(curves) > 1 else 0 * accuracy[0]
    style = "--" if name in _DASHED else "-"
    axis.plot(x, mean, style, color=COLOURS[name], lw=1.4, label=method(name).title)
    axis.fill_between(x, mean - deviation, mean + deviation, color=COLOURS[name], alpha=0.15, lw=0)


def _points(results: Results, name: str) -> NDArray[np.float64]:
    """Compression and accuracy where the rule of a method stops, (seeds, 2)."""
    marks = [(_share(r, r["marks"][name]), r["marks"][name]["accuracy"]) for r in results]
    return np.array(marks, dtype=float)


def _mark(axis: Any, results: Results, name: str) -> None:
    x, y = _points(results, name).mean(0)
    shape, size = _MARKED[name]
    axis.plot(x, y, shape, color=COLOURS[name], ms=size, zorder=3)


def _near_the_marks(axis: Any, results: Results) -> None:
    for name, (shape, size) in _MARKED.items():
        points = _points(results, name)
        axis.plot(
            *points.T, shape, color=COLOURS[name], ms=size, alpha=0.8, label=method(name).title, zorder=3
        )
        _density(axis, points, COLOURS[name])
    every = np.concatenate([_points(results, name) for name in _MARKED])
    low, high = every[:, 0].min(), every[:, 0].max()
    margin = max(4.0, (high - low) / 2)
    axis.set_xlim(max(0.0, low - margin), min(100.0, high + margin))
    _band(axis, [r["curves"]["snr"] for r in results], "snr", results)
    knees = [_knee(result) for result in results]
    for number, knee in enumerate(k for k in knees if k is not None):
        axis.axvline(knee, color=COLOURS["snr"], lw=0.6, ls=":", label="Knee of SNR" if number == 0 else None)
    bottom = min(every[:, 1].min(), *_visible(results, axis.get_xlim()))
    axis.set_ylim(bottom - 2, min(100.0, every[:, 1].max() + 3))
    axis.legend(fontsize=7, loc="lower left", edgecolor="none")


def _visible(results: Results, limits: tuple[float, float]) -> list[float]:
    """Accuracies of SNR's curves between limits, but not those of what has collapsed."""
    inside = [
        point["accuracy"]
        for result in results
        for point in result["curves"]["snr"]
        if limits[0] <= _share(result, point) <= limits[1] and point["accuracy"] > 50
    ]
    return inside or [100.0]


def _knee(result: Mapping[str, Any]) -> float | None:
    curve = result["curves"]["snr"]
    x = [_share(result, point) for point in curve]
    best = knee_of([100 - value for value in x], [point["accuracy"] for point in curve])
    return None if best is None else x[best]


def _density(axis: Any, points: NDArray[np.float64], colour: str) -> None:
    """A line around most of the points, where there are enough of them that differ."""
    from scipy.stats import gaussian_kde

    spread = points.std(0)
    if len(points) < _FEWEST_FOR_DENSITY or not (spread > 1e-9).all():
        return
    density = gaussian_kde(points.T)
    low, high = points.min(0) - 3 * spread, points.max(0) + 3 * spread
    x, y = np.meshgrid(np.linspace(low[0], high[0], 60), np.linspace(low[1], high[1], 60))
    height = density(np.stack([x.ravel(), y.ravel()])).reshape(x.shape)
    axis.contour(x, y, height, levels=[0.3 * height.max()], colors=colour, linewidths=0.8)


def draw_correlations(dataset: str, found: Found, path: Path) -> None:
    """Draw the rank correlations of the criteria, averaged over seeds (Fig. 3, 6 and 7)."""
    held = _curves(dataset, found)
    title = f"{DATASETS[dataset]}: Spearman's rank correlation of the structures"
    with _figure((1, len(held)), (max(6.2, 4.6 * len(held)), 4.5), title, path) as axes:
        for axis, (network, results) in zip(axes[0], held.items(), strict=True):
            names = results[0]["spearman"]["criteria"]
            chosen = [names.index(name) for name in _CORRELATED]
            rho = np.mean([result["spearman"]["rho"] for result in results], axis=0)[np.ix_(chosen, chosen)]
            axis.imshow(rho, vmin=-1, vmax=1, cmap="RdBu")
            labels = [method(name).title for name in _CORRELATED]
            axis.set_xticks(range(len(labels)), labels, rotation=45, ha="right", fontsize=8)
            axis.set_yticks(range(len(labels)), labels, fontsize=8)
            for (i, j), value in np.ndenumerate(rho):
                colour = "white" if abs(value) > 0.6 else "black"
                axis.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
            axis.set_title(f"{NETWORKS[network]}, {_seeds(len(results))}")
            axis.spines[:].set_visible(False)


def draw_sweep(dataset: str, found: Found, path: Path) -> None:
    """Draw accuracy and compression of BMRS_U against p1 (Fig. 4)."""
    held: dict[str, dict[int, list[Mapping[str, Any]]]] = {}
    for run, result in found:
        if run.dataset == dataset and run.method.startswith("bmrs_u_") and _is_plain(run):
            by_p1 = held.setdefault(run.network, {})
            by_p1.setdefault(method(run.method).p1, []).append(result)
    held = {network: held[network] for network in NETWORKS if len(held.get(network, {})) > 2}
    if not held:
        raise NoResultsError(f"no sweep of p1 on {DATASETS[dataset]} is among the results")
    title = f"{DATASETS[dataset]}: BMRS_U against p1"
    with _figure((1, len(held)), (5.6 * len(held), 3.6), title, path) as axes:
        for axis, (network, by_p1) in zip(axes[0], held.items(), strict=True):
            bits = sorted(by_p1)
            count = axis.twinx()
            for panel, part, name, colour, label in (
                (axis, "test", "accuracy", COLOURS["bmrs_u_8"], "Accuracy %"),
                (count, "compression", "published", COLOURS["bmrs_n"], "Compression %"),
            ):
                values = [[r[part][name] for r in by_p1[p1]] for p1 in bits]
                mean = [np.mean(v) for v in values]
                deviation = [np.std(v, ddof=1) if len(v) > 1 else 0.0 for v in values]
                panel.errorbar(bits, mean, deviation, fmt="o-", color=colour, ms=4, lw=1.2, capsize=2)
                panel.set_ylabel(label, color=colour)
            count.spines["right"].set_visible(True)
            fewest = min(len(by_p1[p1]) for p1 in bits)
            axis.set(title=f"{NETWORKS[network]}, at least {_seeds(fewest)}", xlabel="p1, bits")


def _is_plain(run: Run) -> bool:
    """Whether all but the method is as in the paper's tables."""
    return run == Run(run.dataset, run.network, run.method, run.seed)


def draw_tolerance(dataset: str, found: Found, path: Path) -> None:
    """Draw accuracy and compression after training against the tolerance of BMRS_N."""
    held = _curves(dataset, found)
    title = f"{DATASETS[dataset]}: pruned after training where ΔF_N ≥ −tolerance"
    with _figure((1, len(held)), (5.6 * len(held), 3.8), title, path) as axes:
        for axis, (network, results) in zip(axes[0], held.items(), strict=True):
            tolerance = [point["tolerance"] for point in results[0]["tolerances"]]
            count = axis.twinx()
            _with_band(
                axis, tolerance, results, lambda _, p: p["accuracy"], COLOURS["bmrs_u_8"], "Accuracy %"
            )
            _with_band(count, tolerance, results, _share, COLOURS["bmrs_n"], "Structures removed %")
            count.spines["right"].set_visible(True)
            axis.set_xscale("symlog", linthresh=0.01)
            axis.set_xlim(0, max(tolerance))
            axis.axvline(-float(method("bmrs_n").limit or 0), color="black", lw=0.8, ls=":")
            axis.text(0.9, 0.03, "½ log 2π", transform=axis.get_xaxis_transform(), ha="right", fontsize=8)
            axis.set(title=f"{NETWORKS[network]}, {_seeds(len(results))}", xlabel="Tolerance, nats")


def _with_band(
    axis: Any,
    x: Sequence[float],
    results: Results,
    value: Callable[[Mapping[str, Any], Mapping[str, Any]], float],
    colour: str,
    label: str,
) -> None:
    values = np.array([[value(result, point) for point in result["tolerances"]] for result in results])
    mean, deviation = values.mean(0), values.std(0, ddof=1) if len(results) > 1 else 0 * values[0]
    axis.plot(x, mean, "o-", color=colour, ms=3, lw=1.2)
    axis.fill_between(x, mean - deviation, mean + deviation, color=colour, alpha=0.15, lw=0)
    axis.set_ylabel(label, color=colour)


@contextlib.contextmanager
def _figure(
    shape: tuple[int, int], size: tuple[float, float], title: str, path: Path
) -> Iterator[NDArray[Any]]:
    """Axes, (rows, columns); what was drawn on them is a PNG file when the block ends."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    style: Any = {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 9,
    }
    with plt.rc_context(style):
        figure, axes = plt.subplots(*shape, squeeze=False, figsize=size, layout="constrained")
        yield axes
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=10)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=140)
        plt.close(figure)
