"""Bind the one text of the formulas to a backend.

A formula is a plain function whose globals are names: primitives, constants, other formulas. A
binding is the same code object with other globals, ``types.FunctionType(f.__code__, namespace)``,
handed to the backend's decorator before anything has called it. Numba and Triton look names up in
``__globals__`` when they compile, and find the source (for messages and caches) through the code
object, which still names the file it was written in.
"""

from __future__ import annotations

import builtins
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bmrs_core.formulas import (
    constants,
    delta_f,
    density,
    flat_divergence,
    gradients,
    mills,
    moments,
    ndtri,
    noise,
    normal,
    probabilities,
    quantile,
    short_support,
    spread,
    truncated_lognormal,
)

__all__ = ["TEXT_MODULES", "clone_formulas", "formula_texts", "scalar_constants"]

TEXT_MODULES = (
    mills,
    ndtri,
    short_support,
    flat_divergence,
    normal,
    moments,
    truncated_lognormal,
    spread,
    gradients,
    quantile,
    delta_f,
    density,
    probabilities,
    noise,
)

Text = Callable[..., Any]


def formula_texts() -> Iterator[Text]:
    """Yield every formula, each after those it needs where the modules' order allows."""
    for module in TEXT_MODULES:
        for value in vars(module).values():
            if inspect.isfunction(value) and value.__module__ == module.__name__:
                yield value


def scalar_constants() -> dict[str, float]:
    """Return the named real constants of all texts."""
    found = dict(constants.SCALARS)
    for module in TEXT_MODULES:
        for name, value in vars(module).items():
            if (
                isinstance(value, float)
                and name not in constants.FLOAT64_RULES
                and found.setdefault(name, value) != value
            ):
                raise AssertionError(f"constant {name} has two values; names are global to all formulas")
    return found


def clone_formulas(
    primitives: Mapping[str, Any],
    scalars: Mapping[str, Any],
    rules: Mapping[str, Any],
    decorate: Callable[[Text], Any],
    module_name: str,
) -> dict[str, Any]:
    """Return every formula by name, bound to a backend.

    Parameters
    ----------
    primitives
        The backend's `exp`, `log`, `where`, ... under their names in `formulas.primitives`.
    scalars
        The named constants, as the backend wants them.
    rules
        The quadrature rule: `MANY`, `MANY_T`, ... as in `formulas.constants`.
    decorate
        Called with each clone; returns what the others shall find under its name. The attribute
        ``sums_over_nodes`` of a clone tells whether it sums over quadrature nodes.
    module_name
        The module the clones say they belong to.
    """
    namespace: dict[str, Any] = {"__name__": module_name, "__builtins__": builtins}
    namespace.update(scalars)
    namespace.update(rules)
    namespace.update(primitives)
    bound = {}
    for text in formula_texts():
        clone = types.FunctionType(text.__code__, namespace, text.__name__)
        clone.__module__ = module_name
        clone.__qualname__ = text.__name__
        clone.__doc__ = text.__doc__
        clone.sums_over_nodes = getattr(text, "sums_over_nodes", False)  # type: ignore[attr-defined]
        bound[text.__name__] = namespace[text.__name__] = decorate(clone)
    return bound
