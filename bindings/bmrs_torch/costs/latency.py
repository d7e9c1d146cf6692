"""Where the time of a network goes, module by module, and how it would shrink with the channels."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bmrs_torch.channels.calling import call, in_mode
from bmrs_torch.channels.network import FollowedNetwork
from bmrs_torch.channels.work import Count
from bmrs_torch.costs.measuring import FEWEST_ROUNDS, MOST_ROUNDS, WARM_UP, waiting_for
from bmrs_torch.costs.terms import Term

if TYPE_CHECKING:
    from bmrs_torch.channels.labels import Bools

__all__ = ["latency_terms", "module_times"]


class _Stopwatch:
    """Seconds that each module's forward method takes itself, without those of the modules that it calls."""

    def __init__(self, model: nn.Module) -> None:
        self._wait = waiting_for(model)
        self._running: list[tuple[str, float]] = []
        self.seconds: dict[str, float] = {}

    def _split(self) -> float:
        """The time until now belongs to the innermost module that runs."""
        self._wait()
        now = time.perf_counter()
        if self._running:
            name, since = self._running[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - since
        return now

    def enter(self, name: str) -> None:
        """A module begins."""
        self._running.append((name, self._split()))

    def leave(self) -> None:
        """The innermost module ends."""
        now = self._split()
        self._running.pop()
        if self._running:
            self._running[-1] = self._running[-1][0], now


@torch.no_grad()
def module_times(model: nn.Module, example_inputs: Any, *, seconds: float) -> dict[str, float]:
    """Seconds that each module takes in evaluation, without those it calls: medians over rounds.

    Parameters
    ----------
    model : nn.Module
        It is left as it is.
    example_inputs : Tensor, tuple, list or dict
        What it is run on.
    seconds : float
        For all rounds together; at least 5 are run, after 3 that don't count.
    """
    watch = _Stopwatch(model)
    rounds: list[dict[str, float]] = []
    with in_mode(model, training=False), ExitStack() as stack:
        for name, module in model.named_modules():
            for handle in (
                module.register_forward_pre_hook(lambda _m, _args, name=name: watch.enter(name)),
                module.register_forward_hook(lambda _m, _args, _out: watch.leave()),
            ):
                stack.callback(handle.remove)
        started = time.perf_counter()
        while len(rounds) < WARM_UP + FEWEST_ROUNDS or (
            time.perf_counter() - started < seconds and len(rounds) < MOST_ROUNDS
        ):
            watch.seconds = {}
            call(model, example_inputs)
            rounds.append(watch.seconds)
    counted = rounds[WARM_UP:]
    names = dict.fromkeys(name for each in counted for name in each)
    return {name: statistics.median(each.get(name, 0.0) for each in counted) for name in names}


def latency_terms(
    network: FollowedNetwork, times: Mapping[str, float], gone: Bools, total: float
) -> list[Term]:
    """The time of a network as terms: each module's in proportion to its multiply-adds or to what it gives.

    Parameters
    ----------
    network : FollowedNetwork
    times : mapping of str to float
        Seconds that each module took itself when `gone` was gone.
    gone : ndarray of bool
        Classes of channels, by representative.
    total : float
        Seconds that the network took as a whole then. What modules took beyond it, looking at the clock, is
        taken off in proportion; what is missing to it is fixed.
    """
    macs: dict[str, list[tuple[float, tuple[Count, ...]]]] = {}
    for work in network.work:
        now = work.macs * _share(network, work.counts, gone)
        macs.setdefault(work.module, []).append((now, work.counts))
    given: dict[str, tuple[Count, ...]] = {}
    for each in network.calls:
        given.setdefault(each.name, tuple(Count(a.labels) for a in each.result if a is not None))
    measured = sum(times.values())
    scale = min(1.0, total / measured) if measured > 0 else 0.0
    terms = [Term(max(total - measured, 0.0), ())]
    for name, seconds in times.items():
        parts = macs.get(name) or [(1.0, given.get(name, ()))]
        whole = sum(now for now, _ in parts)
        for now, counts in parts:
            part = seconds * scale * (now / whole if whole else 1.0 / len(parts))
            left = _share(network, counts, gone)
            terms.append(Term(part / left, counts) if left else Term(part, ()))
    return terms


def _share(network: FollowedNetwork, counts: tuple[Count, ...], gone: Bools) -> float:
    """How much is left of a product of counts when some classes are gone."""
    share = 1.0
    for count in counts:
        stays = ~gone[network.labels.roots(count.labels)]
        share *= float(stays.mean())
        if count.groups > 1:
            share /= max(float(stays.reshape(count.groups, -1).any(axis=1).mean()), 1.0 / count.groups)
    return share
