"""A comparison as tables of text, laid out by rich."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from bmrs_torch.reporting.report import Comparison, LayerChange

WIDTH = 110


def as_text(comparison: Comparison) -> str:
    """Lay a comparison out as two tables, the networks and their layers.

    Parameters
    ----------
    comparison : Comparison
        What to show.

    Returns
    -------
    str

    Raises
    ------
    ImportError
        Without rich.
    """
    try:
        from rich.console import Console
    except ImportError as error:
        raise ImportError(
            "printing a comparison needs rich: pip install 'bmrs-pruning[report]'; .to_json() works without"
        ) from error
    file = io.StringIO()
    console = Console(file=file, width=WIDTH)
    console.print(_networks(comparison))
    console.print(_layers(comparison.layers))
    return file.getvalue().rstrip("\n")


def _networks(comparison: Comparison) -> Table:
    before, after = comparison.before, comparison.after
    table = _table("", "before", "after", "change")
    for name, old, new, form in (
        ("parameters", before.parameters, after.parameters, "{:,.0f}"),
        ("multiply-accumulates", before.macs, after.macs, "{:,.0f}"),
        ("file, kB", before.file_bytes / 1e3, after.file_bytes / 1e3, "{:,.1f}"),
        ("most activations at once, kB", before.peak_bytes / 1e3, after.peak_bytes / 1e3, "{:,.1f}"),
    ):
        table.add_row(name, form.format(old), form.format(new), _change(old, new))
    table.add_row(
        f"time, ms (median of {comparison.latency_rounds} rounds)",
        f"{before.latency_ms:.3g}",
        f"{after.latency_ms:.3g}",
        f"{comparison.speedup:.2f}× as fast",
    )
    for name, value in before.metrics.items():
        table.add_row(
            name, f"{value:.5g}", f"{after.metrics[name]:.5g}", f"{after.metrics[name] - value:+.4g}"
        )
    return table


def _layers(layers: tuple[LayerChange, ...]) -> Table:
    table = _table("layer", "kind", "weight", "parameters", "", "MACs", "")
    for layer in layers:
        same = layer.shape_before == layer.shape_after
        shapes = (
            [_shape(layer.shape_before)] if same else [_shape(layer.shape_before), _shape(layer.shape_after)]
        )
        table.add_row(
            layer.name or "(the model)",
            layer.kind,
            " → ".join(shapes),
            f"{layer.parameters_after:,}",
            _change(layer.parameters_before, layer.parameters_after),
            f"{layer.macs_after:,}",
            _change(layer.macs_before, layer.macs_after),
        )
    return table


def _table(*headings: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i > 0 else "left", overflow="fold")
    return table


def _shape(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else "×".join(map(str, shape))


def _change(old: float, new: float) -> str:
    return "" if old == new else "new" if old == 0 else f"{new / old - 1:+.1%}"
