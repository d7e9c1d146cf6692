"""The figure: accuracy and size over the epochs, and the evidence with the rule drawn in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.demo.network import FULL_WIDTHS, lenet_parameters
from benchmarks.demo.training import EpochRecord, Run
from bmrs_torch import HALF_LOG_2PI

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"  # Okabe and Ito: told apart in any colour vision
_LINEAR_RANGE = 1.0


def draw_figure(run: Run, title: str, path: Path) -> None:
    """Draw the course and the evidence of a run into a PNG file.

    Parameters
    ----------
    run : Run
        A finished run.
    title : str
        What was trained on what.
    path : Path
        Where to write it.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    style: Any = {
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
    }
    with plt.rc_context(style):
        figure = plt.figure(figsize=(11, 5.2), layout="constrained")
        grid = figure.add_gridspec(2, 2, width_ratios=(1, 1.15))
        accuracy = figure.add_subplot(grid[0, 0])
        size = figure.add_subplot(grid[1, 0], sharex=accuracy)
        _draw_course(accuracy, size, run)
        _draw_evidence(figure.add_subplot(grid[:, 1]), run)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        figure.savefig(path, dpi=150)
        plt.close(figure)


def _draw_course(accuracy: Any, size: Any, run: Run) -> None:
    records = [record for record in run.history if record.phase != "baseline"]
    epochs = np.arange(1, len(records) + 1)
    last_pruning = sum(record.phase == "prune" for record in records)
    accuracy.plot(epochs, [100 * r.accuracy for r in records], "o-", color=BLUE, ms=4, label="BMRS")
    baseline = [r.accuracy for r in run.history if r.phase == "baseline"]
    if baseline:
        accuracy.axhline(
            100 * baseline[-1], color=GREY, ls="--", lw=1, label="whole network, trained plainly"
        )
    accuracy.set(title="Test accuracy, %")
    accuracy.tick_params(labelbottom=False)
    accuracy.legend(frameon=False, loc="lower right")
    kept = [100 * _share(record) for record in records]
    size.step(np.append(0, epochs), [100.0, *kept], where="post", color=BLUE)
    size.plot(epochs, kept, "o", color=BLUE, ms=4)
    size.set(title="Parameters left, %", xlabel="epoch", ylim=(0, 105), xlim=(0, len(records) + 0.4))
    size.annotate(f"{kept[-1]:.1f} %", (epochs[-1], kept[-1]), (0, 8), textcoords="offset points", ha="right")
    for axes in (accuracy, size):
        axes.grid(axis="y", color="#dddddd", lw=0.6)
        axes.axvspan(last_pruning, len(records) + 0.4, color="#eeeeee", zorder=0)
    if last_pruning < len(records):
        size.text(len(records) + 0.3, 96, "fine-tuning", color=GREY, ha="right", va="top", fontsize=9)


def _share(record: EpochRecord) -> float:
    return record.parameters / lenet_parameters(FULL_WIDTHS)


def _draw_evidence(axes: Any, run: Run) -> None:
    kept, pruned = np.asarray(run.kept_scores), np.asarray(run.pruned_scores)
    edges = _edges(np.concatenate((kept, pruned, [-HALF_LOG_2PI, 1.0])))
    axes.hist(
        [kept, pruned],
        bins=edges,
        stacked=True,
        color=[BLUE, ORANGE],
        edgecolor="white",
        linewidth=0.5,
        label=[f"kept ({kept.size}), as last judged", f"pruned ({pruned.size}), when pruned"],
    )
    axes.set_xscale("symlog", linthresh=_LINEAR_RANGE)
    axes.axvline(-HALF_LOG_2PI, color="black", lw=1.2)
    axes.annotate(
        "rule: prune where ΔF ≥ −½ log 2π",
        (-HALF_LOG_2PI, 1.0),
        (-6, -4),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        rotation=90,
        ha="right",
        va="top",
        fontsize=9,
    )
    axes.set(title="Structures by evidence for their removal", xlabel="ΔF, nats (logarithmic beyond ±1)")
    axes.set_ylabel("structures")
    axes.legend(frameon=False, loc="upper left")
    axes.grid(axis="y", color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)


def _edges(scores: Any) -> Any:
    """Edges of bins of equal width on the symmetric logarithmic axis, one of them on the rule."""
    step = 0.2

    def flatten(x: Any) -> Any:
        return np.where(np.abs(x) <= 1, x, np.sign(x) * (1 + np.log10(np.maximum(np.abs(x), 1))))

    rule = float(flatten(np.array(-HALF_LOG_2PI)))
    low, high = flatten(scores.min()), flatten(scores.max())
    positions = rule + step * np.arange(np.floor((low - rule) / step), np.ceil((high - rule) / step) + 1)
    return np.where(np.abs(positions) <= 1, positions, np.sign(positions) * 10.0 ** (np.abs(positions) - 1))
