"""Of the options of :func:`bmrs_torch.prune` those that a part of it takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["taken_by"]


def taken_by(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a function takes."""
    known = inspect.signature(function).parameters.keys()
    return {name: value for name, value in options.items() if name in known}
