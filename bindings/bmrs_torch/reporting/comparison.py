"""What two networks cost and what became of each layer, and how that is told: tables of text."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bmrs_torch.reporting.text_table import text_table


@dataclass(frozen=True)
class Cost:
    """What one network costs.

    Attributes
    ----------
    parameters : int
        Entries of all its parameters.
    macs : int
        Multiply-accumulates for the example inputs.
    file_bytes : int
        Of the safetensors file.
    latency_ms : float
        Median time of a forward pass on the example inputs.
    peak_bytes : int
        Most bytes of activations at once in it.
    metrics : dict of str to float
        What the user measures.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import report
    >>> cost = report(nn.Linear(8, 4), nn.Linear(8, 2), torch.ones(16, 8), seconds=0.01).before
    >>> cost.parameters, cost.macs
    (36, 512)
    """

    parameters: int
    macs: int
    file_bytes: int
    latency_ms: float
    peak_bytes: int
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LayerChange:
    """What became of one layer; shapes are of its weight, None in a network that has no such layer.

    Attributes
    ----------
    name, kind : str
        Its name and class.
    shape_before, shape_after : tuple of int or None
        Of its weight, or of its first parameter.
    parameters_before, parameters_after : int
        Entries of its own parameters.
    macs_before, macs_after : int
        Multiply-accumulates for the example inputs.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import report
    >>> layer = report(nn.Linear(8, 4), nn.Linear(8, 2), torch.ones(16, 8), seconds=0.01).layers[0]
    >>> layer.kind, layer.shape_before, layer.shape_after
    ('Linear', (4, 8), (2, 8))
    """

    name: str
    kind: str
    shape_before: tuple[int, ...] | None
    shape_after: tuple[int, ...] | None
    parameters_before: int
    parameters_after: int
    macs_before: int
    macs_after: int


@dataclass(frozen=True)
class Comparison:
    """What :func:`report` found. Print it to read it.

    Attributes
    ----------
    before, after : Cost
        Of both networks.
    speedup : float
        Median over the rounds of the time of the one by that of the other.
    latency_rounds : int
        How many rounds there were.
    layers : tuple of LayerChange
        Every layer with parameters, in the order of the network before.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import report
    >>> found = report(nn.Linear(8, 4), nn.Linear(8, 2), torch.ones(16, 8), seconds=0.01)
    >>> len(found.layers), found.latency_rounds >= 5
    (1, True)
    """

    before: Cost
    after: Cost
    speedup: float
    latency_rounds: int
    layers: tuple[LayerChange, ...]

    def to_json(self) -> dict[str, Any]:
        """Give everything as dictionaries, lists, numbers and text."""
        return asdict(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything as a JSON file."""
        Path(path).write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")

    def __str__(self) -> str:
        return as_text(self)


def as_text(comparison: Comparison) -> str:
    """Lay a comparison out as two tables, the networks and their layers.

    Parameters
    ----------
    comparison : Comparison
        What to show.

    Returns
    -------
    str
    """
    return f"{_networks(comparison)}\n\n{_layers(comparison.layers)}"


def _networks(comparison: Comparison) -> str:
    before, after = comparison.before, comparison.after
    rows = []
    for name, old, new, form in (
        ("parameters", before.parameters, after.parameters, "{:,.0f}"),
        ("multiply-accumulates", before.macs, after.macs, "{:,.0f}"),
        ("file, kB", before.file_bytes / 1e3, after.file_bytes / 1e3, "{:,.1f}"),
        ("most activations at once, kB", before.peak_bytes / 1e3, after.peak_bytes / 1e3, "{:,.1f}"),
    ):
        rows.append((name, form.format(old), form.format(new), _change(old, new)))
    rows.append(
        (
            f"time, ms (median of {comparison.latency_rounds} rounds)",
            f"{before.latency_ms:.3g}",
            f"{after.latency_ms:.3g}",
            f"{comparison.speedup:.2f}× as fast",
        )
    )
    for name, value in before.metrics.items():
        now = after.metrics[name]
        rows.append((name, f"{value:.5g}", f"{now:.5g}", f"{now - value:+.4g}"))
    return text_table(("", "before", "after", "change"), rows)


def _layers(layers: tuple[LayerChange, ...]) -> str:
    rows = []
    for layer in layers:
        same = layer.shape_before == layer.shape_after
        shapes = (
            [_shape(layer.shape_before)] if same else [_shape(layer.shape_before), _shape(layer.shape_after)]
        )
        rows.append(
            (
                layer.name or "(the model)",
                layer.kind,
                " → ".join(shapes),
                f"{layer.parameters_after:,}",
                _change(layer.parameters_before, layer.parameters_after),
                f"{layer.macs_after:,}",
                _change(layer.macs_before, layer.macs_after),
            )
        )
    return text_table(("layer", "kind", "weight", "parameters", "", "MACs", ""), rows)


def _shape(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else "×".join(map(str, shape))


def _change(old: float, new: float) -> str:
    return "" if old == new else "new" if old == 0 else f"{new / old - 1:+.1%}"
