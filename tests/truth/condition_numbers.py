"""The tables' condition numbers: κ = Σ |p ∂f/∂p| / |f| over the inputs p that a value f depends on.

By forward differences in 420 decimal digits: a step of 1e-60 leaves differences that are exact for the
purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.truth.exact import (
    Values,
    inputs,
    interval_values,
    mp,
    normal_values,
    quantile_values,
    start_of,
    support_values,
)

__all__ = ["coarse", "row_conditions"]

STEP = mp.mpf(10) ** -60


def conditions(function: Callable[..., Values], at: list[Any], **fixed: Any) -> Values:
    """κ of each value of ``function``; ``fixed`` inputs are not moved."""
    base = function(*at, **fixed)
    sums = dict.fromkeys(base, mp.mpf(0))
    for position, value in enumerate(at):
        if value == 0:
            continue
        moved = list(at)
        moved[position] = value * (1 + STEP)
        for name, changed in function(*moved, **fixed).items():
            sums[name] += abs((changed - base[name]) / STEP)
    return {name: sums[name] / abs(base[name]) if base[name] else mp.mpf(0) for name in base}


def quantiles(a: Any, b: Any, mu: Any, sigma: Any, u: Any, *, start: Any) -> Values:
    """The quantile of x and of θ under the names that the columns of κ have, with derivatives."""
    values = quantile_values(a, b, mu, sigma, u, start)
    x = values.pop("x_u")
    return values | {"x": x, "theta": mp.exp(x)}


def row_conditions(row: Values) -> Values:
    """κ of every value for one row of a table, by its column's name without ``kappa_``."""
    a, b, mu, sigma, u, a2, b2, sp = inputs(row)
    support = [a, b, mu, sigma]
    found = conditions(support_values, support)
    found |= conditions(interval_values, [*support, a2, b2])
    found |= conditions(normal_values, [*support, sp])
    # The root itself, so that Newton's method takes few steps from inputs that are moved.
    start = start_of(row) if u in (0, 1) else quantile_values(a, b, mu, sigma, u, start_of(row))["x_u"]
    return found | conditions(quantiles, [*support, u], start=start)


def coarse(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Eight binary digits: a scale needs no more, and the rest would be most of the file."""
    mantissa, exponent = np.frexp(np.clip(values, 0.0, 1e38))
    return np.ldexp(np.round(mantissa * 256) / 256, exponent).astype(np.float32)
