"""Which of the whole numbers that modules remember are sizes: they are followed into torch's functions."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bmrs_torch.channels.trace import Trace

if TYPE_CHECKING:
    from bmrs_torch.channels.labels import Ints

__all__ = ["Size", "Source", "noting"]


class Source(NamedTuple):
    """Where a number is kept: an attribute of a module, or an entry of one: of a tuple, a dict, an object."""

    module: str
    attribute: str
    entry: Any


@dataclass(frozen=True)
class Size:
    """A number as torch met it.

    Attributes
    ----------
    sources : dict of Source to int
        The numbers that it was computed from.
    compute : callable
        What it is, by just those.
    labels : ndarray of int64 or None
        Channels that it counts, from the end if it is negative; of None it may not change.
    """

    sources: dict[Source, int]
    compute: Callable[[Mapping[Source, int]], int]
    labels: Ints | None

    def given(self, values: Mapping[Source, int]) -> int:
        """What it is, by these and maybe other numbers."""
        return self.compute({source: values[source] for source in self.sources})

    @property
    def source(self) -> Source | None:
        """The one number that it is, None if it was computed."""
        return next(iter(self.sources)) if self.compute is _own else None


def _own(values: Mapping[Source, int]) -> int:
    (value,) = values.values()
    return value


class _Noted(int):
    """A number that knows which attributes it was computed from."""

    sources: dict[Source, int]
    compute: Callable[[Mapping[Source, int]], int]

    def __hash__(self) -> int:
        # einops keeps what it computed of numbers that have a hash: those of other modules would come back.
        if sys._getframe(1).f_globals.get("__name__", "").startswith("einops"):
            raise TypeError("no hash")
        return int.__hash__(self)

    def __reduce_ex__(self, _protocol: Any) -> tuple[type[int], tuple[int]]:
        return int, (int(self),)

    def __neg__(self) -> int:
        return _noted(-int(self), self.sources, lambda values: -self.compute(values))


def _noted(value: int, sources: dict[Source, int], compute: Callable[[Mapping[Source, int]], int]) -> _Noted:
    number = _Noted(value)
    number.sources, number.compute = sources, compute
    return number


def _part(number: int, values: Mapping[Source, int]) -> int:
    if isinstance(number, _Noted):
        return number.compute({source: values[source] for source in number.sources})
    return number


def _operation(name: str, function: Callable[[int, int], int], *, turned: bool) -> Any:
    plain = getattr(int, name)

    def method(self: _Noted, other: Any) -> Any:
        value = plain(self, other)
        if value is NotImplemented or isinstance(other, bool):
            return value
        first, second = (other, self) if turned else (self, other)
        sources = {**self.sources, **getattr(other, "sources", {})}
        return _noted(value, sources, lambda values: function(_part(first, values), _part(second, values)))

    return method


for _name in ("add", "sub", "mul", "floordiv"):
    for _turned in (False, True):
        _special = f"__{'r' if _turned else ''}{_name}__"
        setattr(_Noted, _special, _operation(_special, getattr(operator, _name), turned=_turned))


_OWN_LAYERS = ("torch.", "bmrs_torch.")


@contextmanager
def noting(model: nn.Module, trace: Trace, sizes: list[Size]) -> Iterator[None]:
    """While the block runs, note which of the numbers that modules remember torch meets, and as what.

    Parameters
    ----------
    model : nn.Module
        Its attributes are what they were afterwards.
    trace : Trace
        What is known of the tensors.
    sizes : list of Size
        What was found is added.
    """
    # What torch's own layers keep is told to them: it is no matter of how they are used.
    modules = [(n, m) for n, m in model.named_modules() if not type(m).__module__.startswith(_OWN_LAYERS)]
    try:
        for name, module in modules:
            for key, value in list(vars(module).items()):
                _tag(vars(module), Source(name, key, None), value)
        with _Watch(trace, sizes):
            yield
    finally:
        for _, module in modules:
            for key, value in list(vars(module).items()):
                _untag(vars(module), key, value)


def held(value: Any) -> dict[Any, Any] | None:
    """The numbers that an attribute holds by name: of a dict, or of an object, such as a configuration."""
    if isinstance(value, dict):
        return value
    if isinstance(value, (nn.Module, Tensor, type)) or callable(value):
        return None
    fields = getattr(value, "__dict__", None)
    return fields if isinstance(fields, dict) else None


def _tag(holder: dict[str, Any], source: Source, value: Any) -> None:
    """Let an attribute, or what it holds, be followed; what another module holds too is followed for that."""
    key = source.attribute
    if type(value) is int:
        holder[key] = _noted(value, {source: value}, _own)
    elif type(value) in (tuple, list) and value and all(type(entry) is int for entry in value):
        entries = enumerate(value)
        holder[key] = type(value)(_noted(n, {source._replace(entry=i): n}, _own) for i, n in entries)
    elif not key.startswith("_") and (inner := held(value)) is not None:
        for name, number in list(inner.items()):
            if type(number) is int:
                inner[name] = _noted(number, {source._replace(entry=name): number}, _own)


def _untag(holder: dict[str, Any], key: str, value: Any) -> None:
    if isinstance(value, _Noted):
        holder[key] = int(value)
    elif type(value) in (tuple, list) and any(isinstance(entry, _Noted) for entry in value):
        holder[key] = type(value)(int(n) if isinstance(n, _Noted) else n for n in value)
    elif (inner := held(value)) is not None:
        for name, number in list(inner.items()):
            if isinstance(number, _Noted):
                inner[name] = int(number)


class _Watch(TorchFunctionMode):
    """Looks at what torch's functions are given."""

    def __init__(self, trace: Trace, sizes: list[Size]) -> None:
        super().__init__()
        self._trace, self._sizes = trace, sizes

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        numbers = list(_numbers((args, kwargs)))
        name = getattr(func, "__name__", "")
        if numbers and name not in _MAKERS and not name.startswith("new_"):
            met = [
                (n, None if labels is None or abs(n) != labels.size else labels)
                for n, labels in self._met(name, args, kwargs, out)
                if isinstance(n, _Noted)
            ]
            places = {id(number) for number, _ in met}
            met += [(number, None) for number in numbers if id(number) not in places]
            self._sizes += [Size(number.sources, number.compute, labels) for number, labels in met]
        return out

    def _met(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
    ) -> Iterator[tuple[Any, Ints | None]]:
        """Numbers given, and the channels that each counts."""
        x = args[0] if args and isinstance(args[0], Tensor) else None
        if x is None:
            return
        rest = [*args[1:], *kwargs.values()]
        if name in ("view", "reshape", "expand", "view_as", "broadcast_to"):
            shape = rest[0] if rest and isinstance(rest[0], Sequence) else rest
            yield from self._along(shape, out, 0)
        elif name == "unflatten":
            yield from self._along(rest[1], out, rest[0] % x.ndim)
        elif name in ("layer_norm", "rms_norm", "group_norm"):
            yield from self._normalised(name, x, rest[0])
        elif name == "__getitem__":
            yield from self._sliced(x, rest[0])
        elif name in ("narrow", "narrow_copy"):
            yield from self._bounds(x, rest[0], slice(rest[1], rest[1] + rest[2]))
            yield rest[2], self._labels(out, rest[0])
        elif name in ("split", "split_with_sizes", "tensor_split"):
            sizes = rest[0] if isinstance(rest[0], Sequence) else [rest[0]]
            dim = kwargs.get("dim", args[2] if len(args) > 2 else 0)
            for size, piece in zip(sizes, out, strict=False):
                yield size, self._labels(piece, dim)
        elif name in ("conv1d", "conv2d", "conv3d"):
            groups = kwargs.get("groups", args[6] if len(args) > 6 else 1)
            yield groups, self._labels(x, 1) if groups == x.shape[1] else None

    def _normalised(self, name: str, x: Tensor, given: Any) -> Iterator[tuple[Any, Ints | None]]:
        """Sizes of the last axes, or the number of groups, which go as a whole."""
        if name != "group_norm":
            yield from self._along(given, x, x.ndim - len(given))
            return
        labels = self._labels(x, 1)
        yield given, None if labels is None else labels[:: labels.size // int(given)]

    def _labels(self, tensor: Tensor, axis: int) -> Ints | None:
        found = self._trace.state(tensor).axes[axis]
        return None if found is None else found.labels

    def _along(self, sizes: Sequence[Any], tensor: Tensor, first: int) -> Iterator[tuple[Any, Ints | None]]:
        for axis, size in enumerate(sizes, first):
            yield size, self._labels(tensor, axis)

    def _sliced(self, x: Tensor, index: Any) -> Iterator[tuple[Any, Ints | None]]:
        index = index if isinstance(index, tuple) else (index,)
        if any(isinstance(entry, (Tensor, list)) for entry in index):
            return
        axes = sum(entry is not None and entry is not Ellipsis for entry in index)
        axis = 0
        for entry in index:
            if entry is Ellipsis:
                axis += x.ndim - axes
            elif entry is not None:
                if isinstance(entry, slice):
                    yield from self._bounds(x, axis, entry)
                axis += 1

    def _bounds(self, x: Tensor, axis: int, part: slice) -> Iterator[tuple[Any, Ints | None]]:
        """The ends of a part of an axis: each counts the channels before it, or behind it if negative."""
        labels = self._labels(x, axis)
        for bound in (part.start, part.stop):
            if isinstance(bound, int):
                yield bound, None if labels is None else labels[:bound] if bound >= 0 else labels[bound:]


_MAKERS = frozenset("zeros ones empty full rand randn arange eye tensor linspace __get__ __set__".split())
"""Functions whose tensors have no channels yet: what these meet says what their sizes are."""


def _numbers(value: Any) -> Iterator[_Noted]:
    """The numbers in what a function is given."""
    if isinstance(value, _Noted):
        yield value
    elif isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
        for entry in value:
            yield from _numbers(entry)
    elif isinstance(value, dict):
        yield from _numbers(list(value.values()))
    elif isinstance(value, slice):
        yield from _numbers([value.start, value.stop, value.step])
