"""Numba functions for compiled code to call, and for nobody else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from numba import njit
from numba.core.registry import CPUDispatcher
from numba.extending import is_jitted

__all__ = ["WITHOUT_WRAPPERS", "inner", "njit_inner"]

WITHOUT_WRAPPERS: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Options of such a function: what turns Python's and C's arguments into its own takes longer to compile than
a short function itself."""


class _Inner(CPUDispatcher):  # type: ignore[misc]
    """A dispatcher that Python can't call: it would call a function that is not there."""

    def __call__(self, *_arguments: Any, **_keywords: Any) -> NoReturn:
        raise TypeError(
            f"{self.py_func.__name__} is compiled for other compiled functions to call, without what would "
            "let Python call it: call it in a function of your own under numba.njit"
        )


def inner(dispatcher: Any) -> Any:
    """Let a Numba function that was given the options `WITHOUT_WRAPPERS` refuse to be called by Python."""
    if is_jitted(dispatcher):
        dispatcher.__class__ = _Inner
    return dispatcher


def njit_inner(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a function that only compiled code calls; options as for ``numba.njit``."""
    return lambda function: inner(njit(**options, **WITHOUT_WRAPPERS)(function))
