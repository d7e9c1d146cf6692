"""The training steps as a table and as bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.measuring.chart import GREY, bar_chart
from benchmarks.noise.table import short
from benchmarks.training_step.measurement import NetworkResult
from benchmarks.training_step.steps import FREE, NAIVE, OURS, WITHOUT

COLORS = {OURS: "#0072B2", FREE: "#56B4E9", NAIVE: "#D55E00", "paper": GREY}
LEGEND = """\
A step: zero the gradients, forward, loss with its KL, backward, Adam. ms: median, and the quantiles 20–80 %
of the rounds. ÷ without: time over that without noise in the same round, the median of the rounds. paper:
Table 3, BMRS_N ÷ None, on the authors' GPU. free draws: one multiplication a layer by noise made once, the
floor for noise that torch multiplies by. naive: a draw per activation by erf and erfinv, in eager torch,
KL layer by layer. Each was first checked: nearly the loss and the gradient of the network without noise."""


def print_results(on: Console, results: Sequence[NetworkResult]) -> None:
    """Print all networks in one table, then what was left out."""
    table = Table(
        title="Training step", title_justify="left", title_style="bold", box=box.SIMPLE, pad_edge=False
    )
    table.add_column("network, batch of 32", no_wrap=True)
    table.add_column("variant", no_wrap=True)
    for head in ("ms", "20–80 %", "forward ms", "÷ without", "paper"):
        table.add_column(head, justify="right", no_wrap=True)
    for result in results:
        table.add_section()
        for timing in result.timings:
            spread = f"{short(1e3 * timing.seconds.low)}–{short(1e3 * timing.seconds.high)}"
            table.add_row(
                result.network.title if timing.variant == WITHOUT else "",
                timing.variant,
                short(1e3 * timing.seconds.median),
                spread,
                short(1e3 * timing.forward.median),
                short(timing.ratio),
                short(result.network.paper_ratio) if timing.variant == OURS else "",
                style="bold" if timing.variant == OURS else None,
            )
    on.print(table)
    for result in results:
        for name, reason in result.left_out.items():
            on.print(Text(f"  {result.network.title}, {name}: {reason}"))


def record(result: NetworkResult) -> dict[str, Any]:
    """One network as plain values."""
    return {
        "network": result.key,
        "title": result.network.title,
        "paper": {
            "without_ms": result.network.without,
            "with_noise_ms": result.network.with_noise,
            "ratio": result.network.paper_ratio,
        },
        "variants": [asdict(timing) for timing in result.timings],
        "left_out": result.left_out,
    }


def draw_figure(results: Sequence[NetworkResult], title: str, path: Path) -> None:
    """Draw the ratios to the step without noise as bars, the paper's beside them, into a PNG file."""
    with bar_chart(1, title, path, height=1.0 + 1.1 * len(results)) as (axes,):
        for offset, (name, color) in enumerate(COLORS.items()):
            places = [index + 0.21 * (offset - 1.5) for index in range(len(results))]
            bars = axes.barh(places, [_ratio(one, name) for one in results], 0.19, color=color, label=name)
            axes.bar_label(bars, fmt="%.2f×", padding=3, fontsize=8)
        axes.axvline(1.0, color="black", lw=1, ls="--")
        axes.set_yticks(range(len(results)), [one.network.title for one in results])
        axes.invert_yaxis()
        axes.margins(x=0.1)
        axes.set_xlabel("training step with noise ÷ without (paper: on a GPU)")
        axes.legend(frameon=False)


def _ratio(result: NetworkResult, name: str) -> float:
    ratios = {timing.variant: timing.ratio for timing in result.timings}
    return result.network.paper_ratio if name == "paper" else ratios.get(name, float("nan"))
