"""Means over seeds, beside what the paper has and what the released code gave here. Imports no torch."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.paper.experiments import Run

Found = Sequence[tuple[Run, Mapping[str, Any]]]
PRINTED = 0.005
"""By how much the paper's figures, of two decimals, are rounded."""

_PUBLISHED = Path(__file__).with_name("published.json")


@dataclass(frozen=True)
class Mean:
    """Mean and standard deviation over seeds (of one seed, none)."""

    value: float
    deviation: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Summarise values."""
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)

    def near(self, other: Mean) -> bool | None:
        """Whether two means lie within two standard deviations, both taken together; None without both."""
        if self.deviation is None or other.deviation is None:
            return None
        return abs(self.value - other.value) <= 2 * math.hypot(self.deviation, other.deviation) + PRINTED


@dataclass(frozen=True)
class Cell:
    """A method on a network and a data set.

    Attributes
    ----------
    seeds : int
        How many runs are finished.
    accuracy, published_count, removed : Mean or None
        Test accuracy, compression by the paper's count and as really removed, in per cent.
    paper_accuracy, paper_count : Mean or None
        The paper's.
    released : tuple of float or None
        Accuracy and compression that the released code gave here, one seed.
    """

    dataset: str
    network: str
    method: str
    seeds: int
    accuracy: Mean | None
    published_count: Mean | None
    removed: Mean | None
    paper_accuracy: Mean | None
    paper_count: Mean | None
    released: tuple[float, float] | None

    @property
    def means(self) -> tuple[Mean | None, ...]:
        """Compression and accuracy, the paper's, and what is really removed."""
        return (
            self.published_count,
            self.accuracy,
            self.paper_count,
            self.paper_accuracy,
            self.removed,
        )


@lru_cache
def published() -> dict[str, Any]:
    """Tables 1 to 4 of the paper, and the released code's results here, one seed, in per cent and ms."""
    found: dict[str, Any] = json.loads(_PUBLISHED.read_text(encoding="utf-8"))
    return found


def cell(table: str, plain: Run, found: Found) -> Cell:
    """Summarise the runs that differ from one in the seed only.

    Parameters
    ----------
    table : str
        ``"table 1"`` or ``"table 2"``.
    plain : Run
        One of them, whether it is done or not.
    found : sequence of pairs of Run and dict
        All results.
    """
    key = _without_seed(plain)
    own = [result for run, result in found if _without_seed(run) == key]
    theirs = _entry(table, plain)
    code = _entry("released code", plain)
    return Cell(
        plain.dataset,
        plain.network,
        plain.method,
        len(own),
        _mean(own, "test", "accuracy"),
        _mean(own, "compression", "published"),
        _mean(own, "compression", "removed"),
        None if theirs is None else Mean(theirs[2], theirs[3]),
        None if theirs is None else Mean(theirs[0], theirs[1]),
        None if code is None else (code[1], code[0]),
    )


def _without_seed(run: Run) -> tuple[Any, ...]:
    return (
        run.dataset,
        run.network,
        run.method,
        run.timing,
        run.decisions,
        run.share,
        run.kl_scale,
        run.kl_weight,
    )


def _entry(table: str, run: Run) -> list[float] | None:
    of_network = published()[table].get(run.dataset, {}).get(run.network, {})
    entry: list[float] | None = of_network.get(run.method)
    return entry


def _mean(results: Sequence[Mapping[str, Any]], part: str, name: str) -> Mean | None:
    return Mean.of([result[part][name] for result in results]) if results else None
