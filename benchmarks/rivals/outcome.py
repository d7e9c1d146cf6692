"""What came of a cell: the settings that were chosen, and the final runs with them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.rivals.plan import Wanted, chosen
from benchmarks.rivals.protocol import Cell, Run
from benchmarks.rivals.record import Record


@dataclass(frozen=True)
class Outcome:
    """What is known of a cell.

    Attributes
    ----------
    run : Run or None
        The settings that were chosen; None if they aren't yet.
    lines : dict of int to dict
        What came of the final runs, by seed; failed ones are left out.
    error : str or None
        Why it can't be done, if it can't, for one of the seeds at least.
    """

    run: Run | None
    lines: dict[int, dict[str, Any]]
    error: str | None = None

    def mean(self, key: str) -> float:
        """Mean over the seeds."""
        return statistics.fmean(line[key] for line in self.lines.values())

    def deviation(self, key: str) -> float:
        """Standard deviation over the seeds; 0 for one."""
        values = [line[key] for line in self.lines.values()]
        return statistics.stdev(values) if len(values) > 1 else 0.0


def outcome(cell: Cell, record: Record) -> Outcome:
    """Look a cell up."""
    run = chosen(cell, record)
    if run is None:
        return Outcome(None, {})
    seeds = sorted({line["seed"] for line in record.lines.values()})
    found = {seed: line for seed in seeds if (line := record.find(run.final(seed))) is not None}
    errors = [line["error"] for line in found.values() if "error" in line]
    right = {seed: line for seed, line in found.items() if "error" not in line}
    return Outcome(run, right, errors[0] if errors else None)


def differences(ours: Outcome, rival: Outcome, seeds: Iterable[int]) -> list[float]:
    """How much more of the test images ours get right, seed by seed."""
    pairs = ((ours.lines[seed], rival.lines[seed]) for seed in seeds)
    return [mine["test_accuracy"] - other["test_accuracy"] for mine, other in pairs]


def shown(record: Record) -> Wanted:
    """The budgets and lengths of the comparison, and others that the record has."""
    whole, lines = Wanted(), record.lines.values()
    return Wanted(
        budgets=sorted({*whole.budgets, *(line["budget"] for line in lines)} - {None}, reverse=True),
        epochs=sorted({*whole.epochs, *(line["epochs"] for line in lines)}),
    )
