"""The elementary functions a formula may call, and what they mean.

A backend supplies its own implementation of every name in `PRIMITIVES`; these declarations exist
so that the texts can be read, type-checked and navigated. They are never called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias, TypeVar

__all__ = [
    "PRIMITIVES",
    "Bool",
    "Real",
    "absolute",
    "decay",
    "exp",
    "expm1",
    "log",
    "log1p",
    "maximum",
    "minimum",
    "sqrt",
    "sums_over_nodes",
    "where",
]

Real: TypeAlias = Any
"""A real number, an array of them or a tile of them, whatever the backend computes with."""

Bool: TypeAlias = Any
"""The result of comparing two `Real`."""

Text = TypeVar("Text", bound=Callable[..., Any])


def _unbound(name: str) -> NoReturn:
    raise RuntimeError(f"{name} is a declaration: bind the formulas to a backend before calling them")


def absolute(x: Real) -> Real:
    """Return |x|."""
    _unbound("absolute")


def decay(x: Real) -> Real:
    """Return e^x for x < 80, but 0 where that would be no normal number (in float64 from e^-708 on)."""
    _unbound("decay")


def exp(x: Real) -> Real:
    """Return e^x."""
    _unbound("exp")


def expm1(x: Real) -> Real:
    """Return e^x - 1 with full relative accuracy near 0."""
    _unbound("expm1")


def log(x: Real) -> Real:
    """Return the natural logarithm; NaN below 0, -inf at 0."""
    _unbound("log")


def log1p(x: Real) -> Real:
    """Return log(1 + x) with full relative accuracy near 0."""
    _unbound("log1p")


def maximum(x: Real, y: Real) -> Real:
    """Return the larger of the two."""
    _unbound("maximum")


def minimum(x: Real, y: Real) -> Real:
    """Return the smaller of the two."""
    _unbound("minimum")


def sqrt(x: Real) -> Real:
    """Return the square root."""
    _unbound("sqrt")


def where(condition: Bool, x: Real, y: Real) -> Real:
    """Return x where the condition holds, else y; both are evaluated."""
    _unbound("where")


PRIMITIVES = (absolute, decay, exp, expm1, log, log1p, maximum, minimum, sqrt, where)


def sums_over_nodes(text: Text) -> Text:
    """Mark a text that sums over quadrature nodes: the order of its sums is free."""
    text.sums_over_nodes = True  # type: ignore[attr-defined]
    return text
