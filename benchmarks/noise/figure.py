"""The measurements as bars: times over those of a copy of the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring.chart import GREY, bar_chart
from benchmarks.noise.measurement import Result
from benchmarks.noise.table import short
from benchmarks.noise.variant import COPY


def draw_figure(results: Sequence[Result], title: str, path: Path) -> None:
    """Draw one panel per problem into a PNG file."""
    with bar_chart(len(results), title, path) as panels:
        for axes, result in zip(panels, results, strict=True):
            _draw(axes, result)


def _draw(axes: Any, result: Result) -> None:
    rows = [row for row in result.rows if row.variant != COPY and row.direction != "both"]
    names = list(dict.fromkeys(row.variant for row in rows))
    colors = {"forward": "#0072B2", "backward": "#D55E00"}
    for offset, (direction, color) in enumerate(colors.items()):
        times = {row.variant: row.kept.times_copy for row in rows if row.direction == direction}
        places = [index + 0.4 * (offset - 0.5) for index in range(len(names))]
        bars = axes.barh(places, [times[name] for name in names], height=0.38, color=color, label=direction)
        axes.bar_label(bars, [short(times[name]) for name in names], padding=3, fontsize=8)
    axes.axvline(1.0, color=GREY, lw=1, ls="--")
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_title(result.problem.title, fontsize=9)
    axes.set_xlabel("time ÷ copy of the same bytes")
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower right", bbox_to_anchor=(1.0, 1.0))
