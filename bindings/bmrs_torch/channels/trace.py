"""Run a model once and follow its channels through every operation of torch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
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
    """One operation: what came in, by name, defaults included, and what came out."""

    name: str
    given: dict[str, Any]
    out: Any
    pointwise: bool

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
        self.strangers_vary = False
        self.asleep = 0
        self._rules = rules
        self._names = {id(tensor): name for name, tensor in reversed(stored.items())}
        self._stored = stored
        self._states: Any = WeakIdKeyDictionary()

    @property
    def module(self) -> str:
        """Name of the module whose forward method is running."""
        return self.modules[-1] if self.modules else ""

    def name_of(self, tensor: Tensor) -> str | None:
        """Name of a stored tensor."""
        return self._names.get(id(tensor))

    def state(self, tensor: Tensor) -> State:
        """What is known of a tensor; nothing of one that the model has made from nothing."""
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
        """Names of the stored tensors of which a tensor has the first two axes: itself, or a rescaled one."""
        axes = self.state(tensor).axes
        return [
            name
            for name, own in self.parameters.items()
            if len(own) == len(axes) > 1 and own[0] is axes[0] and own[1] is axes[1]
        ]

    def stored_labels(self, vector: Tensor) -> Ints:
        """Labels of a stored tensor of one axis."""
        (axis,) = self.state(vector).axes
        assert axis is not None
        return axis.labels

    def set(self, tensor: Tensor, axes: Sequence[Axis | None], dynamic: bool) -> None:
        """Tell what is known of a tensor."""
        self._states[tensor] = State(tuple(axes), dynamic)

    def read(self, inputs: Any) -> None:
        """Tell that these tensors are the model's input."""
        for tensor in tensors_of(inputs):
            self.set(tensor, (None,) * tensor.ndim, dynamic=True)

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
        if not tensor.is_floating_point():
            return self.axis(labels)
        zero = self.zeros(tensor, axis, candidates)
        if (candidates & ~zero).any():
            self.lost.append((labels[candidates & ~zero], self.place))
        return Axis(labels, zero)

    def aliases(self, tensor: Tensor) -> Iterator[Tensor]:
        """Other tensors known here that share the memory of this one."""
        memory = tensor.untyped_storage().data_ptr()
        for other in list(self._states.keys()):
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
        call = Call(func.overloadpacket.__name__, given, out, torch.Tag.pointwise in func.tags)
        self._record(call, mutates=func._schema.is_mutable)
        return out

    def _record(self, call: Call, mutates: bool) -> None:
        states = [self.state(t) for t in call.tensors]
        outputs = call.outputs
        twins = self._written(outputs[0], states) if mutates and outputs else []
        if any(axis is not None for state in states for axis in state.axes):
            self._apply(call)
        else:
            dynamic = any(state.dynamic for state in states)
            for out in outputs:
                self.set(out, (None,) * out.ndim, dynamic)
        for twin in twins:
            self._states[twin] = self.state(outputs[0])

    def _apply(self, call: Call) -> None:
        rule = self._rules.get(call.name.rstrip("_") or call.name)
        if rule is None and call.pointwise:
            rule = self._rules["pointwise"]
        if rule is None:
            give_up(self, call, f"{call.name} {self.place} mixes them in a way that can't be followed")
            return
        try:
            rule(self, call)
        except UnknownUseError as error:
            give_up(self, call, f"{call.name} {self.place} is used in a way that isn't known ({error})")
        except Exception as error:
            raise BrokenRuleError(f"the rule for {call.name} failed {self.place}: {error}") from error

    def _written(self, tensor: Tensor, states: list[State]) -> list[Tensor]:
        """Other names of a tensor that is written to; of tensors that share part of it nothing is known."""
        reason = f"memory shared by several tensors is written to {self.place}"
        layout = (tensor.shape, tensor.stride(), tensor.storage_offset())
        twins = []
        for other in self.aliases(tensor):
            if (other.shape, other.stride(), other.storage_offset()) == layout:
                twins.append(other)
                continue
            for state in (self.state(other), *states):
                self.pin(state.axes, reason)
            self.set(other, (None,) * other.ndim, dynamic=True)
        return twins


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
