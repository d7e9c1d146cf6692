"""The measurements as tables of at most 120 columns."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.noise.measurement import Result, Row, Timing
from benchmarks.noise.variant import COPY, OURS

WIDTH = 120
SHORT = 1e-4
"""Seconds; a problem whose copy takes less is told in microseconds."""
LEGEND = """\
ms or µs: median, and the quantiles 20–80 % of the rounds. GB/s: of the bytes that must be moved (forward
x, y; backward x, dy, dx; kl: parameters and gradients). % copy: beside a copy of as many bytes in the same
round. × ours: time over that of bmrs_torch. Fresh: all free memory goes back to the system before each
call, so that outputs and temporaries come in new pages (and so does the copy's output); left of it, freed
memory is kept. mem: the most that was held at a time beyond the output, in multiples of x. Each variant was
first checked, forward and gradients: bmrs_torch on the noise of a seed, others on the noise they drew.
naive: inverse cdf by erf and erfinv of parameters expanded to the shape of the noise, as in the published
code; hoisted: once per structure what depends on it alone; compiled: that by torch.compile (kl: the naive
formula layer by layer). They are right for mild parameters only, and checked there."""


def console() -> Console:
    """Write to the terminal as it is now, never wider than the table may be."""
    return Console(width=WIDTH, highlight=False, soft_wrap=False)


def print_result(on: Console, result: Result) -> None:
    """Print one problem: its table, what was left out, what the allocator did."""
    on.print(_table(result))
    for name, reason in result.left_out.items():
        on.print(Text(f"  {name}: {reason}"))
    ours = [row for row in result.rows if row.variant == OURS and row.direction == "both"]
    if ours and ours[0].fresh is not None:
        row, fresh = ours[0], ours[0].fresh
        on.print(
            f"  Page faults of {OURS}, forward and backward together: "
            f"{row.kept.page_faults:,.0f} with freed memory kept, {fresh.page_faults:,.0f} fresh."
        )
    on.print()


def _table(result: Result) -> Table:
    table = Table(
        title=result.problem.title, title_justify="left", title_style="bold", box=box.SIMPLE, pad_edge=False
    )
    unit, scale = _unit(result)
    table.add_column("direction", no_wrap=True)
    table.add_column("variant", no_wrap=True)
    heads = (unit, "20–80 %", "GB/s", "% copy", "× ours", f"fresh {unit}", "% copy", "× ours", "mem")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    previous = ""
    for row in result.rows:
        first = row.direction != previous
        if first:
            table.add_section()
        style = "bold" if row.variant == OURS else None
        table.add_row(row.direction if first else "", row.variant, *_cells(row, scale), style=style)
        previous = row.direction
    return table


def _unit(result: Result) -> tuple[str, float]:
    """The unit in which a copy is a number with few digits, and how many of them make a second."""
    copy = next(row for row in result.rows if row.variant == COPY)
    return ("µs", 1e6) if copy.kept.seconds.median < SHORT else ("ms", 1e3)


def _cells(row: Row, scale: float) -> list[str]:
    kept = _timed(row.kept, scale)
    fresh = ("–", "–", "–") if row.fresh is None else _timed(row.fresh, scale)
    spread = f"{short(scale * row.kept.seconds.low)}–{short(scale * row.kept.seconds.high)}"
    memory = "–" if row.memory is None else f"{row.memory:.2f}"
    return [kept[0], spread, short(row.gigabytes_per_second), *kept[1:], *fresh, memory]


def _timed(timing: Timing, scale: float) -> tuple[str, str, str]:
    times_ours = "–" if timing.times_ours is None else short(timing.times_ours)
    return short(scale * timing.seconds.median), short(100 / timing.times_copy), times_ours


def short(value: float) -> str:
    """Write a positive number with three digits where they fit."""
    if value < 0.001:
        return "<0.001"
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2 if value >= 0.0995 else 3
    return f"{value:,.{digits}f}"
