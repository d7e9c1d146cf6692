"""Rivals take turns, so that a machine that slows down slows them all; and what is made of their times."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Name = TypeVar("Name", bound=Hashable)

FEWEST, MOST = 3, 200
"""Rounds that a limit in seconds never goes below or above."""


def take_turns(
    rivals: Mapping[Name, Callable[[], T]], *, rounds: int | None = None, seconds: float = 5.0
) -> dict[Name, list[T]]:
    """Let every rival measure itself once per round, after one round that is thrown away.

    Parameters
    ----------
    rivals : mapping of a name to callable
        Each returns one measurement.
    rounds : int, optional
        How many rounds; by default as many as fit into `seconds`, at least 3 and at most 200.
    seconds : float
        Time for all rounds together, if `rounds` is left out.

    Returns
    -------
    dict of names to lists
        The measurements of each rival, one per round. The order within a round is random, so that none
        always finds the caches as the same other left them.
    """
    shuffle = random.Random(0).shuffle
    for measure in rivals.values():
        measure()
    taken: dict[Name, list[T]] = {name: [] for name in rivals}
    started = time.monotonic()
    for done in range(1, (rounds or MOST) + 1):
        order = list(rivals)
        shuffle(order)
        for name in order:
            taken[name].append(rivals[name]())
        if rounds is None and done >= FEWEST and time.monotonic() - started > seconds:
            break
    return taken


@dataclass(frozen=True)
class Spread:
    """Median of several measurements, and the quantiles that enclose the middle three fifths of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise `values`."""
        low, median, high = (float(value) for value in np.quantile(values, (0.2, 0.5, 0.8)))
        return cls(median, low, high)
