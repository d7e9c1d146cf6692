"""The closing tables."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from benchmarks.demo.measurement import LATENCY_BATCH, Measurement
from benchmarks.demo.network import FULL_WIDTHS

LAYERS = ("conv1 (filters)", "conv2 (filters)", "fc1 (neurons)", "fc2 (neurons)")


def print_comparison(console: Console, before: Measurement, after: Measurement) -> None:
    """Print what the whole network and the shrunk one cost and reach."""
    table = Table(title="LeNet-5 before and after", title_justify="left")
    table.add_column("")
    for heading in ("trained plainly", "pruned by BMRS", "change"):
        table.add_column(heading, justify="right")
    rows: list[tuple[str, Callable[[Measurement], float], str]] = [
        ("parameters", lambda m: m.parameters, "{:,}"),
        ("MACs per image", lambda m: m.macs, "{:,}"),
        ("file size, kB", lambda m: m.file_bytes / 1e3, "{:.1f}"),
        (f"CPU, ms per batch of {LATENCY_BATCH}", lambda m: m.latency_ms, "{:.2f}"),
    ]
    for name, value, form in rows:
        old, new = value(before), value(after)
        table.add_row(name, form.format(old), form.format(new), f"{new / old - 1:+.1%}")
    points = 100 * (after.accuracy - before.accuracy)
    table.add_row("test accuracy", f"{before.accuracy:.2%}", f"{after.accuracy:.2%}", f"{points:+.2f} points")
    console.print(table)


def print_widths(console: Console, widths: tuple[int, ...]) -> None:
    """Print how many structures of each layer are left."""
    table = Table(title="Structures kept", title_justify="left")
    for heading in ("layer", "kept", "of"):
        table.add_column(heading, justify="left" if heading == "layer" else "right")
    for layer, kept, full in zip(LAYERS, widths, FULL_WIDTHS, strict=True):
        table.add_row(layer, str(kept), str(full))
    console.print(table)
