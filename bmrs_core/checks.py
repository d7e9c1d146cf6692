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

# Parameters between these in size have squares, in units of one another, that float64 can hold.
SMALLEST, LARGEST = 1e-60, 1e60

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
    if arguments.traced or not bool(bad.any()):
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


def _all_within(array: Array, low: float, high: float) -> bool:
    """Tell in two quick passes whether a NumPy array lies within bounds; False if there is a NaN."""
    if not isinstance(array, np.ndarray):
        return False
    return array.size == 0 or (float(array.min()) >= low and float(array.max()) <= high)


def _is_float32(array: Array) -> bool:
    """Tell float32, all of whose values are of a size that float64 can compute with."""
    return str(array.dtype).endswith("float32")


def require_finite(arguments: Arguments, *names: str) -> None:
    """Require that arguments are not infinite, nor beyond what their squares can be computed of.

    NaN passes through to the result.
    """
    for name in names:
        value = arguments.values[name]
        if _all_within(value, -LARGEST, LARGEST):
            continue
        why = "an infinite parameter describes no distribution"
        require(arguments, _infinite(value), name, "finite", why)
        if _is_float32(value):
            continue
        why = "beyond, squares in units of sigma leave the range of float64"
        require(arguments, abs(value) > LARGEST, name, f"within +-{LARGEST:g}", why)


def require_scale(arguments: Arguments, name: str, why: str) -> None:
    """Require a standard deviation: positive, finite and of a size that can be computed with."""
    value = arguments.values[name]
    if _all_within(value, SMALLEST, LARGEST):
        return
    require(arguments, value <= 0, name, "positive", why)
    require(arguments, _infinite(value), name, "positive and finite", why)
    if _is_float32(value):
        return
    bad = (value < SMALLEST) | (value > LARGEST)
    range_why = "beyond, squares in units of it leave the range of float64"
    require(arguments, bad, name, f"between {SMALLEST:g} and {LARGEST:g}", range_why)


def require_bounds(arguments: Arguments) -> None:
    """Require finite log_a < log_b."""
    values = arguments.values
    for name in ("log_a", "log_b"):
        bad = _infinite(values[name]) | (values[name] != values[name])
        require(arguments, bad, name, "finite", "theta is truncated to [exp(log_a), exp(log_b)]")
    require_finite(arguments, "log_a", "log_b")
    why = "the support [log_a, log_b] of log theta would be empty"
    require(
        arguments,
        values["log_a"] >= values["log_b"],
        "log_a",
        f"below log_b{_shown(arguments, 'log_b')}",
        why,
    )


def _shown(arguments: Arguments, name: str) -> str:
    """Return " = value" of a known scalar, to be shown beside another."""
    value = arguments.values[name]
    return f" = {float(value)!r}" if not arguments.traced and value.ndim == 0 else ""


def require_posterior(arguments: Arguments) -> None:
    """Require a truncated log-normal: sigma > 0, mu and sigma of computable size, log_a < log_b."""
    require_scale(
        arguments, "sigma", "it is the standard deviation of log theta before truncation, not its logarithm"
    )
    require_finite(arguments, "mu")
    require_bounds(arguments)


def require_within(arguments: Arguments, name: str, lower: Any, upper: Any, rule: str, why: str) -> None:
    """Require lower <= argument <= upper; NaN passes through to the result."""
    value = arguments.values[name]
    if isinstance(lower, float) and isinstance(upper, float) and _all_within(value, lower, upper):
        return
    require(arguments, (value < lower) | (value > upper), name, rule, why)


def require_part(
    arguments: Arguments, lower: str, upper: str, *, labels: Mapping[str, str] = NO_LABELS, empty: bool = True
) -> None:
    """Require log_a <= lower <= upper <= log_b of two arguments; `labels` are their names in messages."""
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
