"""Calling a model on an example, in a mode that is put back, and what it answers."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm

from bmrs_torch.layer import MultiplicativeNoise

__all__ = [
    "TrainingStep",
    "answers",
    "call",
    "check_has_values",
    "in_mode",
    "mapped",
    "tensors_of",
    "training_copy",
]

TrainingStep = Callable[[nn.Module], Any]
"""What a step of training computes with the model that it is given: it returns it, and changes nothing."""

_WITHOUT_PARTS = (str, bytes, bytearray, type, nn.Module, FunctionType, MethodType, ModuleType)


def call(model: nn.Module, example_inputs: Any) -> Any:
    """Call a model on a tensor, a tuple or list of positional inputs, or a dict of keyword inputs."""
    if isinstance(example_inputs, Tensor):
        return model(example_inputs)
    if isinstance(example_inputs, dict):
        return model(**example_inputs)
    if isinstance(example_inputs, (tuple, list)):
        return model(*example_inputs)
    raise TypeError(
        "example_inputs must be a tensor, a tuple or list of positional inputs or a dict of keyword inputs, "
        f"got {type(example_inputs).__name__}"
    )


def tensors_of(answer: Any) -> list[Tensor]:
    """Every tensor in what a model takes or returns, of any dtype, in any container.

    Tuples, lists, mappings, sets, iterators and the fields of objects are gone through, dataclasses and the
    outputs of transformers among them, in their own order; the tensors of a set in the order of their shapes,
    dtypes and sums. A cache of keys and values, which a model hands to itself, is none of its answer.

    Examples
    --------
    >>> import torch
    >>> from bmrs_torch.channels.calling import tensors_of
    >>> [t.shape[0] for t in tensors_of((torch.ones(1), {"a": [torch.ones(2, dtype=torch.bool)]}))]
    [1, 2]
    """
    return list(_tensors(answer, {}))


def _tensors(value: Any, seen: dict[int, Any]) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
        return
    parts = _parts(value)
    if parts is None or id(value) in seen:
        return
    seen[id(value)] = value
    if isinstance(value, Set):
        found = [list(_tensors(part, seen)) for part in parts]
        for tensors in sorted(found, key=_order) if len(found) > 1 else found:
            yield from tensors
        return
    for part in parts:
        yield from _tensors(part, seen)


def _parts(value: Any) -> Iterable[Any] | None:
    """What a container or an object holds, None for what holds nothing."""
    if value is None or isinstance(value, (int, float, complex, *_WITHOUT_PARTS)) or _is_cache(value):
        return None
    if isinstance(value, Mapping):
        return list(value.values())
    if dataclasses.is_dataclass(value):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    if isinstance(value, (tuple, list, Set, Iterator)):
        return value
    held = getattr(value, "__dict__", None)
    slots = [getattr(value, name, None) for kind in type(value).__mro__ for name in _slots(kind)]
    own = [*(held.values() if isinstance(held, dict) else ()), *slots]
    return own or (value if isinstance(value, Iterable) else None)


def _is_cache(value: Any) -> bool:
    """Whether it is transformers' store of keys and values: the model's own, for its next call, no answer."""
    return any(
        kind.__name__ == "Cache" and kind.__module__.startswith("transformers.")
        for kind in type(value).__mro__
    )


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _order(tensors: list[Tensor]) -> list[tuple[Any, ...]]:
    return [(tuple(t.shape), str(t.dtype), float(t.detach().abs().double().sum())) for t in tensors]


def mapped(inputs: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A copy of inputs, in the same containers, with every tensor changed."""
    return copy.deepcopy(inputs, {id(tensor): change(tensor) for tensor in tensors_of(inputs)})


def check_has_values(model: nn.Module) -> None:
    """Raise ValueError if something of a model is on the meta device, where it can't be run on an example."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    empty = next((name for name, tensor in tensors if tensor.is_meta), None)
    if empty is not None:
        raise ValueError(
            f"{type(model).__name__} has no values, {empty!r} is on the meta device, so it can't be run: "
            "give it some first, by to_empty(device=...) and load_state_dict, or load_pruned. Plans take it "
            "without: plan_insertion, plan_compaction"
        )


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Run the block with all of a model in training or in evaluation mode; then each module is as it was.

    On the way it passes through training mode, on which modules forget what they keep for evaluation: tables
    of attention's biases, weights merged with their adapters. Nothing made of other weights is used.
    """
    modes = {module: module.training for module in model.modules()}
    try:
        model.train()
        model.train(training)
        yield
    finally:
        model.train()
        for module, mode in modes.items():
            module.training = mode


def training_copy(model: nn.Module) -> nn.Module:
    """A copy of a model in training mode, but for what draws at random there, noise and dropout.

    Spectral norms stay what they are too: they are estimated anew at each step of training.
    BatchNorm that is synchronised among processes is computed in this one: no other comes along.
    """
    other = copy.deepcopy(model).train()
    for module in other.modules():
        estimates = any(isinstance(hook, SpectralNorm) for hook in module._forward_pre_hooks.values())
        if estimates or isinstance(module, (MultiplicativeNoise, _DropoutNd, _SpectralNorm)):
            module.eval()
        elif isinstance(module, nn.SyncBatchNorm):
            vars(module)["forward"] = partial(nn.modules.batchnorm._BatchNorm.forward, module)
    return other


@torch.no_grad()
def answers(model: nn.Module, example_inputs: Any) -> list[Tensor]:
    """What a model answers in evaluation mode: all its tensors."""
    with in_mode(model, training=False):
        return tensors_of(call(model, example_inputs))
