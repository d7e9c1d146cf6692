"""Machine code that Numba keeps on disk, under a name that covers all it was made of.

Numba looks for changes in the file of a function alone. Here the name of its machine code contains a hash of
the sources that it can come from and of every value that compiling freezes into it: what its global names
stand for, those of the functions that it calls, and so on. Where nothing can be kept, all works without.
"""

from __future__ import annotations

import hashlib
import types
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numba import njit
from numba.core import typeinfer
from numba.core.caching import FunctionCache
from numba.core.dispatcher import Dispatcher

__all__ = ["compiled", "frozen_values"]


def compiled(
    function: types.FunctionType,
    *,
    name: str,
    sources: str,
    signature: str | None = None,
    **options: Any,
) -> Any:
    """Compile on first call, or load from the disk.

    Parameters
    ----------
    function
        With the globals that it is to be compiled with; it gets another name.
    name
        Tells apart functions of one text with other globals.
    sources
        A hash of the source files: of intrinsics and overloads nothing else can be seen.
    signature
        Numba's, to compile or load at once; else that happens at the first call.
    **options
        For `numba.njit`.
    """
    digest = hashlib.sha256(sources.encode())
    for value in frozen_values(function):
        digest.update(value.encode())
    function.__qualname__ = f"{function.__name__}_{name}_{digest.hexdigest()[:12]}"
    dispatcher = njit(**options)(function)
    try:
        dispatcher._cache = _Cache(function)
    except (RuntimeError, OSError) as error:  # Numba finds no folder that can be written
        _say(error)
    if signature is not None:
        with typeinfer.register_dispatcher(dispatcher):
            dispatcher.compile(signature)
        dispatcher.disable_compile()
    return dispatcher


def frozen_values(function: types.FunctionType) -> Iterator[str]:
    """Tell, line by line, what compiling a function freezes: code and global values, of all it calls too."""
    seen: set[int] = set()
    waiting: list[types.FunctionType] = [function]
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        for code in _codes(current.__code__):
            yield f"{code.co_name} {code.co_code.hex()} {code.co_names} {_plain_constants(code)}"
            for name, value in _resolved(code.co_names, current.__globals__):
                called = value.py_func if isinstance(value, Dispatcher) else value
                if isinstance(called, types.FunctionType):
                    waiting.append(called)
                    yield f"{name} is {called.__name__}"
                elif _is_plain(value):
                    yield f"{name} = {type(value)} {_text(value)}"


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _plain_constants(code: types.CodeType) -> str:
    return repr([constant for constant in code.co_consts if not isinstance(constant, types.CodeType)])


def _resolved(names: tuple[str, ...], namespace: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What global names stand for, and attributes of modules of this project."""
    for name in names:
        if name not in namespace:
            continue
        value = namespace[name]
        yield name, value
        if isinstance(value, types.ModuleType) and value.__name__.startswith("bmrs_"):
            yield from ((f"{name}.{a}", getattr(value, a)) for a in names if hasattr(value, a))


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return isinstance(value, (bool, int, float, complex, str, bytes, type(None), np.generic, np.ndarray))


def _text(value: Any) -> str:
    return f"{value.dtype} {value.tobytes().hex()}" if isinstance(value, np.ndarray) else repr(value)


class _Cache(FunctionCache):  # type: ignore[misc]  # Numba's classes carry no annotations
    """Numba's cache of one function; what can't be read is compiled, what can't be written isn't kept.

    Numba asks it for the machine code of a signature (`load_overload`) and hands over what it compiled
    (`save_overload`); `_cache_file.flush` empties the index.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # noqa: BLE001 - what a damaged file makes of unpickling can be anything
            _say(error)
        try:
            self._cache_file.flush()
        except OSError as error:
            _say(error)
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except (OSError, EOFError) as error:
            _say(error)


_said: list[str] = []
"""What has been said, once a process."""


def _say(error: Exception) -> None:
    if not _said:
        _said.append(str(error))
        warnings.warn(
            f"compiled code can't be kept on or read from the disk ({type(error).__name__}: {error}); all "
            "works, but is compiled again in each process, which takes up to half a minute. To keep it, set "
            "the environment variable NUMBA_CACHE_DIR to a folder that can be written",
            RuntimeWarning,
            stacklevel=3,
        )
