"""The knee of a curve: where the next saving begins to cost more than the last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["front_of", "knee_of"]

_FEWEST = 3


def front_of(costs: Sequence[float], qualities: Sequence[float]) -> list[int]:
    """The points that are better than every cheaper one, from the cheapest on.

    Parameters
    ----------
    costs, qualities : sequence of float
        Of each point; less of the one and more of the other is better.

    Returns
    -------
    list of int
        Their numbers.
    """
    front: list[int] = []
    for number in sorted(range(len(costs)), key=lambda number: (costs[number], -qualities[number])):
        if not front or qualities[number] > qualities[front[-1]]:
            front.append(number)
    return front


def knee_of(costs: Sequence[float], qualities: Sequence[float]) -> int | None:
    """The point of the front that lies furthest above the chord between its ends, both axes scaled to 1.

    Parameters
    ----------
    costs, qualities : sequence of float
        Of each point.

    Returns
    -------
    int or None
        Its number. None where the front has fewer than three points or none of them lies above the chord.

    Notes
    -----
    As Kneedle does (Satopää, Albrecht, Irwin and Raghavan, 2011, ICDCS Workshops), without its smoothing:
    there are a handful of points here, and each was measured.

    Examples
    --------
    >>> from bmrs_torch.reporting.knee import knee_of
    >>> knee_of([100, 60, 20, 10], [0.91, 0.90, 0.88, 0.60])
    2
    """
    front = front_of(costs, qualities)
    if len(front) < _FEWEST:
        return None
    cost, quality = (np.array([values[number] for number in front], float) for values in (costs, qualities))
    above = _scaled(quality) - _scaled(cost)
    best = int(np.argmax(above))
    return front[best] if above[best] > 0 else None


def _scaled(rising: NDArray[np.float64]) -> NDArray[np.float64]:
    scaled: NDArray[np.float64] = (rising - rising[0]) / (rising[-1] - rising[0])
    return scaled
