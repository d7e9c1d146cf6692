"""The formulas on any array namespace: NumPy, torch, JAX, CuPy by the array API standard."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from bmrs_core.backends.clone import clone_formulas, scalar_constants
from bmrs_core.backends.formula import FORMULAS
from bmrs_core.formulas.constants import FLOAT64_RULES

__all__ = ["bind_namespace", "evaluate"]


def _binary(function: Any, xp: ModuleType, name: str) -> Any:
    """Let one operand of `function` be a Python float, which not every namespace takes."""

    def call(x: Any, y: Any) -> Any:
        like = x if hasattr(x, "dtype") else y
        if not hasattr(like, "dtype"):
            like = xp.asarray(like, dtype=xp.float64)
        return function(_array(x, like, xp), _array(y, like, xp))

    call.__name__ = name
    return call


def _array(value: Any, like: Any, xp: ModuleType) -> Any:
    return value if hasattr(value, "dtype") else xp.full_like(like, value)


@functools.cache
def bind_namespace(xp: ModuleType) -> dict[str, Any]:
    """Return every formula by name, bound to an array namespace.

    A rare regime is selected by `where`, not by indexing, so that the result can also be traced and
    compiled; outside its regime a text may overflow or divide by zero without harm.
    """

    def where(condition: Any, x: Any, y: Any) -> Any:
        return xp.where(
            condition,
            _array(x, condition_like(x, y, condition), xp),
            _array(y, condition_like(x, y, condition), xp),
        )

    def condition_like(x: Any, y: Any, condition: Any) -> Any:
        for value in (x, y):
            if hasattr(value, "dtype"):
                return value
        return xp.zeros_like(condition, dtype=xp.float64)

    primitives = {
        "absolute": xp.abs,
        "exp": xp.exp,
        "expm1": xp.expm1,
        "log": xp.log,
        "log1p": xp.log1p,
        "maximum": _binary(xp.maximum, xp, "maximum"),
        "minimum": _binary(xp.minimum, xp, "minimum"),
        "sqrt": xp.sqrt,
        "where": where,
    }
    texts = clone_formulas(primitives, scalar_constants(), FLOAT64_RULES, lambda text: text, __name__)
    return {name: _combine(name, texts, where) for name in FORMULAS}


def _combine(name: str, texts: dict[str, Any], where: Any) -> Any:
    if not FORMULAS[name].has_rare:
        return texts[name]
    is_rare, rare, common = (texts[f"{name}_{part}"] for part in ("is_rare", "rare", "common"))

    def evaluate_both(*inputs: Any) -> Any:
        return where(is_rare(*inputs), rare(*inputs), common(*inputs))

    return evaluate_both


def evaluate(name: str, xp: ModuleType, inputs: tuple[Any, ...]) -> Any:
    """Return a formula of float64 arrays of `xp`, broadcast against each other."""
    return bind_namespace(xp)[name](*inputs)
