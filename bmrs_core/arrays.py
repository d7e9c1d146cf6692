"""What the public functions accept: array types, dtypes and scalars, and the answer in kind."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from array_api_compat import array_namespace, device, is_jax_array, is_numpy_array, is_torch_array
from numpy.typing import NDArray

from bmrs_core.labels import as_series, index_of, without_labels

__all__ = ["Arguments", "Array", "ArrayLike", "collect"]

Array: TypeAlias = Any
"""An array of NumPy, torch, JAX, CuPy or another array-API library; see `ArrayLike`."""

ArrayLike: TypeAlias = Any
"""A Python number, a (nested) list of numbers, a Series of pandas, or a float32 or float64 array."""

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
    index
        That of the Series among the arguments, which the result gets too; None without Series.
    """

    values: dict[str, Any]
    namespace: ModuleType
    float32: bool
    on_host: bool
    traced: bool
    device: Any
    index: Any = None

    def only(self, names: Iterable[str]) -> Arguments:
        """Return these arguments without the others."""
        return replace(self, values={name: self.values[name] for name in names})

    def including(self, values: Mapping[str, Array]) -> Arguments:
        """Return these arguments with more, of the same kind as `values`."""
        return replace(self, values={**self.values, **values})

    def in_kind(self, result: NDArray[Any]) -> Array:
        """Return a NumPy result as an array of the caller's library."""
        if self.index is not None:
            return as_series(result, self.index)
        if self.namespace is np:
            return result
        dtype = self.namespace.float32 if self.float32 else self.namespace.float64
        return self.namespace.asarray(np.asarray(result, order="C"), dtype=dtype, device=self.device)


def collect(arguments: Mapping[str, ArrayLike]) -> Arguments:
    """Check types and dtypes of named arguments and bring them to one library.

    Raises
    ------
    TypeError
        An argument is not a number or an array of float32 or float64, arrays are of different
        libraries, or a torch tensor requires grad.
    ValueError
        Shapes do not broadcast, or Series have different indices.
    """
    _require_broadcastable(arguments)
    index = index_of(arguments)
    if index is not None:
        arguments = {name: without_labels(name, value) for name, value in arguments.items()}
    foreign = {name: value for name, value in arguments.items() if _is_foreign(value)}
    if foreign:
        return _collect_foreign(arguments, foreign)
    values, strong = {}, []
    for name, value in arguments.items():
        array = _as_array(name, value)
        weak = isinstance(value, (int, float)) and not isinstance(value, (bool, np.generic))
        if not weak:
            _require_float(name, array.dtype.name, value)
            strong.append(array.dtype.name)
        values[name] = array if not weak else np.asarray(value, dtype=np.float64)
    return Arguments(values, np, _all_float32(strong), True, False, None, index)


def _as_array(name: str, value: ArrayLike) -> NDArray[Any]:
    """Return a number, array or list as a NumPy array; whole numbers in lists are read as float64."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a masked array, whose mask would be lost: give its entries ({name}.compressed()), "
            f"or NaN in the place of those masked ({name}.filled(np.nan)), which stays NaN in the result"
        )
    array = np.asarray(value)
    is_list = isinstance(value, (list, tuple, range))
    return array.astype(np.float64) if is_list and array.dtype.kind in "iu" else array


def _require_broadcastable(arguments: Mapping[str, ArrayLike]) -> None:
    shapes = {name: _shape(name, value) for name, value in arguments.items()}
    try:
        np.broadcast_shapes(*shapes.values())
    except ValueError:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items() if shape)
        raise ValueError(
            f"arguments must have shapes that broadcast against each other, got {listed}"
        ) from None


def _shape(name: str, value: ArrayLike) -> tuple[int, ...]:
    try:
        return np.shape(value)
    except ValueError as error:
        raise TypeError(
            f"{name} must be a number or an array of float32 or float64, or a list of numbers, got a "
            f"{type(value).__name__} that is none: {error}"
        ) from error


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
        raise TypeError(
            f"arrays must all be of one array-API library, got {kinds}: give NumPy arrays, as by .to_numpy()"
        ) from error
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
            name: host[name] if name in host else np.asarray(value, dtype=np.float64)
            for name, value in arguments.items()
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
        return _of_torch(value)
    try:
        return np.asarray(value)
    except TypeError:  # a JAX tracer, or a CuPy array, which never copies to the host by itself
        return None


def _of_torch(value: Any) -> NDArray[Any] | None:
    if value.device.type == "meta" or _lies_nowhere(value):
        raise TypeError(
            f"a {type(value).__name__} on {value.device} has a shape but no values to compute with: it is "
            "on the meta device, fake or of another tensor's making, or its storage was freed"
        )
    if value.device.type != "cpu":
        return None
    try:
        return np.from_dlpack(value.resolve_neg())
    except (BufferError, RuntimeError) as error:
        raise TypeError(
            f"a {type(value).__name__} of layout {value.layout} can't be read as an array: give a dense "
            f"tensor with values of its own, outside torch.func ({error})"
        ) from error


def _lies_nowhere(value: Any) -> bool:
    """Whether a torch tensor has no memory of its own, where to read would end the process."""
    ordinary = sys.modules["torch"].Tensor.__torch_dispatch__
    if type(value).__torch_dispatch__ is not ordinary:
        return True
    if str(value.layout) != "torch.strided" or value.numel() == 0:
        return False
    try:
        return bool(value.untyped_storage().nbytes() == 0)
    except RuntimeError:  # inside torch.func.vmap
        return True


def _as_float64(value: Any, xp: ModuleType, place: Any) -> Any:
    keywords = {} if place is None else {"device": place}
    array = xp.asarray(value, dtype=xp.float64, **keywords)
    if not str(array.dtype).endswith("float64"):
        raise TypeError(
            f"{xp.__name__} has float64 switched off, and a decision computed in float32 can be wrong: "
            "enable it, e.g. jax.config.update('jax_enable_x64', True)"
        )
    return array
