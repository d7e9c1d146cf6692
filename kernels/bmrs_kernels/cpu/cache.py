"""Numba functions whose machine code is kept on disk under a name that says what it was compiled from."""

from __future__ import annotations

import functools
import hashlib
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bmrs_core.backends import numba_elementary, numba_kernels
from bmrs_core.backends.clone import source_digest
from bmrs_core.backends.machine_code import compiled

__all__ = ["cached_njit"]


@functools.cache
def _digest() -> str:
    """A hash of the formulas and of all of this package that Numba compiles or takes constants from."""
    digest = hashlib.sha256(source_digest(numba_elementary, numba_kernels).encode())
    here = Path(__file__).parent
    for path in sorted([*here.glob("*.py"), *here.parent.glob("*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def cached_njit(
    function: Callable[..., Any], *, name: str = "", signature: str | None = None, **names: Any
) -> Any:
    """Compile on first call, or load from the disk cache; Numba alone would not notice a changed callee.

    Parameters
    ----------
    function
        The text; its globals are those of its module and `names`.
    name
        Tells apart functions of one text with different `names`.
    signature
        Numba's, to compile or load at once; else that happens at the first call.
    """
    namespace = {**function.__globals__, **names}
    clone = types.FunctionType(function.__code__, namespace, function.__name__)
    clone.__module__ = function.__module__
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    return compiled(clone, name=name, sources=_digest(), signature=signature, **options)
