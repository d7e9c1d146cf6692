"""Which runs are wanted, in which order, and which settings they get: chosen on the validation images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.rivals.protocol import PROCEDURES, SETTINGS, SUBJECTS, Cell, Run, candidates
from benchmarks.rivals.record import Record


@dataclass(frozen=True)
class Wanted:
    """Which part of the comparison is asked for."""

    networks: Sequence[str] = tuple(SUBJECTS)
    methods: Sequence[str] = tuple(PROCEDURES)
    budgets: Sequence[float] = tuple(sorted({budget for budget, _ in SETTINGS}, reverse=True))
    epochs: Sequence[int] = tuple(sorted({epochs for _, epochs in SETTINGS}))
    seeds: int | None = None

    def cells(self) -> list[Cell]:
        """All that has a mean of its own, in the order in which it is of interest."""
        asked = [(budget, epochs) for budget in self.budgets for epochs in self.epochs]
        order = [pair for pair in SETTINGS if pair in asked]
        order += [pair for pair in asked if pair not in order]
        found = {
            Cell(network, method, None if method == "unpruned" else budget, epochs): None
            for budget, epochs in order
            for network in self.networks
            for method in self.methods
        }
        return list(found)

    def seeds_of(self, network: str) -> int:
        """How many seeds a network gets."""
        return SUBJECTS[network].seeds if self.seeds is None else self.seeds


def chosen(cell: Cell, record: Record) -> Run | None:
    """The candidate that got most of the validation images right, once all have run; None before.

    Candidates that failed lose. If all failed, it is the first.
    """
    runs = candidates(cell)
    found = [record.find(run) for run in runs]
    if None in found:
        return None
    right = [-1.0 if line is None or "error" in line else line["validation_accuracy"] for line in found]
    return runs[right.index(max(right))]


def missing(wanted: Wanted, record: Record) -> Iterator[Run]:
    """The runs that can be done now and haven't been: first one seed of everything, then the next."""
    for seed in range(max(map(wanted.seeds_of, wanted.networks), default=0)):
        for cell in wanted.cells():
            best = chosen(cell, record)
            if seed >= wanted.seeds_of(cell.network) or (best is None and seed > 0):
                continue
            runs = candidates(cell) if best is None else [best.final(seed)]
            yield from (run for run in runs if record.find(run) is None)
