"""Series of pandas among the arguments: computed with as arrays, answered with their index."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["as_series", "index_of", "without_labels"]


def index_of(arguments: Mapping[str, Any]) -> Any:
    """Return the index that all Series among the arguments have, None where there is none.

    Raises
    ------
    TypeError
        An argument is a DataFrame.
    ValueError
        Two Series have different indices, or the result would have another shape than the Series.
    """
    pandas = sys.modules.get("pandas")  # whoever has a Series has imported it
    if pandas is None:
        return None
    for name, value in arguments.items():
        if isinstance(value, pandas.DataFrame):
            raise TypeError(
                f"{name} is a DataFrame, whose columns may mean different things: give one of them, a "
                f"Series, or {name}.to_numpy()"
            )
    series = {name: value for name, value in arguments.items() if isinstance(value, pandas.Series)}
    if not series:
        return None
    (first, one), *others = series.items()
    for name, other in others:
        if not one.index.equals(other.index):
            raise ValueError(
                f"{first} and {name} are Series of different indices, and values that don't belong together "
                f"would be paired: align them first, {first}, {name} = {first}.align({name}, join='inner')"
            )
    shape = np.broadcast_shapes(*(np.shape(value) for value in arguments.values()))
    if shape != one.shape:
        raise ValueError(
            f"{first} is a Series of shape {one.shape}, but with the other arguments the result has shape "
            f"{shape}, which its index doesn't fit: give {first}.to_numpy()"
        )
    return one.index


def without_labels(name: str, value: Any) -> Any:
    """Return a Series as an array, anything else as it is; whole numbers are read as float64."""
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(value, pandas.Series):
        return value
    kinds = pandas.api.types
    if not kinds.is_numeric_dtype(value.dtype) or kinds.is_bool_dtype(value.dtype):
        raise TypeError(
            f"{name} must hold numbers, got a Series of dtype {value.dtype}: pandas.to_numeric({name}) reads "
            "text as numbers"
        )
    if isinstance(value.dtype, np.dtype) and value.dtype.kind == "f":
        return value.to_numpy()
    return value.to_numpy(dtype=np.float64, na_value=np.nan)


def as_series(result: NDArray[Any], index: Any) -> Any:
    """Return a result as a Series; its name is nobody's, for it is another quantity."""
    return sys.modules["pandas"].Series(result, index=index)
