"""The kernels' way to a Numba function that is kept on disk: a text, bound to names."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from bmrs_core.backends import disk_cache
from bmrs_core.backends.inner import WITHOUT_WRAPPERS

__all__ = ["cached_inner", "cached_njit"]

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


def cached_njit(
    function: Callable[..., Any], *, name: str = "", signature: str | None = None, **names: Any
) -> Any:
    """Compile on first call, or load from the disk cache what was compiled from the same texts and values.

    Parameters
    ----------
    function
        The text; its globals are those of its module and `names`.
    name
        Tells apart functions of one text with different `names`.
    signature
        Numba's, to compile or load at once; else that happens at the first call.
    **names
        What the text finds under these names.
    """
    bound = _bound(function, name, names)
    return disk_cache.cached_njit(bound, signature=signature, no_cfunc_wrapper=True, **_OPTIONS)


def cached_inner(function: Callable[..., Any], *, name: str = "", **names: Any) -> Any:
    """Do the same with a function that only other kernels call."""
    return disk_cache.cached_njit(_bound(function, name, names), **WITHOUT_WRAPPERS, **_OPTIONS)


def _bound(function: Callable[..., Any], name: str, names: dict[str, Any]) -> Callable[..., Any]:
    clone = types.FunctionType(function.__code__, {**function.__globals__, **names}, function.__name__)
    clone.__module__ = function.__module__
    clone.__qualname__ = f"{function.__name__}_{name}"
    return clone
