"""Weights that a layer computes before it uses them: by parametrizations, weight_norm, spectral_norm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

if TYPE_CHECKING:
    from bmrs_torch.channels.trace import Trace

__all__ = ["Computed", "computed_tensors", "follow_computed", "let_go_of_graphs"]


class Computed(NamedTuple):
    """A tensor of a layer that is computed from parameters.

    Attributes
    ----------
    path : str
        The layer's name.
    layer : nn.Module
    name : str
        Of the tensor: ``"weight"``.
    """

    path: str
    layer: nn.Module
    name: str

    @property
    def full_name(self) -> str:
        """The name that it would have as a parameter."""
        return f"{self.path}.{self.name}".lstrip(".")

    @property
    def hook(self) -> tuple[int, Any] | None:
        """The pre-hook that computes it, with its key, where that is no parametrization."""
        return next(
            (
                (key, hook)
                for key, hook in self.layer._forward_pre_hooks.items()
                if isinstance(hook, (WeightNorm, SpectralNorm)) and hook.name == self.name
            ),
            None,
        )

    def originals(self) -> dict[str, Tensor]:
        """The tensors that it is computed from which are laid out like it, by their names in the model."""
        lists: Any = getattr(self.layer, "parametrizations", {})
        if self.name in lists:
            prefix, own = f"parametrizations.{self.name}.", lists[self.name]._parameters
        else:
            names = (f"{self.name}_g", f"{self.name}_v", f"{self.name}_orig")
            prefix, own = "", {k: p for k, p in self.layer._parameters.items() if k in names}
        return {f"{self.path}.{prefix}{key}".lstrip("."): p for key, p in own.items() if p is not None}


def computed_tensors(model: nn.Module) -> list[Computed]:
    """All tensors of a model's layers that parametrizations or such hooks compute."""
    found = []
    for path, layer in model.named_modules():
        lists: Any = getattr(layer, "parametrizations", None)
        names = list(lists) if isinstance(lists, nn.ModuleDict) else []
        hooks = layer._forward_pre_hooks.values()
        names += [hook.name for hook in hooks if isinstance(hook, (WeightNorm, SpectralNorm))]
        found += [Computed(path, layer, name) for name in names]
    return found


def let_go_of_graphs(model: nn.Module) -> None:
    """What hooks of old computed last holds the graph of that step, with which no layer can be copied."""
    for tensor in computed_tensors(model):
        if tensor.hook is not None:
            setattr(tensor.layer, tensor.name, getattr(tensor.layer, tensor.name).detach())


@contextmanager
def follow_computed(model: nn.Module, trace: Trace) -> Iterator[None]:
    """Take what is computed for parameters: not how they are computed is followed, only what for."""
    with ExitStack() as stack:
        for tensor in computed_tensors(model):
            found = tensor.hook
            if found is None:
                stack.enter_context(_aside(tensor, trace))
            else:
                key, hook = found
                hooks: Any = tensor.layer._forward_pre_hooks
                hooks[key] = _told(tensor, trace, hook)
                stack.callback(hooks.__setitem__, key, hook)
        yield


@contextmanager
def _aside(tensor: Computed, trace: Trace) -> Iterator[None]:
    lists: Any = tensor.layer.parametrizations
    computing = lists[tensor.name]

    def begin(_module: nn.Module, _args: Any) -> None:
        trace.asleep += 1

    def end(_module: nn.Module, _args: Any, output: Any) -> None:
        trace.asleep -= 1
        _declare(trace, tensor, output)

    handles = [computing.register_forward_pre_hook(begin), computing.register_forward_hook(end)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _told(tensor: Computed, trace: Trace, hook: Any) -> Callable[[nn.Module, Any], None]:
    def call(module: nn.Module, args: Any) -> None:
        trace.asleep += 1
        hook(module, args)
        trace.asleep -= 1
        _declare(trace, tensor, getattr(module, tensor.name))

    return call


def _declare(trace: Trace, tensor: Computed, value: Tensor) -> None:
    axes = trace.stored_axes(tensor.full_name, value)
    trace.set(value, axes, dynamic=False)
    for name, original in tensor.originals().items():
        if name not in trace.parameters:
            alike = original.ndim == value.ndim
            trace.parameters[name] = tuple(
                axes[d] if alike and size == value.shape[d] else trace.axis(trace.labels.new(size))
                for d, size in enumerate(original.shape)
            )
