"""Numba functions whose machine code is kept on disk: never stale, and never in the way.

Of Numba this relies on what a dispatcher does with its cache (`numba.core.dispatcher.Dispatcher.compile`):
``load_overload(signature, context)`` before it compiles, which answers None for "compile it", and
``save_overload(signature, result)`` after; and on two classes of `numba.core.caching`: `FunctionCache`, which
finds a folder, or raises RuntimeError where none can be written to, and turns results into what can be
pickled; and `IndexDataCacheFile`, the index file and the data files of one function. All that reading or
writing raises passes through these methods, and Numba itself catches none of it.
"""

from __future__ import annotations

import hashlib
import pickle
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache, IndexDataCacheFile, NullCache
from numba.extending import is_jitted

from bmrs_core.backends.frozen import frozen_digest, has_changed
from bmrs_core.backends.inner import inner

__all__ = ["cached_njit", "is_kept"]

_COST = "each process compiles what it uses anew, for seconds to a minute"
_ADVICE = "set NUMBA_CACHE_DIR to a folder that can be written to"
_said: set[str] = set()


def cached_njit(function: Callable[..., Any], *, signature: str | None = None, **options: Any) -> Any:
    """Compile a function on its first call, or load its machine code from the disk.

    Code is found on disk only by a process in which the function, all it calls and all the values that these
    name are the same. Where the disk can't be written to, is full or holds something unreadable, the function
    is compiled all the same, and a warning says so once in a process. A constant that is changed after the
    process has compiled something that names it may have no effect there, as Numba compiles a callee once;
    what is compiled after that is not kept.

    Parameters
    ----------
    function
        The text. Its module and ``__qualname__`` name the files.
    signature
        Numba's, to compile or load at once, and no other; else that happens at the first call of each.
    **options
        Those of ``numba.njit``.

    Warns
    -----
    UserWarning
        Naming NUMBA_CACHE_DIR, if nothing can be kept; or that something could not be read. Where warnings
        are errors it is written to standard error instead: it comes up inside Numba's type inference, and
        would end there as another error.

    Examples
    --------
    >>> from bmrs_core.backends.numba_elementary import minimum
    >>> cached_njit(minimum.py_func, signature="float64(float64, float64)")(4.0, 2.0)
    2.0
    """
    dispatcher = njit(**options)(function)
    if not is_jitted(dispatcher):  # NUMBA_DISABLE_JIT
        return dispatcher
    if options.get("no_cpython_wrapper"):
        dispatcher = inner(dispatcher)
    dispatcher._cache = _DiskCache(dispatcher)  # as `Dispatcher.enable_caching` does
    if signature is not None:
        dispatcher.compile(signature)
        dispatcher.disable_compile()
    return dispatcher


def is_kept() -> bool:
    """Whether, as far as this process has found out, what it compiles is kept on disk."""
    return _said.isdisjoint({"folder", "write"})


class _DiskCache(NullCache):
    """What one function has on disk; a failure of the disk is a warning and a compilation."""

    def __init__(self, dispatcher: Any) -> None:
        self._dispatcher = dispatcher
        self._entries: _Entries | None = None

    @property
    def cache_path(self) -> str | None:
        """The folder, once something was looked for in it."""
        return None if self._entries is None else self._entries.cache_path

    # What is raised by bytes that are not a pickle can be anything; so can what LLVM and a file system raise.
    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return what is kept for a signature, or None."""
        self._entries = None
        try:
            self._entries = _Entries(self._dispatcher)
        except Exception as error:  # noqa: BLE001
            _say_once("folder", f"no compiled code is kept ({_brief(error)}): {_COST}; {_ADVICE}")
            return None
        try:
            return self._entries.load_overload(sig, target_context)
        except Exception as error:  # noqa: BLE001
            where = f"unreadable compiled code in {self._entries.cache_path} ({_brief(error)})"
            _say_once("read", f"{where}: it is compiled anew, and replaced where that is possible")
            with suppress(Exception):  # saving will tell
                self._entries.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled for a signature."""
        if self._entries is None or self._entries.is_mixed:
            return
        try:
            self._entries.save_overload(sig, data)
        except Exception as error:  # noqa: BLE001
            where = f"compiled code can't be kept in {self._entries.cache_path} ({_brief(error)})"
            _say_once("write", f"{where}: {_COST}; make room there, or {_ADVICE}")


class _Entries(FunctionCache):
    """Numba's cache of one function, in files named by the digest of all that the function freezes now."""

    def __init__(self, dispatcher: Any) -> None:
        super().__init__(dispatcher.py_func)
        self.is_mixed = has_changed(dispatcher)
        self._cache_file = _CheckedFile(
            self._cache_path,
            f"{self._impl.filename_base}.{frozen_digest(dispatcher)}",
            self._impl.locator.get_source_stamp(),
        )


class _CheckedFile(IndexDataCacheFile):
    """Index and data files whose data are what was stored under their key, to the bit.

    Given half an object file LLVM ends the process. And two processes that save at a time may each number
    their data 1 in the index: that of one would be taken for that of the other.
    """

    def save(self, key: Any, data: Any) -> None:
        """Store data with its key."""
        super().save(key, (key, data))

    def load(self, key: Any) -> Any:
        """Return the data of a key, or None."""
        found = super().load(key)
        return found[1] if found is not None and found[0] == key else None

    def _save_data(self, name: str, data: Any) -> None:
        content = self._dump(data)
        with self._open_for_write(self._data_path(name)) as file:
            file.write(hashlib.sha256(content).digest() + content)

    def _load_data(self, name: str) -> Any:
        stored = Path(self._data_path(name)).read_bytes()
        size = hashlib.sha256().digest_size
        if hashlib.sha256(stored[size:]).digest() != stored[:size]:
            raise ValueError(f"{name} is not as it was written")
        return pickle.loads(stored[size:])


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _say_once(about: str, message: str) -> None:
    if about in _said:
        return
    _said.add(about)
    try:
        warnings.warn(f"bmrs: {message}", UserWarning, stacklevel=2)
    except UserWarning as raised:
        sys.stderr.write(f"{raised}\n")
