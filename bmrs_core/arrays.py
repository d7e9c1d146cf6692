"""What the public functions accept: array types, dtypes and scalars, and the answer in kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from array_api_compat import array_namespace, device, is_jax_array, is_numpy_array, is_torch_array
from numpy.typing import NDArray

__all__ = ["Arguments", "Array", "ArrayLike", "collect"]

Array: TypeAlias = Any
"""An array of NumPy, torch, JAX, CuPy or another array-API library; see `ArrayLike`."""

ArrayLike: TypeAlias = Any
"""A Python number, a (nested) list of floats, or a float32 or float64 array."""

FLOATS = ("float32", "float64")


@dataclass(frozen=True)
class Arguments:
    """Checked arguments, ready to be computed with.

    Attributes
    ----------
    values
        The arguments by name: NumPy arrays where the data can be reached from the host, else float64
        arrays of `namespace`.
    namespace
        The library the result belongs to.
    float32
        Whether the result is float32: every array among the arguments is.
    on_host
        Whether `values` are NumPy arrays.
    traced
        Whether the values are not known yet (inside ``jax.jit``): nothing can be checked.
    device
        Where the result goes; None for NumPy.
    """

    values: dict[str, Any]
    namespace: ModuleType
    float32: bool
    on_host: bool
    traced: bool
    device: Any

    def only(self, names: Iterable[str]) -> Arguments:
        """Return these arguments without the others."""
        return replace(self, values={name: self.values[name] for name in names})

    def including(self, values: Mapping[str, Array]) -> Arguments:
        """Return these arguments with more, of the same kind as `values`."""
        return replace(self, values={**self.values, **values})

    def in_kind(self, result: NDArray[Any]) -> Array:
        """Return a NumPy result as an array of the caller's library."""
        if self.namespace is np:
            return result
        dtype = self.namespace.float32 if self.float32 else self.namespace.float64
        return self.namespace.asarray(np.ascontiguousarray(result), dtype=dtype, device=self.device)


def collect(arguments: Mapping[str, ArrayLike]) -> Arguments:
    """Check types and dtypes of named arguments and bring them to one library.

    Raises
    ------
    TypeError
        An argument is not a number or an array of float32 or float64, arrays are of different
        libraries, or a torch tensor requires grad.
    ValueError
        Shapes do not broadcast.
    """
    _require_broadcastable(arguments)
    foreign = {name: value for name, value in arguments.items() if _is_foreign(value)}
    if foreign:
        return _collect_foreign(arguments, foreign)
    values, strong = {}, []
    for name, value in arguments.items():
        array = np.asarray(value)
        weak = isinstance(value, (int, float)) and not isinstance(value, (bool, np.generic))
        if not weak:
            _require_float(name, array.dtype.name, value)
            strong.append(array.dtype.name)
        values[name] = array if not weak else np.asarray(value, dtype=np.float64)
    return Arguments(values, np, _all_float32(strong), True, False, None)


def _require_broadcastable(arguments: Mapping[str, ArrayLike]) -> None:
    shapes = {name: np.shape(value) for name, value in arguments.items()}
    try:
        np.broadcast_shapes(*shapes.values())
    except ValueError:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items() if shape)
        raise ValueError(
            f"arguments must have shapes that broadcast against each other, got {listed}"
        ) from None


def _is_foreign(value: object) -> bool:
    return hasattr(value, "shape") and not isinstance(value, np.generic) and not is_numpy_array(value)


def _all_float32(dtypes: Iterable[str]) -> bool:
    return set(dtypes) == {"float32"}


def _require_float(name: str, dtype: str, value: object) -> None:
    if dtype not in FLOATS:
        raise TypeError(
            f"{name} must be a number or a float32 or float64 array, got {type(value).__name__} of dtype "
            f"{dtype}: results are rounded to the dtype of the arguments, so convert explicitly"
        )


def _collect_foreign(arguments: Mapping[str, ArrayLike], foreign: Mapping[str, Any]) -> Arguments:
    try:
        xp = array_namespace(*foreign.values())
    except TypeError as error:
        kinds = ", ".join(f"{name}: {type(value).__name__}" for name, value in foreign.items())
        raise TypeError(f"arrays must all be of one array-API library, got {kinds}") from error
    for name, value in arguments.items():
        if (name not in foreign and not isinstance(value, (int, float, np.floating))) or isinstance(
            value, bool
        ):
            raise TypeError(
                f"{name} must be a number or an array of {xp.__name__.split('.')[-1]} like the other "
                f"arguments, got {type(value).__name__}: mixing libraries would hide copies between devices"
            )
    for name, value in foreign.items():
        _require_float(name, str(value.dtype).split(".")[-1], value)
        if is_torch_array(value) and value.requires_grad:
            raise TypeError(
                f"{name} requires grad, but the functions of bmrs_core build no autograd graph: pass "
                f"{name}.detach() for the value, or use bmrs_torch, whose functions are differentiable"
            )
    float32 = _all_float32(str(value.dtype).split(".")[-1] for value in foreign.values())
    first = next(iter(foreign.values()))
    host = {name: _on_host(value) for name, value in foreign.items()}
    if all(value is not None for value in host.values()):
        values = {
            name: host.get(name, np.asarray(value, dtype=np.float64)) for name, value in arguments.items()
        }
        where = None if is_jax_array(first) else device(first)
        return Arguments(values, xp, float32, True, False, where)
    traced = any(is_jax_array(value) and host[name] is None for name, value in foreign.items())
    place = None if traced else device(first)
    values = {name: _as_float64(value, xp, place) for name, value in arguments.items()}
    return Arguments(values, xp, float32, False, traced, place)


def _on_host(value: Any) -> NDArray[Any] | None:
    """Return an array's data as NumPy if it lies in the host's memory and is known, else None."""
    if is_torch_array(value):
        return np.from_dlpack(value) if value.device.type == "cpu" else None
    try:
        return np.asarray(value)
    except TypeError:  # a JAX tracer, or a CuPy array, which never copies to the host by itself
        return None


def _as_float64(value: Any, xp: ModuleType, place: Any) -> Any:
    keywords = {} if place is None else {"device": place}
    array = xp.asarray(value, dtype=xp.float64, **keywords)
    if not str(array.dtype).endswith("float64"):
        raise TypeError(
            f"{xp.__name__} has float64 switched off, and a decision computed in float32 can be wrong: "
            "enable it, e.g. jax.config.update('jax_enable_x64', True)"
        )
    return array
