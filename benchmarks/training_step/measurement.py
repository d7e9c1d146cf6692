"""Time the training steps of one network in turns, after each variant has shown that it trains the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.measuring.clocks import Clock, Laps, clock_of, enough_passes, nothing
from benchmarks.measuring.turns import Spread, take_turns
from benchmarks.noise.variant import WrongResultError
from benchmarks.training_step.networks import Network
from benchmarks.training_step.steps import GRAPH, TRAINING_SET, WITHOUT, Adam, GraphedStep, Step, make_step
from bmrs_core import kl_divergence

# log σ while a step is checked: θ lies so little below 1 that fifty layers of it change next to nothing. Half
# a per cent below, where it starts, they turn the gradient of a deep network with random weights around.
STILL = -14.0
SAME_LOSS, SAME_DIRECTION = 0.05, 0.95
# The naive KL is a float32 formula.
SAME_KL = 1e-3
CONSECUTIVE = 20
"""Steps in a row, at least: training is one network's steps, not turns of several."""


@dataclass(frozen=True)
class StepTiming:
    """Times of one variant: seconds of each round, and the median of the rounds' ratios to no noise."""

    variant: str
    seconds: Spread
    forward: Spread
    ratio: float
    rounds: tuple[float, ...]


@dataclass(frozen=True)
class NetworkResult:
    """One network: the paper's ratio of its training step with noise to that without, and ours."""

    key: str
    network: Network
    timings: tuple[StepTiming, ...]
    left_out: dict[str, str]


@dataclass(frozen=True)
class StepSettings:
    """How to measure: the variants' optimizer, rounds or seconds, seed, device."""

    adam: Adam
    rounds: int | None
    seconds: float
    seed: int
    device: torch.device


def measure(key: str, network: Network, variants: tuple[str, ...], settings: StepSettings) -> NetworkResult:
    """Check the variants, let them take turns; on a GPU each twice, launched one by one and as a graph."""
    make = partial(make_step, network=network, adam=settings.adam, seed=settings.seed, device=settings.device)
    ready: dict[str, Step | GraphedStep] = {WITHOUT: make(WITHOUT)}
    left_out = {}
    for name in variants:
        reason = wrong(make(name), make(WITHOUT))
        if reason is None:
            ready[name] = make(name)
        else:
            left_out[name] = f"not reported, {reason}"
    if settings.device.type == "cuda":
        capturable = partial(make, adam=replace(settings.adam, capturable=True))
        for name in list(ready):
            captured = _captured(partial(capturable, name))
            if isinstance(captured, str):
                left_out[name + GRAPH] = captured
            else:
                ready[name + GRAPH] = captured
    clock = clock_of(settings.device)
    batches = {name: partial(_batch, clock, step, _passes(clock, step)) for name, step in ready.items()}
    taken = take_turns(batches, rounds=settings.rounds, seconds=settings.seconds)
    timings = tuple(_timing(name, turns, taken[_baseline(name, taken)]) for name, turns in taken.items())
    return NetworkResult(key, network, timings, left_out)


def _captured(make: Callable[[], Step]) -> GraphedStep | str:
    """Capture a step, or tell why it cannot be."""
    try:
        return GraphedStep(make())
    except (RuntimeError, WrongResultError) as error:  # torch says at length what cannot be captured
        return f"not captured: {str(error).strip().splitlines()[0][:160]}"


def _baseline(name: str, taken: Mapping[str, object]) -> str:
    """What a variant is compared with: the step without noise, likewise a graph if that could be captured."""
    graphed = WITHOUT + GRAPH
    return graphed if name.endswith(GRAPH) and graphed in taken else WITHOUT


def wrong(step: Step, plain: Step) -> str | None:
    """Say what is wrong with a step with noise, None if nothing is.

    With θ next to 1 the loss without the KL and the gradients of the weights must nearly be those of the
    network without noise, and the KL must be that of bmrs_core. The step keeps the noise of the check.
    """
    try:
        _check(step, plain)
    except WrongResultError as reason:
        return str(reason)
    return None


def _check(step: Step, plain: Step) -> None:
    noise = _noise_parameters(step.model)
    with torch.no_grad():
        for log_sigma in noise[1::2]:
            log_sigma.fill_(STILL)
    loss, plain_loss = step.forward(), plain.forward()
    mu, sigma = noise[0].detach().double().cpu().numpy(), noise[1].detach().double().exp().cpu().numpy()
    divergence = float(kl_divergence(mu[:1], sigma[:1])[0])
    # All structures start alike, so that the mean over them is the KL of any.
    kl = {True: divergence, False: divergence * sum(p.numel() for p in noise[0::2]) / TRAINING_SET}
    expected = float(plain_loss.detach()) + kl[step.kl_is_mean]
    if (
        not abs(float(loss.detach()) - expected)
        <= SAME_LOSS * float(plain_loss.detach()) + SAME_KL * divergence
    ):
        raise WrongResultError(f"its loss is {float(loss.detach()):.4f}, expected {expected:.4f} or nearly")
    loss.backward()
    plain_loss.backward()
    weights = [p for p in step.model.parameters() if all(p is not other for other in noise)]
    cosine = float(np.dot(_direction(weights), _direction(list(plain.model.parameters()))))
    if not cosine >= SAME_DIRECTION:
        raise WrongResultError(f"its gradient has a cosine of {cosine:.3f} to that without noise")
    if not all(p.grad is not None and bool(p.grad.isfinite().all()) and bool(p.grad.any()) for p in noise):
        raise WrongResultError("a parameter of the noise has no gradient")


def _noise_parameters(model: nn.Module) -> list[nn.Parameter]:
    """μ and log σ of each layer, in turn."""
    return [p for name, p in model.named_parameters() if name.endswith(("mu", "log_sigma"))]


def _direction(parameters: list[nn.Parameter]) -> NDArray[np.float64]:
    gradients = [p.grad.detach().flatten() for p in parameters if p.grad is not None]
    joined: NDArray[np.float64] = torch.cat(gradients).double().cpu().numpy()
    return joined / float(np.linalg.norm(joined))


def _passes(clock: Clock, step: Step | GraphedStep) -> int:
    return max(CONSECUTIVE, enough_passes(clock, step.forward, step.backward, nothing))


def _batch(clock: Clock, step: Step | GraphedStep, passes: int) -> Laps:
    """Train for some steps in a row, the first of them untimed: another network's lies in the caches."""
    clock.batch(step.forward, step.backward, 1, nothing)
    return clock.batch(step.forward, step.backward, passes, nothing)


def _timing(name: str, turns: list[Laps], without: list[Laps]) -> StepTiming:
    own = [laps.both for laps in turns]
    ratios = [laps.both / plain.both for laps, plain in zip(turns, without, strict=True)]
    forward = Spread.of([laps.forward for laps in turns])
    return StepTiming(name, Spread.of(own), forward, float(np.median(ratios)), tuple(own))
