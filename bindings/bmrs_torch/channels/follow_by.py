"""Rules of a user's own: how an operation, a function or a module carries channels."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeVar

from torch import Tensor, nn

from bmrs_torch.channels.trace import Call, Trace, UnknownUseError

__all__ = ["Rule", "channelwise", "follow_by", "follow_modules", "rules_of_operations"]

Rule = Callable[[Trace, Call], None]
T = TypeVar("T")

_OPERATIONS: dict[str, Rule] = {}
_MODULES: dict[type[nn.Module], Rule] = {}


def follow_by(rule: Rule) -> Callable[[T], T]:
    """Say how channels fare in an operation, a function or a module that can't be followed by itself.

    Without a rule the channels that reach an unknown operation are kept, which is always right; a rule lets
    them go. It is believed, so it must be true on every input; what :func:`compact` removes is verified all
    the same.

    Parameters
    ----------
    rule : callable
        :func:`channelwise`, or a function of one's own of a `Trace` and a `Call` (`bmrs_torch.channels`): it
        reads what is known of what comes in by ``trace.state(call["x"])``, and tells of every tensor that
        comes out by ``trace.set``; ``trace.labels.unite`` says which channels go together, ``trace.pin``
        which stay and why. It raises `UnknownUseError` for uses that it doesn't know.

    Returns
    -------
    callable
        A decorator. What it decorates is one of

        - a function of tensors: the function that it returns is to be called in its place;
        - a class of modules, yours or not: all its instances are followed by the rule, and subclasses that
          have the same forward method;
        - an operation: what ``torch.library.custom_op`` gives, ``torch.ops.mylib.name`` or ``"mylib::name"``.

    Raises
    ------
    TypeError
        For anything else.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import channelwise, compact, follow_by, insert_noise
    >>> @follow_by(channelwise(axis=1))
    ... def strengths(x):
    ...     return torch.linalg.svdvals(x)  # of each channel, an image
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.first, self.last = nn.Conv2d(2, 4, 3), nn.Conv1d(4, 1, 1)
    ...     def forward(self, x):
    ...         return self.last(strengths(self.first(x)))
    >>> example = torch.rand(1, 2, 9, 9)
    >>> model = insert_noise(Net(), example)
    >>> model.first.noise.mask[1] = 0
    >>> compact(model, example).last
    Conv1d(3, 1, kernel_size=(1,), stride=(1,))
    """

    def decorate(target: Any) -> Any:
        if isinstance(target, type) and issubclass(target, nn.Module):
            _MODULES[target] = rule
            return target
        name = _operation(target)
        if name is not None:
            _OPERATIONS[name] = rule
            return target
        if callable(target) and not isinstance(target, (type, nn.Module)):
            return _followed(target, rule)
        raise TypeError(
            "follow_by(rule) takes a function, a class of modules or an operation (from "
            f"torch.library.custom_op, torch.ops.mylib.name or 'mylib::name'), got {target!r}"
        )

    return decorate


def _operation(target: Any) -> str | None:
    """The name of an operation of torch with its library's."""
    if isinstance(target, str):
        return target
    packet = getattr(target, "_opoverload", target)
    name = getattr(packet, "_qualified_op_name", None) or getattr(packet, "name", None)
    if callable(name):
        name = name()
    return str(name).partition(".")[0] if name and "::" in str(name) else None


def _followed(function: Callable[..., Any], rule: Rule) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        trace = Trace.current()
        if trace is None or trace.asleep:
            return function(*args, **kwargs)
        with trace.resting():
            out = function(*args, **kwargs)
        trace.apply(Call(function.__name__, _named(function, args, kwargs), out), rule)
        return out

    return call


def _named(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    bound = inspect.signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def rules_of_operations() -> dict[str, Rule]:
    """The rules that were given for operations, by the operation's name with its library's."""
    return dict(_OPERATIONS)


def _rule_of(module: nn.Module) -> Rule | None:
    """The rule that was given for a module's class, or for one that it has its forward method from."""
    kinds = [k for k in type(module).__mro__ if k in _MODULES and k.forward is type(module).forward]
    return _MODULES[kinds[0]] if kinds else None


@contextmanager
def follow_modules(model: nn.Module, trace: Trace) -> Iterator[None]:
    """Don't follow what runs in modules that have a rule: this tells what comes out."""
    with ExitStack() as stack:
        for name, module in model.named_modules():
            rule = _rule_of(module)
            if rule is not None:
                begin, end = partial(_enter, trace), partial(_leave, trace, rule, name)
                for handle in (
                    module.register_forward_pre_hook(begin, prepend=True),
                    module.register_forward_hook(end, prepend=True, with_kwargs=True),
                ):
                    stack.callback(handle.remove)
        yield


def _enter(trace: Trace, _module: nn.Module, _args: tuple[Any, ...]) -> None:
    trace.asleep += 1


def _leave(
    trace: Trace,
    rule: Rule,
    name: str,
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    out: Any,
) -> None:
    trace.asleep -= 1
    if not trace.asleep:
        given = _named(type(module).forward, (module, *args), kwargs)
        given.pop(next(iter(given)))
        trace.modules.append(name)
        trace.apply(Call(type(module).__name__, given, out, module=module), rule)
        trace.modules.pop()


def channelwise(axis: int, *, parameters: Mapping[str, int] | None = None) -> Rule:
    """A rule for what does something to each channel by itself.

    Parameters
    ----------
    axis : int
        Of the first tensor that comes in and of every tensor that comes out: entry c of it must depend on
        entry c of what came in alone, however many there are. Channels on other axes are kept, and so are
        those of other tensors that come in.
    parameters : dict of str to int
        Of a module: its parameters that have an entry for each channel, and on which axis.

    Returns
    -------
    callable
        For :func:`follow_by`.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import channelwise, follow_by
    >>> @follow_by(channelwise(axis=1, parameters={"filters": 0}))
    ... class Strengths(nn.Module):
    ...     def __init__(self, channels):
    ...         super().__init__()
    ...         self.filters = nn.Parameter(torch.ones(channels, 1))
    ...     def forward(self, x):
    ...         return torch.linalg.svdvals(x) * self.filters
    """

    def rule(trace: Trace, call: Call) -> None:
        first, *others = call.tensors
        d = axis % first.ndim
        known = trace.state(first).axes
        reason = f"{call.name} is told to act on each channel of axis {axis} by itself {trace.place}"
        trace.pin(tuple(a for i, a in enumerate(known) if i != d), f"{reason}, and these lie on another")
        for other in others:
            trace.pin_tensor(other, f"{reason}, and these come into it elsewhere")
        channels = known[d]
        for name, place in (parameters or {}).items():
            own = trace.state(_parameter(call, name)).axes[place]
            if channels is None or own is None or own.size != channels.size:
                raise UnknownUseError(f"its {name} has no entry for each channel on axis {place}")
            trace.labels.unite(channels.labels, own.labels)
        dynamic = any(trace.state(t).dynamic for t in call.tensors)
        for out in call.outputs:
            axes: list[Any] = [None] * out.ndim
            if channels is not None:
                if not -out.ndim <= axis < out.ndim or out.shape[axis] != channels.size:
                    came, went = channels.size, tuple(out.shape)
                    raise UnknownUseError(f"{came} channels come in, what comes out is of shape {went}")
                own_axis = axis % out.ndim
                axes[own_axis] = trace.carried(out, own_axis, channels.labels, channels.zero)
            trace.set(out, axes, dynamic)

    return rule


def _parameter(call: Call, name: str) -> Tensor:
    if call.module is None:
        raise UnknownUseError("parameters are given, but it is no module")
    return call.module.get_parameter(name)
