"""Run a model once and follow its channels through every operation of torch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from bmrs_torch.channels.axes import Axes, Axis, Split, State
from bmrs_torch.channels.calling import tensors_of
from bmrs_torch.channels.labels import Labels
from bmrs_torch.channels.memory import is_uniform_beside, meet, same_axes, same_layout, within

if TYPE_CHECKING:
    from bmrs_torch.channels.labels import Bools, Ints


@dataclass(frozen=True)
class Use:
    """A sum over channels: they may only go where each adds 0."""

    labels: Ints
    zero: Bools
    module: str


@dataclass(frozen=True)
class Balance:
    """Groups of channels that have to stay of equal size.

    Attributes
    ----------
    rows : tuple of tuple of ndarray
        In each row a piece for each group, all of one size, of which equally many have to stay: in a grouped
        convolution one row of inputs and one of outputs.
    reason : str
    whole : bool
        Whether a group may go as a whole, with its pieces in all rows.
    """

    rows: tuple[tuple[Ints, ...], ...]
    reason: str
    whole: bool = False


@dataclass(frozen=True)
class Reshape:
    """A view, in a module's forward method, that divides channels among axes."""

    module: str
    split: Split


@dataclass(frozen=True)
class Grouped:
    """Channels of a grouped convolution on axis 1 of its weight, which has only their places in a group.

    Those are the inputs, of a transposed convolution the outputs.
    """

    labels: Ints
    groups: int


@dataclass
class Call:
    """One operation: what came in, by name, defaults included, and what came out.

    Attributes
    ----------
    name : str
        Of the operation, the function or the module's class.
    given : dict of str to object
        ``call["x"]`` is ``call.given.get("x")``.
    out : object
    pointwise : bool
        Whether torch says that it goes entry by entry.
    full_name : str
        Of an operation, with its library: ``"aten::sort"``.
    module : nn.Module or None
        Of which it is a call, if it is one.
    """

    name: str
    given: dict[str, Any]
    out: Any
    pointwise: bool = False
    full_name: str = ""
    module: nn.Module | None = None

    def __getitem__(self, key: str) -> Any:
        return self.given.get(key)

    @property
    def tensors(self) -> list[Tensor]:
        """Every tensor that came in."""
        return [t for t in tree_leaves(self.given) if isinstance(t, Tensor)]

    @property
    def outputs(self) -> list[Tensor]:
        """Every tensor that came out."""
        return [t for t in tree_leaves(self.out) if isinstance(t, Tensor)]


class UnknownUseError(Exception):
    """A rule doesn't know how an operation is used here: the channels that come into it are kept.

    Any other error in a rule is a fault of the rule.
    """


class BrokenRuleError(Exception):
    """A rule for an operation has a fault: no fault of the model, and not to be taken for one."""


class Trace(TorchDispatchMode):
    """What running a model tells about its channels.

    Parameters
    ----------
    stored : dict of str to Tensor
        Parameters and buffers by name: each of their axes gets labels when it is first used.
    labels : Labels
        Where labels are made and united.
    rules : dict
        How an operation, by its name, carries channels from what comes in to what comes out.
    parameters : dict of str to tuple of Axis
        Labels of the axes of every stored tensor that was used; more are added.

    Attributes
    ----------
    uses, balances, reshapes, grouped
        What restricts which channels may go.
    lost : list of (ndarray, str)
        Channels that were 0 and no longer are, and where.
    sums : list of ndarray
        Channels of tensors that are added: those of residual streams.
    witness : callable or None
        Is told each operation that was followed: the call, torch's operation, its arguments by position and
        by name.
    strangers_vary : bool
        Whether tensors that come from nowhere are inputs, not constants.
    asleep : int
        While it isn't 0, nothing that runs is followed.
    """

    def __init__(
        self,
        stored: dict[str, Tensor],
        labels: Labels,
        rules: dict[str, Callable[[Trace, Call], None]],
        parameters: dict[str, tuple[Axis, ...]],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.labels = labels
        self.modules: list[str] = []
        self.parameters = parameters
        self.uses: list[Use] = []
        self.balances: list[Balance] = []
        self.reshapes: list[Reshape] = []
        self.grouped: dict[str, Grouped] = {}
        self.lost: list[tuple[Ints, str]] = []
        self.sums: list[Ints] = []
        self.witness: Callable[[Call, Any, tuple[Any, ...], dict[str, Any]], None] | None = None
        self.strangers_vary = False
        self.asleep = 0
        self._rules = rules
        self._names = {id(tensor): name for name, tensor in reversed(stored.items())}
        self._stored = stored
        self._states: Any = WeakIdKeyDictionary()
        self._given: set[int] = set()  # where the model's input lies in memory
        self._in_memory: dict[int, Any] = {}  # the tensors that begin there
        self._spoiled: Any = WeakIdKeyDictionary()  # what is to be kept if they are read again, and why
        self._blank: Any = WeakIdKeyDictionary()  # made without any numbers in them

    def __enter__(self) -> Trace:
        _active.append(self)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        _active.remove(self)

    @staticmethod
    def current() -> Trace | None:
        """The trace that follows what runs now."""
        return _active[-1] if _active else None

    @contextmanager
    def resting(self) -> Iterator[None]:
        """While the block runs, nothing is followed."""
        self.asleep += 1
        try:
            yield
        finally:
            self.asleep -= 1

    @property
    def module(self) -> str:
        """Name of the module whose forward method is running."""
        return self.modules[-1] if self.modules else ""

    def name_of(self, tensor: Tensor) -> str | None:
        """Name of a stored tensor."""
        return self._names.get(id(tensor))

    def state(self, tensor: Tensor) -> State:
        """What is known of a tensor; nothing of one that the model has made from nothing."""
        spoiled = self._spoiled.pop(tensor, None)
        if spoiled is not None:
            self.pin(*spoiled)
        known = self._states.get(tensor)
        if known is not None:
            return known  # type: ignore[no-any-return]
        name = self.name_of(tensor)
        if name is None or (tensor.ndim > 1 and not isinstance(tensor, nn.Parameter)):
            # Buffers of several axes are masks and tables of positions.
            return State((None,) * tensor.ndim, dynamic=name is None and self.strangers_vary)
        return State(self.stored_axes(name, tensor), dynamic=False)

    def stored_axes(self, name: str, tensor: Tensor) -> tuple[Axis, ...]:
        """The axes of a stored tensor, which gets labels when it is first used."""
        if name not in self.parameters:
            self.parameters[name] = tuple(self.axis(self.labels.new(size)) for size in tensor.shape)
        return self.parameters[name]

    def axis(self, labels: Ints, zero: Bools | None = None) -> Axis:
        """An axis of these channels, none of them known to be 0 unless told."""
        return Axis(labels, np.zeros(labels.size, dtype=np.bool_) if zero is None else zero)

    def names_of(self, tensor: Tensor) -> list[str]:
        """Names of the stored tensors that a tensor is, is a view of as a whole, or is rescaled from.

        One that is rescaled has the first two axes of what it was made of.
        """
        axes, memory = self.state(tensor).axes, tensor.untyped_storage().data_ptr()

        def is_view_of(stored: Tensor | None) -> bool:
            alike = stored is not None and stored.shape == tensor.shape
            return alike and stored.untyped_storage().data_ptr() == memory  # type: ignore[union-attr]

        return [
            name
            for name, own in self.parameters.items()
            if len(own) == len(axes) > 1
            and ((own[0] is axes[0] and own[1] is axes[1]) or is_view_of(self._stored.get(name)))
        ]

    def stored_labels(self, vector: Tensor) -> Ints:
        """Labels of a stored tensor of one axis."""
        (axis,) = self.state(vector).axes
        assert axis is not None
        return axis.labels

    def set(self, tensor: Tensor, axes: Sequence[Axis | None], dynamic: bool) -> None:
        """Tell what is known of a tensor."""
        self._states[tensor] = State(tuple(axes), dynamic)
        if tensor.layout == torch.strided:  # others have no memory that could be shared in part
            memory = tensor.untyped_storage().data_ptr()
            self._in_memory.setdefault(memory, WeakIdKeyDictionary())[tensor] = True

    def read(self, inputs: Any) -> None:
        """Tell that these tensors are the model's input."""
        for tensor in tensors_of(inputs):
            self.set(tensor, (None,) * tensor.ndim, dynamic=True)
            if tensor.layout == torch.strided:
                self._given.add(tensor.untyped_storage().data_ptr())

    def is_given(self, tensor: Tensor) -> bool:
        """Whether a tensor is the model's input, or a view of it."""
        return tensor.layout == torch.strided and tensor.untyped_storage().data_ptr() in self._given

    def pin(self, axes: Axes, reason: str) -> None:
        """Keep all channels of these axes."""
        for axis in axes:
            if axis is not None:
                self.labels.pin(axis.labels, reason)

    def pin_tensor(self, tensor: Tensor, reason: str) -> None:
        """Keep all channels of a tensor."""
        self.pin(self.state(tensor).axes, reason)

    @property
    def place(self) -> str:
        """Where in the model the operation takes place, for messages."""
        return f"in {self.module!r}" if self.module else "in the model's own forward method"

    def zeros(self, tensor: Tensor, axis: int, candidates: Bools) -> Bools:
        """Which of these entries are 0 in what was computed."""
        result = np.zeros_like(candidates)
        where = np.flatnonzero(candidates)
        if where.size and tensor.numel():
            entries = tensor.index_select(axis, torch.as_tensor(where, device=tensor.device))
            alive = (entries != 0).movedim(axis, 0).flatten(1).any(dim=1)
            result[where] = ~alive.cpu().numpy()
        return result

    def carried(self, tensor: Tensor, axis: int, labels: Ints, candidates: Bools) -> Axis:
        """An axis some of whose channels were 0 before; those that no longer are, are noted.

        Of positions and comparisons nothing is added up: that they are not 0 costs no channel its place.
        """
        if not (tensor.is_floating_point() or tensor.is_complex()):
            return self.axis(labels)
        zero = self.zeros(tensor, axis, candidates)
        if (candidates & ~zero).any():
            self.lost.append((labels[candidates & ~zero], self.place))
        return Axis(labels, zero)

    def aliases(self, tensor: Tensor) -> Iterator[Tensor]:
        """Other tensors known here that share the memory of this one."""
        if tensor.layout != torch.strided:
            return
        memory = tensor.untyped_storage().data_ptr()
        for other in list(self._in_memory.get(memory, {}).keys()):
            # What lay there may have been freed, or resized, and lie elsewhere.
            if other is not tensor and other.untyped_storage().data_ptr() == memory:
                yield other

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if self.asleep:
            return out
        defaults = _defaults(func)
        given = {**defaults, **dict(zip(defaults, args, strict=False)), **kwargs}
        pointwise = torch.Tag.pointwise in func.tags
        call = Call(func.overloadpacket.__name__, given, out, pointwise, func._schema.name)
        self._record(call, mutates=func._schema.is_mutable)
        if self.witness is not None:
            self.witness(call, func, args, kwargs)
        return out

    def _record(self, call: Call, mutates: bool) -> None:
        states = [self.state(t) for t in call.tensors]
        outputs = call.outputs
        written = outputs[0] if mutates and outputs else None
        others = [] if written is None else [t for t in self.aliases(written) if meet(written, t)]
        if any(axis is not None for state in states for axis in state.axes):
            self._apply(call)
        else:
            dynamic = any(state.dynamic for state in states)
            for out in outputs:
                self.set(out, (None,) * out.ndim, dynamic)
        if "empty" in call.name:
            for out in outputs:
                self._blank[out] = True
        for other in others:
            assert written is not None
            self._spread(written, other)

    def _apply(self, call: Call) -> None:
        rule = self._rules.get(call.full_name) or self._rules.get(call.name.rstrip("_") or call.name)
        if rule is None and call.pointwise:
            rule = self._rules["pointwise"]
        if rule is None:
            give_up(self, call, f"{call.name} {self.place} mixes them in a way that can't be followed")
            return
        self.apply(call, rule)

    def apply(self, call: Call, rule: Callable[[Trace, Call], None]) -> None:
        """Tell by a rule what comes out of an operation.

        Raises
        ------
        BrokenRuleError
            If the rule fails, or says nothing of something that comes out.
        """
        try:
            rule(self, call)
        except UnknownUseError as error:
            give_up(self, call, f"{call.name} {self.place} is used in a way that isn't known ({error})")
        except Exception as error:
            raise BrokenRuleError(f"the rule for {call.name} failed {self.place}: {error}") from error
        if any(out not in self._states for out in call.outputs):
            raise BrokenRuleError(
                f"the rule for {call.name} doesn't tell what comes out {self.place}: it must call trace.set "
                "for each tensor"
            )

    def _spread(self, written: Tensor, other: Tensor) -> None:
        """What was written to a tensor is in those that share memory with it, too."""
        spoiled = self._spoiled.get(other)
        if spoiled is not None:
            self._spoiled[other] = (*self.state(written).axes, *spoiled[0]), spoiled[1]
            return
        now, before = self.state(written), self.state(other)
        if same_layout(written, other):
            self.set(other, now.axes, now.dynamic)
            return
        pairs: set[tuple[int, int]] = set()
        if within(written, other):
            pairs = set(same_axes(written, other))
        elif within(other, written):
            pairs = {(i, j) for j, i in same_axes(other, written)}
        pairs = {(i, j) for i, j in pairs if now.axes[i] is not None or before.axes[j] is not None}
        known = len(pairs) == sum(a is not None for a in now.axes)
        known &= {j for _, j in pairs} >= {j for j, a in enumerate(before.axes) if a is not None}
        axes: list[Axis | None] = [None] * other.ndim
        for i, j in pairs if known else ():
            axes[j] = self._mixed(now.axes[i], before, written, other, j)
            known &= axes[j] is not None
        if known:
            self.set(other, axes, now.dynamic or before.dynamic)
        else:
            self.set(other, (None,) * other.ndim, dynamic=True)
            reason = f"memory shared by several tensors is written to {self.place}"
            self._spoiled[other] = (*now.axes, *before.axes), reason

    def _mixed(
        self, now: Axis | None, before: State, written: Tensor, other: Tensor, axis: int
    ) -> Axis | None:
        """An axis of a tensor of which another, with these channels, is a part that was written to."""
        own = before.axes[axis]
        if now is None:
            return None
        if own is not None:
            self.labels.unite(now.labels, own.labels)
        elif within(written, other) and not self._bears(written, other, axis):
            return None
        zero = now.zero if own is None else now.zero & own.zero
        # What nothing was written to yet will be, before it is read.
        return Axis(now.labels, zero if other in self._blank else self.zeros(other, axis, zero))

    def _bears(self, written: Tensor, other: Tensor, axis: int) -> bool:
        """Whether a tensor without channels may have some, but for what was written to a part of it."""
        if self.state(other).dynamic or self.name_of(other) is not None:
            return False
        return other in self._blank or is_uniform_beside(written, other, axis)


_active: list[Trace] = []
"""The traces that follow what runs now, the innermost last."""


@functools.cache
def _defaults(func: Any) -> dict[str, Any]:
    """What an operation's arguments are where torch hands over none, as it does for a default value."""
    return {a.name: a.default_value if a.has_default_value() else None for a in func._schema.arguments}


def give_up(trace: Trace, call: Call, reason: str) -> None:
    """Keep every channel that comes into an operation; what comes out has none."""
    for tensor in call.tensors:
        trace.pin_tensor(tensor, reason)
    for out in call.outputs:
        trace.set(out, (None,) * out.ndim, dynamic=True)
