"""Times of the forward and the backward half of a pass, on the CPU and on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch

from benchmarks.measuring.allocator import page_faults

Forward = Callable[[], Any]
Backward = Callable[[Any], Any]
LONG_ENOUGH = 0.01
"""Seconds that a batch of passes should take: 10⁵ times the resolution of the clock."""
MOST_PASSES = 500


class Laps(NamedTuple):
    """Mean seconds per pass of both halves, and mean page faults of both."""

    forward: float
    backward: float
    forward_faults: float = 0.0
    backward_faults: float = 0.0

    @property
    def both(self) -> float:
        """Seconds of the whole pass."""
        return self.forward + self.backward


class Clock(Protocol):
    """Measures batches of passes."""

    def batch(self, forward: Forward, backward: Backward, passes: int, before: Callable[[], None]) -> Laps:
        """Run `passes` passes; call `before`, untimed, before either half."""


def nothing() -> None:
    """Prepare nothing."""


class CpuClock:
    """The processor's clock. What a pass returned is freed after the clock has stopped."""

    def batch(self, forward: Forward, backward: Backward, passes: int, before: Callable[[], None]) -> Laps:
        """Run the passes one after the other; each half is timed by itself."""
        sums = [0.0, 0.0, 0.0, 0.0]
        for _ in range(passes):
            result = self._lap(sums, 0, forward, before)
            self._lap(sums, 1, partial(backward, result), before)
            del result
        return Laps(*(total / passes for total in sums))

    def _lap(self, sums: list[float], half: int, call: Callable[[], Any], before: Callable[[], None]) -> Any:
        before()
        faults = page_faults()
        start = time.perf_counter()
        result = call()
        sums[half] += time.perf_counter() - start
        sums[2 + half] += page_faults() - faults
        return result


class CudaClock:
    """The GPU's events. Before each half the second-level cache is overwritten, which also hides the launch.

    Parameters
    ----------
    device : torch.device
        A CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        size = torch.cuda.get_device_properties(device).L2_cache_size
        self._overwritten = torch.empty(max(4 * size, 64 * 2**20), dtype=torch.int8, device=device)
        self._device = device

    def batch(self, forward: Forward, backward: Backward, passes: int, before: Callable[[], None]) -> Laps:
        """Queue all passes, wait once, read the events."""
        events = []
        for _ in range(passes):
            before()
            start, middle, result = self._lap(forward)
            again, end, _ = self._lap(partial(backward, result))
            events.append((start, middle, again, end))
            del result
        torch.cuda.synchronize(self._device)
        milliseconds = [(a.elapsed_time(b), c.elapsed_time(d)) for a, b, c, d in events]
        return Laps(*(1e-3 * sum(half) / passes for half in zip(*milliseconds, strict=True)))

    def _lap(self, call: Callable[[], Any]) -> tuple[torch.cuda.Event, torch.cuda.Event, Any]:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._overwritten.zero_()
        start.record()
        result = call()
        end.record()
        return start, end, result


def clock_of(device: torch.device) -> Clock:
    """The clock for work on a device."""
    return CudaClock(device) if device.type == "cuda" else CpuClock()


def enough_passes(clock: Clock, forward: Forward, backward: Backward, before: Callable[[], None]) -> int:
    """Number of passes that take long enough together; warms up on the way."""
    once = clock.batch(forward, backward, 1, before).both
    if once < LONG_ENOUGH:  # else the first pass, cold or not, has told that one is enough
        clock.batch(forward, backward, 2, before)
        once = clock.batch(forward, backward, 1, before).both
    return min(MOST_PASSES, max(1, round(LONG_ENOUGH / max(once, 1e-9))))
