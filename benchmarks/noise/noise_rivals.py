"""The rivals in multiplying by noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.noise import naive
from benchmarks.noise.noise_checks import check_dropout, check_noise
from benchmarks.noise.problem import LOG_A, LOG_B, MILD, TRAINING, Inputs, Problem, draw_inputs
from benchmarks.noise.variant import (
    COMPILED,
    DROPOUT,
    HOISTED,
    NAIVE,
    OURS,
    REFERENCE,
    UnavailableError,
    Variant,
    compiled,
    differentiate,
)
from bmrs_kernels.contract import NoiseLayout
from bmrs_torch import multiplicative_noise
from bmrs_torch.operation.multiplicative_noise import draw_seed
from bmrs_torch.operation.reference import ReferenceNoise

Function = Callable[[Inputs], Tensor]
MOST_REFERENCE_DRAWS = 1_000_000


def rivals(problem: Problem, *, with_compiled: bool) -> Iterator[tuple[str, Callable[[], Variant]]]:
    """Names, and what makes and checks each rival, raising where it must not be reported."""
    inputs = draw_inputs(problem, TRAINING)
    yield OURS, partial(_seeded, problem, inputs, OURS, partial(ours, problem))
    yield REFERENCE, partial(_reference, problem, inputs)
    yield NAIVE, partial(_own_stream, problem, inputs, NAIVE, naive.noise)
    hoisted = partial(naive.noise, hoisted=True)
    yield HOISTED, partial(_own_stream, problem, inputs, HOISTED, hoisted)
    if with_compiled:
        yield COMPILED, partial(_compiled, problem, inputs)
    yield DROPOUT, partial(_dropout, inputs)


def ours(problem: Problem, inputs: Inputs, seed: Tensor | None = None) -> Tensor:
    """Call the package as a user does."""
    assert problem.share is not None
    return multiplicative_noise(
        inputs.x, inputs.mu, inputs.log_sigma, axis=problem.axis, share=problem.share, seed=seed
    )


def reference(problem: Problem, inputs: Inputs, seed: Tensor | None = None) -> Tensor:
    """Call the plainly written implementation that the package's tests hold all others to."""
    seed = draw_seed() if seed is None else seed
    layout = NoiseLayout(problem.axis, str(problem.share), LOG_A, LOG_B)
    mask = torch.ones_like(inputs.mu, requires_grad=False)
    result: Tensor = ReferenceNoise.apply(  # type: ignore[no-untyped-call]
        inputs.x, inputs.mu, inputs.log_sigma, mask, seed, layout
    )
    return result


def _bind(name: str, function: Function, inputs: Inputs) -> Variant:
    return differentiate(name, lambda: function(inputs), inputs.leaves, inputs.dy)


def _seeded(problem: Problem, inputs: Inputs, name: str, function: Callable[..., Tensor]) -> Variant:
    """Bind a rival that takes a seed, once it has shown what it makes of one."""
    from_seed = partial(function, seed=torch.tensor([problem.seed]))
    check_noise(partial(_bind, name, from_seed), inputs, problem, problem.seed)
    return _bind(name, function, inputs)


def _hoisted_noise(*arguments: Any) -> Tensor:
    return naive.noise(*arguments, hoisted=True)


def _reference(problem: Problem, inputs: Inputs) -> Variant:
    draws = math.prod(problem.noise_shape)
    if draws > MOST_REFERENCE_DRAWS:
        raise UnavailableError(
            f"a pass draws {draws:,} times, more than {MOST_REFERENCE_DRAWS:,}, at a microsecond each"
        )
    return _seeded(problem, inputs, REFERENCE, partial(reference, problem))


def _compiled(problem: Problem, inputs: Inputs) -> Variant:
    return _own_stream(problem, inputs, COMPILED, compiled(_hoisted_noise, problem.device))


def _own_stream(problem: Problem, inputs: Inputs, name: str, formula: Callable[..., Tensor]) -> Variant:
    """Bind the naive formula, once it was right for mild parameters."""

    def function(given: Inputs) -> Tensor:
        return formula(*given.leaves, problem.noise_shape, problem.axis)

    torch.manual_seed(problem.seed)
    check_noise(partial(_bind, name, function), draw_inputs(problem, MILD), problem, None)
    return _bind(name, function, inputs)


def _dropout(inputs: Inputs) -> Variant:
    def forward() -> Tensor:
        return functional.dropout(inputs.x, p=0.5, training=True)

    variant = differentiate(DROPOUT, forward, (inputs.x,), inputs.dy)
    check_dropout(variant, inputs)
    return variant
