"""The figure of a sweep: what the networks still can against what they cost."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

from bmrs_torch.operation.arguments import described
from bmrs_torch.reporting.canvas import BLUE, GREY, ORANGE, canvas
from bmrs_torch.reporting.knee import front_of
from bmrs_torch.reporting.labels import Label, place_labels
from bmrs_torch.reporting.sweep_result import UNPRUNED, Sweep, SweepCost, SweepRow

__all__ = ["draw_sweep"]

_PANELS: tuple[tuple[SweepCost, str], ...] = (
    ("parameters", "parameters"),
    ("macs", "multiply-adds of the example inputs"),
)
_FEWEST, _FALL = 3, 3.0
"""The scale is that of the best, at least three, if the next lies more than thrice their span below, and
that fall is more than half of all."""
_ONE_PLACE = 6.0
"""Pixels within which two points can't be told apart."""


def draw_sweep(sweep: Sweep, path: str | os.PathLike[str], *, title: str | None = None) -> None:
    """Draw the first metric against parameters and multiply-adds into a PNG, PDF or SVG file.

    One point for each network, with its setting; a line through those that are better than every cheaper one;
    the knee of each panel in another colour. Networks so much worse than all others that these could not be
    told apart are triangles on the lower edge, with their value. Settings that failed have no point.

    Parameters
    ----------
    sweep : Sweep
        What :func:`sweep` found.
    path : path-like
        Where to write it; the suffix says as what.
    title : str, optional
        Of the figure.

    Raises
    ------
    ImportError
        Without matplotlib.
    TypeError
        For anything but a sweep.

    Examples
    --------
    See :func:`sweep`.
    """
    if not isinstance(sweep, Sweep):
        raise TypeError(f"sweep must be what bmrs_torch.sweep found, got {described(sweep)}")
    heading = f"{sweep.metric.split(',')[0]} against size, by {sweep.dial}" if title is None else title
    floor = _floor([row.metrics[sweep.metric] for row in sweep.networks])
    with canvas(path, heading, height=4.2, panels=len(_PANELS)) as panels:
        for axes, (cost, name) in zip(panels, _PANELS, strict=True):
            _draw(axes, sweep, cost, floor)
            axes.set(xlabel=name)
        panels[0].set(ylabel=sweep.metric)
        figure = panels[0].figure
        figure.draw_without_rendering()  # lays it out: labels are placed by what is where
        figure.set_layout_engine("none")
        for axes, (cost, _) in zip(panels, _PANELS, strict=True):
            place_labels(axes, list(_places(sweep, cost, floor).values()), _labels(axes, sweep, cost, floor))


def _floor(values: Sequence[float]) -> float:
    """Below which networks are drawn on the lower edge; −inf where one scale suits them all."""
    down = sorted(values, reverse=True)
    for number in range(_FEWEST, len(down)):
        span, fall = down[0] - down[number - 1], down[number - 1] - down[number]
        if fall > _FALL * span > 0 and fall > (down[0] - down[-1]) / 2:
            return down[number - 1] - 0.25 * span
    return -math.inf


def _draw(axes: Any, sweep: Sweep, cost: SweepCost, floor: float) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    rows, knee = sweep.networks, sweep.knee(cost)
    costs = [getattr(row, cost) for row in rows]
    values = [row.metrics[sweep.metric] for row in rows]
    front = front_of(costs, values)
    axes.plot([costs[i] for i in front], [values[i] for i in front], color=BLUE, lw=1, zorder=1)
    colours = [GREY if row.label == UNPRUNED else ORANGE if row is knee else BLUE for row in rows]
    sizes = [70 if row is knee else 36 for row in rows]
    places = _places(sweep, cost, floor)
    for marker, below in (("o", False), ("v", True)):
        chosen = [i for i, value in enumerate(values) if (value < floor) == below]
        axes.scatter(
            [costs[i] for i in chosen],
            [places[rows[i].label][1] for i in chosen],
            s=[sizes[i] for i in chosen],
            c=[colours[i] for i in chosen],
            marker=marker,
            edgecolors="white",
            linewidths=0.8,
            zorder=2,
            clip_on=False,
        )
    axes.set_xlim(-0.04 * max(costs), 1.08 * max(costs))
    if math.isfinite(floor):
        axes.set_ylim(floor, max(values) + 0.12 * (max(values) - floor))
    else:
        axes.margins(y=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(EngFormatter(sep="\N{NO-BREAK SPACE}"))
    axes.grid(color="0.9", lw=0.6)


def _places(sweep: Sweep, cost: SweepCost, floor: float) -> dict[str, tuple[float, float]]:
    """Where the point of each setting is, in the units of the axes."""
    return {row.label: (getattr(row, cost), max(row.metrics[sweep.metric], floor)) for row in sweep.networks}


def _labels(axes: Any, sweep: Sweep, cost: SweepCost, floor: float) -> list[Label]:
    """Each setting beside its point, those at one place together."""
    rows, knee = sweep.networks, sweep.knee(cost)
    points = _places(sweep, cost, floor)
    groups: dict[tuple[int, int], list[SweepRow]] = {}
    for row in rows:
        x, y = axes.transData.transform(points[row.label])
        groups.setdefault((round(x / _ONE_PLACE), round(y / _ONE_PLACE)), []).append(row)
    labels = []
    for group in groups.values():
        is_knee = any(row is knee for row in group)
        value = group[0].metrics[sweep.metric]
        told = " (knee)" if is_knee else f": {value:.3g}" if value < floor else ""
        colour = ORANGE if is_knee else GREY if group[0].label == UNPRUNED else BLUE
        labels.append(
            Label(points[group[0].label], ", ".join(row.label for row in group) + told, colour, is_knee)
        )
    return sorted(labels, key=lambda label: (not label.bold, label.colour != GREY))
