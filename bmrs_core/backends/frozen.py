"""A digest of all that Numba freezes when it compiles a function: its code, and the values that code names.

Numba copies the globals of a function, and of all it calls, into the machine code, but knows the entries of
its disk cache by the function's own code and file: an entry would outlive a constant that stands in another
file, or that was set at run time. What is digested here are therefore values, not texts.
"""

from __future__ import annotations

import builtins
import hashlib
import sys
import types
from collections.abc import Iterator
from typing import Any, TypeAlias

import llvmlite
import numpy as np
from numba.core import config
from numba.core.dispatcher import Dispatcher
from numba.core.extending import _Intrinsic
from numba.core.registry import cpu_target

__all__ = ["frozen_digest", "has_changed"]

_ATOMS = (type(None), type(...), bool, int, float, complex, str, bytes)
# Known by name and version: what they freeze changes with a release, and Numba's own key has Numba's.
_ELSEWHERE = frozenset({"builtins", "llvmlite", "numba", "numpy"}) | sys.stdlib_module_names


def frozen_digest(dispatcher: Any) -> str:
    """Return a short hash of all that the machine code of a Numba function is made of, as it is now.

    Parameters
    ----------
    dispatcher : numba.core.dispatcher.Dispatcher
        What ``numba.njit`` returned.

    Raises
    ------
    TypeError
        If the function names a value of a kind that can't be told from others: code made of it could not be
        told from stale code.

    Examples
    --------
    >>> from numba import njit
    >>> limit = 80.0
    >>> @njit
    ... def beyond(x):
    ...     return x > limit
    >>> before = frozen_digest(beyond)
    >>> beyond.py_func.__globals__["limit"] = 5.0
    >>> frozen_digest(beyond) == before
    False
    """
    found = _Frozen()
    found.add((config.OPT, config.LOOP_VECTORIZE, config.SLP_VECTORIZE, config.BOUNDSCHECK))
    found.add(llvmlite.__version__)
    found.add(dispatcher)
    return found.digest.hexdigest()[:16]


_Constants: TypeAlias = dict[tuple[int, str], tuple[dict[str, Any], bytes]]
_first_seen: _Constants = {}


def has_changed(dispatcher: Any) -> bool:
    """Whether a constant that a Numba function names is another than when this process first asked.

    Numba compiles a callee once for all its callers: code compiled now may have some of its constants from
    before, and is neither what the old values nor what the new ones make of it.
    """
    found = _Frozen()
    found.add(dispatcher)
    before = {place: _first_seen.setdefault(place, value) for place, value in found.constants.items()}
    return before != found.constants


class _Frozen:
    """A walk through values, each written into one digest once."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        # Digests of plain values by namespace and name; the namespace must live as long as its identity.
        self.constants: _Constants = {}
        # By identity, with what they are of, which must live as long as its identity is remembered.
        self._places: dict[int, tuple[int, Any]] = {}

    def add(self, value: Any, names: tuple[str, ...] = ()) -> None:
        """Digest a value; of a module only what it has under `names`."""
        if isinstance(value, _ATOMS):
            self._write(type(value).__name__, repr(value))
        elif isinstance(value, (np.ndarray, np.generic, np.dtype)):
            self._add_array(value)
        elif isinstance(value, types.ModuleType):
            self._add_module(value, names)
        elif isinstance(value, (tuple, list, dict, set, frozenset)):
            self._add_container(value)
        elif id(value) in self._places:
            self._write("again", str(self._places[id(value)][0]))
        else:
            self._places[id(value)] = (len(self._places), value)
            self._add_compound(value)

    def _write(self, *words: str | bytes) -> None:
        for word in words:
            content = word.encode() if isinstance(word, str) else word
            self.digest.update(b"%d:" % len(content) + content)

    def _add_array(self, value: Any) -> None:
        if isinstance(value, np.dtype):
            self._write("dtype", value.str)
            return
        if value.dtype.hasobject:
            raise _unknown(value)
        self._write("array", value.dtype.str, str(value.shape), value.tobytes())

    def _add_module(self, module: types.ModuleType, names: tuple[str, ...]) -> None:
        self._write("module", module.__name__, str(getattr(module, "__version__", "")))
        if _root(module.__name__) not in _ELSEWHERE:
            for name in names:
                if hasattr(module, name):
                    self._write(name)
                    self.add(getattr(module, name), names)

    def _add_container(self, value: Any) -> None:
        """Again and again: which of two equal constants are one object is Python's business."""
        if isinstance(value, dict):
            self._add_items("dict", [item for pair in value.items() for item in pair])
        else:
            unordered = isinstance(value, (set, frozenset))
            self._add_items(type(value).__name__, sorted(value, key=repr) if unordered else value)

    def _add_compound(self, value: Any) -> None:
        if isinstance(value, types.CodeType):
            self._add_code(value)
        elif isinstance(value, Dispatcher):
            self._add_items("compiled", [value.targetoptions, value.py_func])
        elif isinstance(value, _Intrinsic):
            self._add_items("intrinsic", [value._defn])
        elif isinstance(value, (types.FunctionType, type)) or _root(_module_of(value)) in _ELSEWHERE:
            self._add_named(value)
        elif hasattr(value, "__wrapped__"):
            self.add(value.__wrapped__)
        elif hasattr(value, "__dict__"):
            self._add_items("object", [type(value), vars(value)])
        else:
            raise _unknown(value)

    def _add_items(self, kind: str, items: Any) -> None:
        self._write(kind, str(len(items)))
        for item in items:
            self.add(item)

    def _add_code(self, code: types.CodeType) -> None:
        """All of a code object but where it stands: the file, the lines."""
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        self._write("code", code.co_name, code.co_code, getattr(code, "co_exceptiontable", b""))
        variables = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        self._write(repr(counts), repr(variables))
        self._add_items("constants", code.co_consts)

    def _add_named(self, value: Any) -> None:
        """A function or class; those of Python, NumPy and Numba, and objects of theirs, by name."""
        if _root(_module_of(value)) in _ELSEWHERE:
            name = getattr(value, "__qualname__", None) or str(value)
            if " at 0x" in name:
                raise _unknown(value)
            self._write("elsewhere", _module_of(value), name)
        elif isinstance(value, type):
            members = {name: member for name, member in vars(value).items() if _is_digested(name, member)}
            self._add_items("class", [value.__qualname__, members, value.__bases__])
        else:
            self._add_function(value)

    def _add_function(self, function: types.FunctionType) -> None:
        self._write("function", function.__name__)
        self.add(function.__code__)
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        self._add_items("bound", [function.__defaults__, function.__kwdefaults__, cells])
        names = tuple(dict.fromkeys(_names(function.__code__)))
        for name in names:
            if name in function.__globals__:
                self._add_global(function.__globals__, name, names)
        self._add_items("overloads", list(_overloads(function)))

    def _add_global(self, namespace: dict[str, Any], name: str, names: tuple[str, ...]) -> None:
        value = namespace[name]
        self._write(name)
        self.add(value, names)
        if isinstance(value, (*_ATOMS, np.ndarray, np.generic)):
            alone = _Frozen()
            alone.add(value)
            self.constants[id(namespace), name] = (namespace, alone.digest.digest())


def _names(code: types.CodeType) -> Iterator[str]:
    """Names that a function and those written inside it look up, those of attributes among them."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _overloads(function: types.FunctionType) -> Iterator[Any]:
    """Yield what ``numba.extending.overload`` was given for a function: inside a kernel, that is called."""
    context = cpu_target.typing_context
    context.refresh()
    try:
        templates = context.resolve_value_type(function).templates
    except (AttributeError, TypeError, ValueError):  # Numba knows nothing by that name: it can't be called
        return
    for template in templates:
        yield template._overload_func
        yield template._jit_options


def _is_digested(name: str, member: Any) -> bool:
    return isinstance(member, types.FunctionType) or not name.startswith("__")


def _module_of(value: Any) -> str:
    """The module a function or class says it is of, or that of an object's type."""
    if isinstance(value, (types.FunctionType, types.BuiltinFunctionType, np.ufunc, type)):
        return getattr(value, "__module__", None) or builtins.__name__
    return type(value).__module__


def _root(module: str) -> str:
    return module.partition(".")[0]


def _unknown(value: Any) -> TypeError:
    return TypeError(
        f"a compiled function may name numbers, texts, arrays, tuples, functions and types, got {value!r}: "
        "no digest tells it from another, so that the machine code can't be kept; pass it as an argument"
    )
