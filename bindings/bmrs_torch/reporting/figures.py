"""Figures: what was kept of each layer, and the evidence with the rule drawn in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bmrs_torch.deciding.prune import PruneReport
from bmrs_torch.reporting.canvas import BLUE, ORANGE, canvas

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bmrs_torch.reporting.comparison import Comparison

_LINEAR_RANGE = 1.0
_BIN = 0.2


def draw_layers(
    what: Comparison | PruneReport, path: str | os.PathLike[str], *, title: str = "What is left of each layer"
) -> None:
    """Draw how much of each layer is kept and how much is gone into a PNG, PDF or SVG file.

    Parameters
    ----------
    what : Comparison or PruneReport
        The parameters of every layer that became smaller, or the structures of every noise layer.
    path : path-like
        Where to write it; the suffix says as what.
    title : str
        Of the figure.

    Raises
    ------
    ImportError
        Without matplotlib.
    ValueError
        If there is nothing to draw.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import draw_layers, report
    >>> found = report(nn.Linear(8, 4), nn.Linear(8, 2), torch.ones(16, 8), seconds=0.01)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     draw_layers(found, Path(folder) / "layers.png")
    ...     (Path(folder) / "layers.png").exists()
    True
    """
    if isinstance(what, PruneReport):
        unit = "structures"
        bars = [(layer.name, layer.num_kept, layer.kept.size) for layer in what.layers]
    else:
        unit = "parameters"
        bars = [
            (layer.name, layer.parameters_after, layer.parameters_before)
            for layer in what.layers
            if layer.parameters_after < layer.parameters_before
        ]
    if not bars:
        raise ValueError("no layer became smaller, so there is nothing to draw")
    names, kept, full = zip(*bars, strict=True)
    share = 100 * np.asarray(kept) / np.asarray(full)
    with canvas(path, title, height=1.2 + 0.28 * len(names)) as (axes,):
        places = np.arange(len(names))
        axes.barh(places, share, color=BLUE, label="kept")
        axes.barh(places, 100 - share, left=share, color=ORANGE, label="gone")
        for place, (_, number, total) in enumerate(bars):
            axes.annotate(
                f"{number:,} of {total:,}", (101, place), va="center", fontsize=8, annotation_clip=False
            )
        axes.set(xlabel=f"{unit}, %", xlim=(0, 100), yticks=places, yticklabels=names)
        axes.invert_yaxis()
        axes.figure.legend(frameon=False, loc="outside lower center", ncols=2)


def draw_evidence(
    decisions: PruneReport | Sequence[PruneReport],
    path: str | os.PathLike[str],
    *,
    title: str = "Structures by their score",
) -> None:
    """Draw a histogram of the scores, kept and pruned, with the rule, into a PNG, PDF or SVG file.

    Parameters
    ----------
    decisions : PruneReport or sequence of PruneReport
        What :func:`prune` returned, once or each time, of the same model and criterion: a structure counts
        with the score it had when it was pruned, or last.
    path : path-like
        Where to write it; the suffix says as what.
    title : str
        Of the figure.

    Raises
    ------
    ImportError
        Without matplotlib.
    ValueError
        Without any decision.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import draw_evidence, insert_noise, prune
    >>> x = torch.ones(2, 4)
    >>> model = insert_noise(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), x)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     draw_evidence(prune(model), Path(folder) / "evidence.png")
    ...     (Path(folder) / "evidence.png").exists()
    True
    """
    reports = [decisions] if isinstance(decisions, PruneReport) else list(decisions)
    if not reports:
        raise ValueError("decisions must be at least one PruneReport, got none")
    kept, pruned = _kept_and_pruned(reports)
    limit, symbol = reports[-1].limit, reports[-1].criterion.symbol
    with canvas(path, title, height=3.6) as (axes,):
        axes.hist(
            [kept, pruned],
            bins=_edges(np.concatenate([kept, pruned]), limit),
            stacked=True,
            color=[BLUE, ORANGE],
            edgecolor="white",
            linewidth=0.5,
            label=[f"kept ({kept.size})", f"pruned ({pruned.size}), when pruned"],
        )
        axes.set_xscale("symlog", linthresh=_LINEAR_RANGE)
        if limit is not None:
            axes.axvline(limit, color="black", lw=1.2)
            axes.annotate(
                reports[-1].rule,
                (limit, 1.0),
                (-5, -4),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                rotation=90,
                ha="right",
                va="top",
                fontsize=8,
            )
        unit = ", nats" if reports[-1].criterion.is_evidence else ""
        axes.set(xlabel=f"{symbol}{unit} (logarithmic beyond ±1)", ylabel="structures")
        axes.legend(frameon=False)


def _kept_and_pruned(reports: Sequence[PruneReport]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of what is kept, from the last report, and of the rest, each from the report that pruned it.

    Layers that were made narrower in between have other structures in each report: what a report shows as
    pruned in them was pruned then.
    """
    last = reports[-1]
    kept = [layer.scores[layer.kept] for layer in last.layers]
    pruned = []
    earlier: dict[str, NDArray[np.bool_]] = {}
    for decision in reports:
        for layer in decision.layers:
            before = earlier.get(layer.name)
            same = before is not None and before.size == layer.kept.size
            was_kept = before if same and before is not None else np.ones(layer.kept.size, dtype=bool)
            pruned.append(layer.scores[was_kept & ~layer.kept])
            earlier[layer.name] = layer.kept
    return np.concatenate(kept), np.concatenate(pruned)


def _edges(scores: NDArray[np.float64], limit: float | None) -> NDArray[np.float64]:
    """Edges of bins of equal width on the symmetric logarithmic axis, one of them on the rule."""
    rule = 0.0 if limit is None else limit
    places = _flatten(np.append(scores, [rule, 1.0]))
    origin = float(_flatten(np.array([rule]))[0])
    first, last = np.floor((places.min() - origin) / _BIN), np.ceil((places.max() - origin) / _BIN)
    edges = origin + _BIN * np.arange(first, last + 1)
    unfolded: NDArray[np.float64] = np.where(
        np.abs(edges) <= 1, edges, np.sign(edges) * 10.0 ** (np.abs(edges) - 1)
    )
    return unfolded


def _flatten(x: NDArray[np.float64]) -> NDArray[np.float64]:
    flat: NDArray[np.float64] = np.where(
        np.abs(x) <= 1, x, np.sign(x) * (1 + np.log10(np.maximum(np.abs(x), 1)))
    )
    return flat
