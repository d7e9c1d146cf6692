"""Kinds of arguments that many functions take: numbers, whole numbers, switches, models."""

from __future__ import annotations

import numbers
import operator
from typing import Any

import numpy as np
from torch import Tensor, nn

__all__ = ["check_model", "check_real", "check_switch", "check_whole", "described"]


def described(value: object) -> str:
    """What came, in few words, for an error."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, (str, int, float, complex, np.generic, type(None))):
        return f"{value!r:.80}"
    return f"a {type(value).__name__}"


def check_real(name: str, value: Any) -> None:
    """Raise TypeError unless a value is a number, or a tensor of one; True and False are switches."""
    if type(value) in (int, float) or (isinstance(value, Tensor) and value.numel() == 1):
        return
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {described(value)}")


def check_whole(name: str, value: Any, meaning: str, least: int | None = None) -> None:
    """Raise TypeError or ValueError unless a value is a whole number, no less than the least.

    Parameters
    ----------
    name : str
        Of the argument.
    value : object
        What came; 3.0 is whole, True isn't.
    meaning : str
        What it counts, for the error.
    least : int, optional
        The smallest that is accepted.
    """
    whole: int = value if type(value) is int else _as_whole(name, value, meaning)
    if least is not None and whole < least:
        raise ValueError(f"{name} must be {meaning}, at least {least}, got {value}")


def _as_whole(name: str, value: Any, meaning: str) -> int:
    if not isinstance(value, (bool, np.bool_)):
        if hasattr(value, "__index__") and getattr(value, "ndim", 0) == 0:
            return int(operator.index(value))
        if isinstance(value, numbers.Real):
            if value == value // 1:
                return int(float(value))
            raise ValueError(f"{name} must be {meaning}, a whole number, got {value}")
    raise TypeError(f"{name} must be {meaning}, a whole number, got {described(value)}")


def check_switch(name: str, value: Any) -> None:
    """Raise TypeError unless a value is True or False, or 1 or 0: any text counts as true."""
    if not isinstance(value, (bool, np.bool_)) and not (type(value) is int and value in (0, 1)):
        raise TypeError(f"{name} must be True or False, got {described(value)}")


def check_model(model: Any) -> None:
    """Raise TypeError unless it is a module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {described(model)}")
