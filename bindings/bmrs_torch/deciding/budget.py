"""What a network may cost: a fraction of what it does, or a figure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from bmrs_torch.operation.arguments import described

__all__ = ["MEASURES", "Budget", "BudgetError", "Limit", "as_budget", "shown"]


@dataclass(frozen=True)
class Measure:
    """One of the costs that a budget can limit.

    Attributes
    ----------
    name : str
        For messages.
    units : dict of str to float
        What may stand behind a figure, and what it multiplies it by.
    """

    name: str
    units: Mapping[str, float]


_NUMBERS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BYTES = {
    **{f"{prefix}B": factor for prefix, factor in _NUMBERS.items()},
    "KiB": 2.0**10,
    "MiB": 2.0**20,
    "GiB": 2.0**30,
}
_GREEK_MU = "\u03bcs"  # beside the micro sign, which looks the same
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "\u00b5s": 1e-6, _GREEK_MU: 1e-6}

MEASURES = {
    "macs": Measure("multiply-adds", _NUMBERS),
    "parameters": Measure("parameters", _NUMBERS),
    "bytes": Measure("bytes", _BYTES),
    "latency": Measure("latency", _SECONDS),
}
_EXAMPLES = {
    "macs": "0.5, 2_500_000 or '2.5 M'",
    "parameters": "0.5, 100_000 or '100 k'",
    "bytes": "0.5, 4_000_000 or '4 MB'",
    "latency": "0.5, '5 ms' or '200 us'",
}

Amount = float | int | str | None


@dataclass(frozen=True)
class Limit:
    """The most that one cost may be.

    Attributes
    ----------
    value : float
        A fraction, or a figure in multiply-adds, parameters, bytes, or seconds.
    is_fraction : bool
    """

    value: float
    is_fraction: bool

    def of(self, whole: float) -> float:
        """The figure, of a network that costs so much as a whole."""
        return self.value * whole if self.is_fraction else self.value


@dataclass(frozen=True)
class Budget:
    """What a pruned network may cost at most; at least one of the costs, and all that are given must be met.

    A fraction, a number between 0 and 1 or ``"50 %"``, is one of the cost of the network with nothing pruned.
    A figure is a whole number or a text with a unit.

    Parameters
    ----------
    macs : float, int or str, optional
        Multiply-adds of one call on the example inputs, all samples in it, as :func:`report` counts them:
        ``0.5``, ``2_500_000``, ``"2.5 M"``.
    parameters : float, int or str, optional
        Entries of all parameters, shared ones once: ``0.2``, ``"100 k"``.
    bytes : float, int or str, optional
        Of parameters and buffers as they are stored; in a file of :func:`save_pruned` a header with the names
        comes to it. ``"512 kB"`` is 512,000 bytes, ``"512 KiB"`` are 524,288.
    latency : float or str, optional
        Median time of one call on the example inputs, on the device where they and the model are:
        ``"5 ms"``, ``"300 us"``. Of a fraction both networks are timed in turns.

    Raises
    ------
    ValueError
        For no cost at all, a fraction or figure out of range, or an unknown unit.
    TypeError
        For what is neither number nor text.

    Examples
    --------
    >>> from bmrs_torch import Budget
    >>> print(Budget(macs=0.5, bytes="4 MB"))
    at most 0.5 of the multiply-adds and 4 MB
    """

    macs: Amount = None
    parameters: Amount = None
    bytes: Amount = None
    latency: Amount = None

    def __post_init__(self) -> None:
        if not self.limits():
            examples = ", ".join(f"{name}={example}" for name, example in _EXAMPLES.items())
            raise ValueError(f"a budget needs at least one cost to limit: {examples}")

    def limits(self) -> dict[str, Limit]:
        """The limit of each cost that has one, by its name."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: _limit(name, amount) for name, amount in given.items() if amount is not None}

    def __str__(self) -> str:
        told = [_in_words(name, limit) for name, limit in self.limits().items()]
        return f"at most {' and '.join(told)}"


def as_budget(budget: Any) -> Budget:
    """A budget, of one or of a mapping such as ``{"macs": 0.5}``.

    Raises
    ------
    TypeError
        For anything else, or a mapping with other keys.
    ValueError
        As :class:`Budget`.
    """
    if isinstance(budget, Budget):
        return budget
    if not isinstance(budget, Mapping):
        raise TypeError(
            "budget must be a bmrs_torch.Budget or a mapping, such as Budget(macs=0.5) or {'macs': 0.5}, got "
            f"{described(budget)}"
        )
    unknown = [key for key in budget if key not in MEASURES]
    if unknown:
        raise TypeError(
            f"a budget limits {', '.join(map(repr, MEASURES))}, got {', '.join(map(repr, unknown))}"
        )
    return Budget(**budget)


class BudgetError(ValueError):
    """A budget is out of reach; the message says what is within it, and what stays and why.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import BudgetError, insert_noise, prune
    >>> x = torch.ones(2, 4)
    >>> model = insert_noise(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), x)
    >>> try:
    ...     prune(model, budget={"parameters": 5}, example_inputs=x)
    ... except BudgetError as error:
    ...     print(str(error).partition(":")[0])
    the budget of at most 5 parameters is out of reach
    """


def _limit(name: str, amount: Any) -> Limit:
    if isinstance(amount, str):
        return _parsed(name, amount)
    if isinstance(amount, (bool, np.bool_)) or not isinstance(amount, (int, float, np.number)):
        raise TypeError(
            f"{name} of a budget must be {_EXAMPLES[name]}, for instance, got {described(amount)}"
        )
    if isinstance(amount, (int, np.integer)) and amount >= 1:
        if name == "latency":
            raise ValueError(f"a latency needs its unit: {_EXAMPLES[name]}, for instance, got {amount!r}")
        return Limit(float(amount), is_fraction=False)
    if 0 < amount < 1:
        return Limit(float(amount), is_fraction=True)
    kinds = "a fraction between 0 and 1 or a text with its unit"
    if name != "latency":
        kinds = "a fraction between 0 and 1, a whole number from 1 on, or a text with a unit"
    raise ValueError(f"{name} of a budget must be {kinds} ({_EXAMPLES[name]}, for instance), got {amount!r}")


_TEXT = re.compile(r"\s*(\d[\d_,]*\.?\d*(?:[eE][+-]?\d+)?|\.\d+)\s*(\S*)\s*")


def _parsed(name: str, text: str) -> Limit:
    found = _TEXT.fullmatch(text)
    units = MEASURES[name].units
    if found is None or found[2] not in {"%", *units}:
        known = ", ".join(unit for unit in ("%", *units) if unit and unit != _GREEK_MU)
        raise ValueError(
            f"{name} of a budget, as a text, must be a number and one of the units {known} "
            f"({_EXAMPLES[name]}, for instance), got {text!r}"
        )
    number = float(found[1].replace(",", "").replace("_", ""))
    if found[2] == "%":
        if not 0 < number < 100:
            raise ValueError(
                f"{name} of a budget, as a fraction, must lie between 0 % and 100 % ({_EXAMPLES[name]}, for "
                f"instance), got {text!r}"
            )
        return Limit(number / 100, is_fraction=True)
    value = number * units[found[2]]
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} of a budget must be more than 0 and finite, got {text!r}")
    return Limit(value, is_fraction=False)


def _in_words(name: str, limit: Limit) -> str:
    if limit.is_fraction:
        return f"{limit.value:.4g} of the {MEASURES[name].name}"
    return shown(name, limit.value)


def shown(name: str, value: float) -> str:
    """A figure with its unit.

    Examples
    --------
    >>> from bmrs_torch.deciding.budget import shown
    >>> shown("macs", 2_500_000), shown("bytes", 4e6), shown("latency", 0.0051)
    ('2.5 M multiply-adds', '4 MB', '5.1 ms of latency')
    """
    if name == "latency":
        unit = "s" if value >= 1 else "ms" if value >= 1e-3 else "µs"
        return f"{value / _SECONDS[unit]:.4g} {unit} of latency"
    prefix = next((p for p in ("T", "G", "M", "k") if value >= _NUMBERS[p]), "")
    number = f"{value / _NUMBERS[prefix]:.4g}"
    if name == "bytes":
        return f"{number} {prefix}B" if prefix else f"{number} bytes"
    return " ".join(filter(None, (number, prefix, MEASURES[name].name)))
