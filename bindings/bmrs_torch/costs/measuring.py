"""What a network costs on this machine: time and memory of an answer."""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bmrs_torch.channels.calling import call

WARM_UP = 3
FEWEST_ROUNDS, MOST_ROUNDS = 5, 1000


@torch.no_grad()
def take_times(models: Sequence[nn.Module], example_inputs: Any, *, seconds: float) -> list[list[float]]:
    """Seconds of a forward pass of each model, in turns, so that a busy moment of the machine hits all alike.

    Parameters
    ----------
    models : sequence of nn.Module
        In the mode in which they are to be timed.
    example_inputs : Tensor, tuple, list or dict
        What they are run on.
    seconds : float
        For all rounds together; at least 5 are run, at most 1000, after 3 that don't count.

    Returns
    -------
    list of list of float
        For each model the times of all rounds.
    """
    wait = waiting_for(models[0])
    times: list[list[float]] = [[] for _ in models]
    for _ in range(WARM_UP):
        for model in models:
            call(model, example_inputs)
    started = time.perf_counter()
    for done in range(MOST_ROUNDS):
        if done >= FEWEST_ROUNDS and time.perf_counter() - started > seconds:
            break
        # The order changes, so that no model always finds the caches as the same other left them.
        for number in (range(len(models)), reversed(range(len(models))))[done % 2]:
            times[number].append(_time(models[number], example_inputs, wait))
    return times


def _time(model: nn.Module, example_inputs: Any, wait: Callable[[], None]) -> float:
    wait()
    started = time.perf_counter()
    call(model, example_inputs)
    wait()
    return time.perf_counter() - started


def median_ratio(times: Sequence[float], others: Sequence[float]) -> float:
    """Median over the rounds of the one's time by the other's."""
    return statistics.median(a / b for a, b in zip(times, others, strict=True))


def waiting_for(model: nn.Module) -> Callable[[], None]:
    """What waits until a model's device has done what it was told."""
    return torch.cuda.synchronize if _device(model).type == "cuda" else _do_nothing


def _do_nothing() -> None:
    """The processor has finished when the call returns."""


def _device(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


@torch.no_grad()
def peak_bytes(model: nn.Module, example_inputs: Any) -> int:
    """The most bytes of tensors that exist at once while a model answers, beyond its own and its inputs.

    Parameters
    ----------
    model : nn.Module
        In the mode in which it is to be measured.
    example_inputs : Tensor, tuple, list or dict
        What it is run on.

    Returns
    -------
    int
        On a GPU as torch's allocator has it; elsewhere the tensors that operators return are followed, and
        what an operator uses inside itself isn't seen.
    """
    device = _device(model)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call(model, example_inputs)
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device)) - before
    own = [*model.parameters(), *model.buffers(), *tree_leaves(example_inputs)]
    live = _LiveBytes([tensor for tensor in own if isinstance(tensor, Tensor)])
    with live:
        call(model, example_inputs)
    return live.most


class _LiveBytes(TorchDispatchMode):
    """Follows the memory of all tensors made while it is active, until it is freed.

    Parameters
    ----------
    known : sequence of Tensor
        Tensors that don't count.
    """

    def __init__(self, known: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._follow(tensor.untyped_storage())
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self._known:
            return
        self._known.add(storage._cdata)
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())

    def _forget(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.now -= size
