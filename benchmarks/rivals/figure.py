"""The figures: accuracy against multiply-adds and against parameters, with a band of ± one deviation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.rivals.outcome import Outcome, outcome, shown
from benchmarks.rivals.protocol import SUBJECTS, Cell
from benchmarks.rivals.record import Record

# Okabe and Ito: told apart in any colour vision
_LOOKS = {
    "bmrs": ("#0072B2", "o", "-"),
    "taylor": ("#D55E00", "s", "-"),
    "l2": ("#E69F00", "D", "-"),
    "scratch": ("#009E73", "^", "-"),
    "random": ("#999999", "v", "-"),
    "bmrs_teacher": ("#0072B2", "o", "--"),
    "taylor_teacher": ("#D55E00", "s", "--"),
}
_LEFT = {"macs_left": "multiply-adds left, %", "parameters_left": "parameters left, %"}


def draw(record: Record, folder: Path) -> list[Path]:
    """Draw a figure for each network that has final runs; return the files."""
    return [
        _draw(network, record, folder / f"rivals_{network}.png")
        for network in SUBJECTS
        if any(found.lines for found in _all(network, record).values())
    ]


def _all(network: str, record: Record) -> dict[Cell, Outcome]:
    return {cell: outcome(cell, record) for cell in replace(shown(record), networks=[network]).cells()}


def _draw(network: str, record: Record, path: Path) -> Path:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    style: Any = {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
    }
    found = _all(network, record)
    rows = sorted({cell.epochs for cell, result in found.items() if result.lines})
    with plt.rc_context(style):
        figure, grid = plt.subplots(
            len(rows), 2, squeeze=False, sharey="row", figsize=(10, 1 + 3.4 * len(rows)), layout="constrained"
        )
        for axes, epochs in zip(grid, rows, strict=True):
            some = {cell: result for cell, result in found.items() if cell.epochs == epochs and result.lines}
            for panel, (key, label) in zip(axes, _LEFT.items(), strict=True):
                _panel(panel, some, key)
                panel.set(xlabel=label, title=f"{epochs} further epochs")
            axes[0].set_ylabel("test accuracy, %")
        handles = {
            text: handle
            for panel in grid.flat
            for handle, text in zip(*panel.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False)
        title = f"{SUBJECTS[network].title} on {record.data}: mean and ± one deviation over seeds"
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=10)
        figure.savefig(path, dpi=130)
        plt.close(figure)
    return path


def _panel(panel: Any, found: dict[Cell, Outcome], key: str) -> None:
    for cell, whole in found.items():
        if cell.method == "unpruned":
            mean, deviation = _accuracy(whole)
            panel.axhline(mean, color="black", lw=1, ls=":", label="unpruned")
            panel.axhspan(mean - deviation, mean + deviation, color="black", alpha=0.08, lw=0)
    for method, (colour, marker, line) in _LOOKS.items():
        points = sorted(
            (100 * result.mean(key), *_accuracy(result))
            for cell, result in found.items()
            if cell.method == method
        )
        if points:
            left, means, deviations = zip(*points, strict=True)
            low, high = ([m + s * d for m, d in zip(means, deviations, strict=True)] for s in (-1, 1))
            name = method.replace("_teacher", ", taught")
            face = "white" if name != method else colour
            panel.plot(left, means, color=colour, marker=marker, ms=4, mfc=face, ls=line, lw=1.2, label=name)
            panel.vlines(left, low, high, color=colour, lw=0.8)
            panel.fill_between(left, low, high, color=colour, alpha=0.12, lw=0)


def _accuracy(found: Outcome) -> tuple[float, float]:
    return 100 * found.mean("test_accuracy"), 100 * found.deviation("test_accuracy")
