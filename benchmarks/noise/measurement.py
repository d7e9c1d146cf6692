"""Measure one problem: check the rivals, let them take turns, set their times beside a copy's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.measuring import allocator
from benchmarks.measuring.clocks import Clock, Laps, clock_of, enough_passes, nothing
from benchmarks.measuring.memory import CPU_RESOLUTION, peak_bytes
from benchmarks.measuring.turns import Spread, take_turns
from benchmarks.noise import kl_rivals, noise_rivals
from benchmarks.noise.problem import Problem
from benchmarks.noise.variant import (
    COPY,
    OURS,
    UnavailableError,
    Variant,
    WrongResultError,
    clone_variant,
    copy_variant,
)

HALVES: dict[str, Callable[[Laps], float]] = {
    "forward": lambda laps: laps.forward,
    "backward": lambda laps: laps.backward,
    "both": lambda laps: laps.both,
}
LONGEST_PASS = 2.0
"""Seconds; whoever takes longer is left out."""


@dataclass(frozen=True)
class NoiseSettings:
    """How long to measure, and against what."""

    rounds: int | None = None
    seconds: float = 5.0
    with_compiled: bool = True


@dataclass(frozen=True)
class Timing:
    """Times of one variant in one direction, in one state of the allocator.

    Attributes
    ----------
    seconds : Spread
        Seconds per pass.
    times_copy, times_ours : float or None
        Time over that of the copy, and of this package, in the same round: the median over the rounds.
    page_faults : float
        Per pass.
    rounds : tuple of float
        The seconds of each round.
    """

    seconds: Spread
    times_copy: float
    times_ours: float | None
    page_faults: float
    rounds: tuple[float, ...]


@dataclass(frozen=True)
class Row:
    """One variant in one direction; memory is what it held beyond its output, as a multiple of x."""

    direction: str
    variant: str
    gigabytes_per_second: float
    kept: Timing
    fresh: Timing | None
    memory: float | None


@dataclass(frozen=True)
class Result:
    """All that was measured of a problem, and which rivals were not, with the reasons."""

    problem: Problem
    rows: tuple[Row, ...]
    left_out: dict[str, str]


def measure(problem: Problem, settings: NoiseSettings) -> Result:
    """Measure every rival that can run and is right."""
    moved = problem.elements_read_and_written
    copies = (moved, problem.torch_dtype, problem.device)
    clock = clock_of(problem.device)
    # Memory that goes back to the system is the CPU's affair: on a GPU torch keeps it.
    both_states = problem.device.type == "cpu" and allocator.obeys()
    with allocator.freed_memory_kept():
        ready, left_out = check(problem, with_compiled=settings.with_compiled)
        memory = {name: _memory(variant, problem) for name, variant in ready.items()}
        kept = _taken(clock, {COPY: copy_variant(*copies), **ready}, nothing, settings)
        fresh = (
            _taken(clock, {COPY: clone_variant(*copies), **ready}, allocator.give_back, settings)
            if both_states
            else None
        )
    return Result(problem, tuple(_rows(problem, kept, fresh, memory)), left_out)


def check(problem: Problem, *, with_compiled: bool) -> tuple[dict[str, Variant], dict[str, str]]:
    """Make the rivals; part those that can run and are right from those that must not be reported."""
    family = kl_rivals if problem.op == "kl" else noise_rivals
    ready: dict[str, Variant] = {}
    left_out: dict[str, str] = {}
    for name, make in family.rivals(problem, with_compiled=with_compiled):
        made = _make(make)
        if isinstance(made, Variant):
            ready[name] = made
        else:
            left_out[name] = made
    return ready, left_out


def _make(make: Callable[[], Variant]) -> Variant | str:
    """Make and check one rival, or tell why it must not be reported."""
    try:
        return _quick_enough(make())
    except UnavailableError as reason:
        return f"left out: {reason}"
    except WrongResultError as reason:
        return f"not reported, its result is wrong: {reason}"
    except (RuntimeError, NotImplementedError) as error:  # torch.compile has many of its own
        first_line = str(error).strip().partition("\n")[0]
        return f"failed: {type(error).__name__}: {first_line[:160]}"


def _quick_enough(variant: Variant) -> Variant:
    """Let no rival but our own take up all the time."""
    start = time.perf_counter()
    variant.backward(variant.forward())
    taken = time.perf_counter() - start
    if variant.name != OURS and taken > LONGEST_PASS:
        raise UnavailableError(f"one pass takes {taken:.1f} s, more than {LONGEST_PASS:g} s")
    return variant


def _taken(
    clock: Clock, variants: Mapping[str, Variant], before: Callable[[], None], settings: NoiseSettings
) -> dict[str, list[Laps]]:
    def batch(variant: Variant) -> Callable[[], Laps]:
        halves = (variant.forward, variant.backward)
        return partial(clock.batch, *halves, enough_passes(clock, *halves, before), before)

    batches = {name: batch(variant) for name, variant in variants.items()}
    return take_turns(batches, rounds=settings.rounds, seconds=settings.seconds / 2)


def _memory(variant: Variant, problem: Problem) -> dict[str, float] | None:
    """Bytes at the highest moment of either half beyond its output, relative to x; None if not measurable."""
    numel_bytes = problem.elements_read_and_written[0] * problem.torch_dtype.itemsize / 2
    if problem.device.type == "cpu" and numel_bytes < CPU_RESOLUTION:
        return None
    result, forward = peak_bytes(variant.forward, problem.device)
    _, backward = peak_bytes(partial(variant.backward, result), problem.device)
    if forward is None or backward is None:
        return None
    beyond = [peak - out for peak, out in zip((forward, backward), problem.output_bytes, strict=True)]
    relative = [max(0.0, extra / numel_bytes) for extra in beyond]
    return {"forward": relative[0], "backward": relative[1], "both": max(relative)}


def _rows(
    problem: Problem,
    kept: dict[str, list[Laps]],
    fresh: dict[str, list[Laps]] | None,
    memory: Mapping[str, dict[str, float] | None],
) -> Iterator[Row]:
    forward, backward = (count * problem.torch_dtype.itemsize for count in problem.elements_read_and_written)
    moved = {"forward": forward, "backward": backward, "both": forward + backward}
    for direction in HALVES:
        for name in kept:
            timing = _timing(kept, name, direction)
            held = memory.get(name)
            yield Row(
                direction,
                name,
                1e-9 * moved[direction] / timing.seconds.median,
                timing,
                None if fresh is None else _timing(fresh, name, direction),
                None if held is None else held[direction],
            )


def _timing(taken: dict[str, list[Laps]], name: str, direction: str) -> Timing:
    seconds = {rival: np.array([HALVES[direction](laps) for laps in turns]) for rival, turns in taken.items()}
    own = seconds[name]
    faults = [
        {
            "forward": laps.forward_faults,
            "backward": laps.backward_faults,
            "both": laps.forward_faults + laps.backward_faults,
        }[direction]
        for laps in taken[name]
    ]
    return Timing(
        Spread.of(own.tolist()),
        float(np.median(own / seconds[COPY])),
        float(np.median(own / seconds[OURS])) if OURS in seconds else None,
        float(np.median(faults)),
        tuple(own.tolist()),
    )
