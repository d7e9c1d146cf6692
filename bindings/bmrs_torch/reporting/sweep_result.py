"""What a sweep found: a row for each setting of the dial, as a table and as JSON, and the knee."""

from __future__ import annotations

import json
import os
import textwrap
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from torch import nn

from bmrs_torch.reporting.knee import knee_of
from bmrs_torch.reporting.text_table import text_table

__all__ = ["UNPRUNED", "Sweep", "SweepCost", "SweepRow"]

SweepCost = Literal["parameters", "macs", "file_bytes"]
UNPRUNED = "unpruned"
_COSTS: dict[SweepCost, str] = {"parameters": "parameters", "macs": "multiply-adds", "file_bytes": "file, kB"}
assert tuple(_COSTS) == get_args(SweepCost)


@dataclass(frozen=True)
class SweepRow:
    """One network of a sweep.

    Attributes
    ----------
    label : str
        The setting in words, ``"unpruned"`` for the network from which all began.
    value : float, dict or None
        The setting.
    parameters, macs, file_bytes : int or None
        What the network costs, as :func:`report` counts it; None if there is none.
    metrics : dict of str to float
        What the user measures of it.
    seconds : float
        What it took to prune it.
    notes : tuple of str
        What was warned of meanwhile, such as a collapse.
    failed : str or None
        Why there is no network.
    model : nn.Module or None
        The network, if there is one and it could be loaded; not in the JSON.

    Examples
    --------
    See :func:`sweep`.
    """

    label: str
    value: Any
    parameters: int | None = None
    macs: int | None = None
    file_bytes: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    failed: str | None = None
    model: nn.Module | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Give all but the network as dictionaries, lists, numbers and text."""
        told = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "model"}
        return told | {"notes": list(self.notes)}


@dataclass(frozen=True)
class Sweep:
    """What :func:`sweep` found. Print it to read it, draw it with :func:`draw_sweep`.

    Attributes
    ----------
    dial : {"kl_weight", "budget"}
        What was turned.
    rows : tuple of SweepRow
        The unpruned network first, then a row for each setting in the order given.
    settings : dict
        What else decides the result, in plain values.

    Examples
    --------
    See :func:`sweep`.
    """

    dial: str
    rows: tuple[SweepRow, ...]
    settings: dict[str, Any]

    @property
    def metric(self) -> str:
        """Name of the first metric, the one by which the knee is found."""
        return next(iter(self.rows[0].metrics))

    @property
    def networks(self) -> tuple[SweepRow, ...]:
        """The rows that have a network."""
        return tuple(row for row in self.rows if row.failed is None)

    def knee(self, cost: SweepCost = "macs") -> SweepRow | None:
        """The row beyond which a further saving costs disproportionately much of the first metric.

        Parameters
        ----------
        cost : {"parameters", "macs", "file_bytes"}
            What is saved; by default work, for the reason given in :func:`cost_weights`.

        Returns
        -------
        SweepRow or None
            Of the networks that are better than every cheaper one, the one furthest above the straight line
            from the cheapest to the best of them, both axes scaled to 1 (Kneedle: Satopää et al., 2011). None
            if there are fewer than three of them, or none lies above that line.

        Raises
        ------
        ValueError
            For another cost.
        """
        if cost not in _COSTS:
            raise ValueError(f"cost must be one of {', '.join(map(repr, _COSTS))}, got {cost!r}")
        found = self.networks
        number = knee_of([getattr(row, cost) for row in found], [row.metrics[self.metric] for row in found])
        return None if number is None else found[number]

    def to_json(self) -> dict[str, Any]:
        """Give everything but the networks as dictionaries, lists, numbers and text."""
        knees = {cost: self.knee(cost) for cost in _COSTS}
        return {
            "dial": self.dial,
            "metric": self.metric,
            "knee": {cost: None if row is None else row.label for cost, row in knees.items()},
            "rows": [row.to_json() for row in self.rows],
            "settings": self.settings,
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything but the networks as a JSON file."""
        Path(path).write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")

    def __str__(self) -> str:
        headings = [self.dial, *self.rows[0].metrics]
        for heading in _COSTS.values():
            headings += [heading, ""]
        table = text_table([*headings, "seconds", ""], [self._cells(row) for row in self.rows])
        return "\n".join([table, *self._remarks()])

    def _cells(self, row: SweepRow) -> list[str]:
        names = self.rows[0].metrics
        if row.failed is not None:
            return [
                row.label,
                *("–" for _ in names),
                *(["–", ""] * len(_COSTS)),
                f"{row.seconds:.0f}",
                "failed",
            ]
        cells = [row.label, *(f"{row.metrics[name]:.5g}" for name in names)]
        for cost in _COSTS:
            now, before = getattr(row, cost), getattr(self.rows[0], cost)
            number = f"{now / 1e3:,.1f}" if cost == "file_bytes" else f"{now:,}"
            cells += [number, f"{now / before:.1%}" if before else ""]
        mark = "knee" if row is self.knee() else "warned" if row.notes else ""
        return [*cells, "" if row.label == UNPRUNED else f"{row.seconds:.0f}", mark]

    def _remarks(self) -> list[str]:
        """Where the knees are, and what was said of single rows, below the table."""
        knees = [(heading.split(",")[0], self.knee(cost)) for cost, heading in _COSTS.items()]
        found = [f"{row.label} by {heading}" for heading, row in knees if row is not None]
        said = [f"knee of {self.metric}: {', '.join(found) or 'none'}"]
        for row in self.rows:
            said += [f"{row.label}: {note}" for note in ([row.failed] if row.failed else row.notes)]
        return [line for text in said for line in textwrap.wrap(text, 110, subsequent_indent="    ")]
