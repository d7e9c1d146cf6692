"""Polynomials and a rational that approximate a function: by interpolation, by exchange, by least squares."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mpmath import MPContext
from numpy.typing import NDArray

__all__ = ["chebyshev_surface", "chebyshev_truncated", "mp", "reweighted", "smallest_worst", "spread"]

mp = MPContext()
mp.dps = 60

Function = Callable[[Any], Any]
Floats = NDArray[np.float64]

EXCHANGES = 20
LEVEL = 1.001


def points_of(count: int) -> list[Any]:
    """The roots of a Chebyshev polynomial, in [-1, 1]."""
    return [mp.cos(mp.pi * (2 * k + 1) / (2 * count)) for k in range(count)]


def spread(low: Any, high: Any, count: int) -> list[Any]:
    """Points of an interval, denser at its ends."""
    return [low + (high - low) * (1 - x) / 2 for x in points_of(count)]


def series_of(values: Sequence[Any]) -> list[Any]:
    """The Chebyshev series that takes values at `points_of`."""
    count = len(values)
    angles = [mp.pi * (2 * k + 1) / (2 * count) for k in range(count)]
    return [
        (2 if j else 1) * sum(v * mp.cos(j * angle) for v, angle in zip(values, angles, strict=True)) / count
        for j in range(count)
    ]


def powers_of(series: Sequence[Any], low: Any, high: Any) -> list[Any]:
    """The coefficients of x^k of a Chebyshev series in [low, high]."""
    before, now = [mp.mpf(1)], [-(high + low) / (high - low), 2 / (high - low)]
    total = [mp.mpf(0)] * len(series)
    for coefficient in series:
        for k, part in enumerate(before):
            total[k] += coefficient * part
        # T_(n+1) = 2 t T_n - T_(n-1), t = (2 x - low - high)/(high - low); T_1 = t once.
        shift, slope = -2 * (high + low) / (high - low), 4 / (high - low)
        following = [shift * part for part in now] + [mp.mpf(0)]
        for k, part in enumerate(now):
            following[k + 1] += slope * part
        for k, part in enumerate(before):
            following[k] -= part
        before, now = now, following
    return total


def without_small(series: Sequence[Any], cut: Any) -> list[Any]:
    return [coefficient if abs(coefficient) >= cut else mp.mpf(0) for coefficient in series]


def chebyshev_truncated(function: Function, low: Any, high: Any, count: int, degree: int) -> list[Any]:
    """Interpolate at `count` Chebyshev points and cut the series at a degree: coefficients of x^k."""
    series = series_of([function(low + (high - low) * (1 + x) / 2) for x in points_of(count)])
    return powers_of(series[: degree + 1], low, high)


def chebyshev_surface(
    function: Callable[[Any, Any], Any], x_end: Any, y_end: Any, count: int, cut: float
) -> list[list[Any]]:
    """Interpolate over [0, x_end] x [0, y_end] and leave out terms of the series below `cut`.

    Returns the coefficients of x^i y^j as [j][i].
    """
    xs, ys = ([end * (1 + x) / 2 for x in points_of(count)] for end in (x_end, y_end))
    by_y = [series_of([function(x, y) for y in ys]) for x in xs]
    by_x = [series_of([row[j] for row in by_y]) for j in range(count)]
    kept = [without_small(series, mp.mpf(cut)) for series in by_x]
    rows = [powers_of(series, mp.mpf(0), x_end) for series in kept]
    columns = [powers_of([row[i] for row in rows], mp.mpf(0), y_end) for i in range(count)]
    return [[columns[i][j] for i in range(count)] for j in range(count)]


def smallest_worst(function: Function, weight: Function, low: Any, high: Any, terms: int) -> list[Any]:
    """The polynomial of `terms` coefficients whose largest weighted error is smallest, by Remez' exchange."""
    grid = spread(low, high, 50 * terms)
    wanted, weights = [function(x) for x in grid], [weight(x) for x in grid]
    chosen = [len(grid) * (2 * k + 1) // (2 * (terms + 1)) for k in range(terms + 1)]
    for _ in range(EXCHANGES):
        rows = [[*(grid[i] ** k for k in range(terms)), (-1) ** n / weights[i]] for n, i in enumerate(chosen)]
        *coefficients, level = mp.lu_solve(mp.matrix(rows), mp.matrix([wanted[i] for i in chosen]))
        errors = [
            (mp.polyval(coefficients[::-1], x) - value) * w
            for x, value, w in zip(grid, wanted, weights, strict=True)
        ]
        runs = itertools.groupby(range(len(grid)), key=lambda i: errors[i] > 0)
        peaks = [max(run, key=lambda i: abs(errors[i])) for _, run in runs]
        while len(peaks) > terms + 1:
            peaks.pop(0 if abs(errors[peaks[0]]) < abs(errors[peaks[-1]]) else -1)
        if len(peaks) <= terms or max(map(abs, errors)) <= LEVEL * abs(level):
            break
        chosen = peaks
    return list(coefficients)


def reweighted(columns: Floats, target: Floats, weight: Floats, rounds: int = 60) -> Floats:
    """Solve columns @ c = target by least squares, again and again with weights towards equal errors."""
    balance = np.full(len(target), 1.0 / len(target))
    best, smallest = np.zeros(columns.shape[1]), np.inf
    for _ in range(rounds):
        scale = np.sqrt(balance) * weight
        found = np.linalg.lstsq(columns * scale[:, None], target * scale, rcond=None)[0]
        errors = np.abs(columns @ found - target) * weight
        if errors.max() < smallest:
            best, smallest = found, float(errors.max())
        balance = balance * errors
        balance /= balance.sum()
    return best
