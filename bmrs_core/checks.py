"""Checks of values: each says what was accepted, what came and why it matters."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from bmrs_core.arrays import Arguments, Array

__all__ = [
    "require",
    "require_bounds",
    "require_finite",
    "require_part",
    "require_posterior",
    "require_within",
]

NO_LABELS: Mapping[str, str] = MappingProxyType({})


def require(
    arguments: Arguments, bad: Array, name: str, rule: str, why: str, label: str | None = None
) -> None:
    """Raise a ValueError that shows the first offending element of an argument.

    Parameters
    ----------
    arguments
        The checked arguments; nothing is required of values that are not known yet.
    bad
        True where the rule is broken; of the argument's shape or broadcast against others.
    name
        The argument at fault.
    rule
        What is accepted, e.g. "positive".
    why
        Why it matters.
    label
        What the message calls the argument, if not by its name.
    """
    if not bool(bad.any()):
        return
    offending = _to_numpy(bad)
    value = np.broadcast_to(_to_numpy(arguments.values[name]), offending.shape)
    index = tuple(int(i) for i in np.argwhere(offending)[0])
    place = f" at index {index} ({int(offending.sum())} of {offending.size} elements)" if index else ""
    raise ValueError(f"{label or name} must be {rule}, got {float(value[index])!r}{place}: {why}")


def _to_numpy(array: Any) -> Any:
    """Return a copy in the host's memory, also of a GPU array: it is about to be shown in a message."""
    if hasattr(array, "get"):  # CuPy
        return array.get()
    if hasattr(array, "cpu"):  # torch
        return array.cpu().numpy()
    return np.asarray(array)


def _infinite(array: Array) -> Array:
    return abs(array) == float("inf")


def _certainly_finite(array: Array) -> bool:
    """Tell in one quick pass whether a NumPy array holds neither infinities nor NaN."""
    return isinstance(array, np.ndarray) and bool(np.isfinite(array).all())


def require_finite(arguments: Arguments, *names: str) -> None:
    """Require that arguments are not infinite; NaN passes through to the result."""
    for name in names:
        if _certainly_finite(arguments.values[name]):
            continue
        bad = _infinite(arguments.values[name])
        require(arguments, bad, name, "finite", "an infinite parameter describes no distribution")


def require_bounds(arguments: Arguments) -> None:
    """Require finite log_a < log_b."""
    if arguments.traced:
        return
    values = arguments.values
    for name in ("log_a", "log_b"):
        bad = _infinite(values[name]) | (values[name] != values[name])
        require(arguments, bad, name, "finite", "theta is truncated to [exp(log_a), exp(log_b)]")
    bad = values["log_a"] >= values["log_b"]
    require(arguments, bad, "log_a", "below log_b", "the support [log_a, log_b] of log theta would be empty")


def require_posterior(arguments: Arguments) -> None:
    """Require a truncated log-normal: sigma > 0, mu and sigma not infinite, log_a < log_b."""
    if arguments.traced:
        return
    bad = arguments.values["sigma"] <= 0
    why = "it is the standard deviation of log theta before truncation, not its logarithm"
    require(arguments, bad, "sigma", "positive", why)
    require_finite(arguments, "mu", "sigma")
    require_bounds(arguments)


def require_within(arguments: Arguments, name: str, lower: Any, upper: Any, rule: str, why: str) -> None:
    """Require lower <= argument <= upper; NaN passes through to the result."""
    if arguments.traced:
        return
    value = arguments.values[name]
    require(arguments, (value < lower) | (value > upper), name, rule, why)


def require_part(
    arguments: Arguments, lower: str, upper: str, *, labels: Mapping[str, str] = NO_LABELS, empty: bool = True
) -> None:
    """Require log_a <= lower <= upper <= log_b of two arguments; `labels` are their names in messages."""
    if arguments.traced:
        return
    values = arguments.values
    low, high = labels.get(lower, lower), labels.get(upper, upper)
    why = "a part of the support [log_a, log_b] lies within it"
    require(arguments, values[lower] < values["log_a"], lower, "at least log_a", why, low)
    require(arguments, values[upper] > values["log_b"], upper, "at most log_b", why, high)
    why = "the part would be inverted"
    require(arguments, values[lower] > values[upper], lower, f"at most {high}", why, low)
    if not empty:
        why = "the part would be empty"
        require(arguments, values[lower] == values[upper], lower, f"below {high}", why, low)
