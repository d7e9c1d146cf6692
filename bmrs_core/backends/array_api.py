"""The formulas on any array namespace: NumPy, torch, JAX, CuPy by the array API standard."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from array_api_compat import device, is_jax_array

from bmrs_core.backends.clone import clone_formulas, scalar_constants
from bmrs_core.backends.formula import FORMULAS
from bmrs_core.formulas.constants import FLOAT64_RULES

__all__ = ["LOG_SMALLEST_NORMAL", "bind_namespace"]

LOG_SMALLEST_NORMAL = -708.396
"""From here on e^x is a normal float64."""


@functools.cache
def bind_namespace(xp: ModuleType) -> dict[str, Callable[..., Any]]:
    """Return every public formula by name, bound to an array namespace.

    They take float64 arrays of `xp`, which broadcast. A regime is selected by `where`, not by
    indexing, so that the result can also be traced and compiled; outside its regime a text may
    overflow or divide by zero without harm.
    """

    def as_array(value: Any, like: Any) -> Any:
        if hasattr(value, "dtype"):
            return value
        keywords = {} if is_jax_array(like) else {"device": device(like)}
        return xp.asarray(value, dtype=xp.float64, **keywords)

    def where(condition: Any, x: Any, y: Any) -> Any:
        return xp.where(condition, as_array(x, condition), as_array(y, condition))

    def of_two(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(x: Any, y: Any) -> Any:
            like = x if hasattr(x, "dtype") else y
            return function(as_array(x, like), as_array(y, like))

        return call

    def decay(x: Any) -> Any:
        below = x < LOG_SMALLEST_NORMAL
        return where(below, 0.0, xp.exp(where(below, 0.0, x)))

    primitives = {
        "absolute": xp.abs,
        "decay": decay,
        "exp": xp.exp,
        "expm1": xp.expm1,
        "log": xp.log,
        "log1p": xp.log1p,
        "maximum": of_two(xp.maximum),
        "minimum": of_two(xp.minimum),
        "sqrt": xp.sqrt,
        "where": where,
    }
    texts = clone_formulas(primitives, scalar_constants(), FLOAT64_RULES, lambda text: text, __name__)
    return {name: _combined(name, texts, where) for name in FORMULAS}


def _combined(name: str, texts: dict[str, Any], where: Callable[..., Any]) -> Callable[..., Any]:
    formula = FORMULAS[name]
    base: Callable[..., Any] = texts[formula.base]
    if not formula.regimes:
        return base

    def evaluate(*inputs: Any) -> Any:
        result = base(*inputs)
        for regime in formula.regimes:
            result = where(texts[f"{name}_is_{regime}"](*inputs), texts[f"{name}_{regime}"](*inputs), result)
        return result

    return evaluate
