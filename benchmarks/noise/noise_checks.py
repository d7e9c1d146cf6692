"""No time without a right result: checks of forward and gradients that a rival must pass to be reported.

For the random numbers u that a rival used, y, dx, dμ and dlog σ are computed from bmrs_core, in float64. A
rival that takes a seed must use u = Philox of that seed. One that draws for itself is judged by its noise:
θ = y/x says which u it drew, and u must be uniform. Of large inputs a few samples are looked at, the first
and the last among them: dy is 0 for all others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.noise.problem import LOG_A, LOG_B, Inputs, Problem
from benchmarks.noise.variant import Variant, WrongResultError
from bmrs_core import log_quantile_grad, logcdf, philox

Array = NDArray[np.float64]
MOST_DRAWS = 200_000
"""About how many random numbers to look at; a derivative of the quantile takes a microsecond."""
FEWEST_SAMPLES = 2

# P(√n·D > 2.2) = 1e-4 for n uniform numbers, D the distance of Kolmogorov and Smirnov.
KOLMOGOROV = 2.2


@dataclass(frozen=True)
class Tolerance:
    """Relative: of each element for y and dx, of the largest entry for dμ and dlog σ.

    A sum over N elements of either sign is √N times one rounding error off. Blunders are meant to be caught
    here; the tests hold the package to more.
    """

    element: float
    sum: float


# μ and log σ, and so their gradients, are float32 whatever x is.
SAME_SEED = {
    "float32": Tolerance(1e-4, 2e-3),
    "float64": Tolerance(1e-8, 1e-6),
    "bfloat16": Tolerance(2e-2, 5e-2),
    "float16": Tolerance(4e-3, 1e-2),
}
# A float32 formula whatever x is; y/x, and the u read off from it, is rounded as x is.
OWN_STREAM = {
    "float32": Tolerance(1e-3, 2e-2),
    "float64": Tolerance(1e-3, 2e-2),
    "bfloat16": Tolerance(2e-2, 1e-1),
    "float16": Tolerance(4e-3, 5e-2),
}
ROUNDING_OF_U = {"float32": 1e-4, "float64": 1e-4, "bfloat16": 2e-2, "float16": 3e-3}


def check_noise(
    bind: Callable[[Inputs], Variant], inputs: Inputs, problem: Problem, seed: int | None
) -> None:
    """Raise WrongResultError unless a rival multiplies by the right noise and has the right gradients.

    Parameters
    ----------
    bind : callable
        Makes the variant for given inputs.
    inputs : Inputs
        What to check it on.
    problem : Problem
        Where the structures lie, and what the noise is shared over.
    seed : int or None
        The seed that the variant uses; None if it draws its own numbers.
    """
    chosen = _samples(problem)
    dy = torch.zeros_like(inputs.dy)
    dy[chosen] = inputs.dy[chosen]
    variant = bind(replace(inputs, dy=dy))
    y = variant.forward()
    dx, d_mu, d_log_sigma = variant.backward(y)
    _finite("y", y)
    x_part, dy_part, y_part, dx_part = (_float64(one)[chosen] for one in (inputs.x, dy, y, dx))
    along = tuple(-1 if i == problem.axis else 1 for i in range(len(problem.shape)))
    mu, sigma = _float64(inputs.mu).reshape(along), np.exp(_float64(inputs.log_sigma)).reshape(along)
    found = y_part / x_part
    u = _drawn(found, mu, sigma, problem) if seed is None else _of_seed(seed, problem)[_rows(problem, chosen)]
    tolerance = (OWN_STREAM if seed is None else SAME_SEED)[problem.dtype]
    log_theta, dx_dmu, dx_dsigma = log_quantile_grad(u, mu, sigma, log_a=LOG_A, log_b=LOG_B)
    theta = np.exp(log_theta)
    _close("forward", y_part, x_part * theta, tolerance.element)
    _close("dx", dx_part, dy_part * theta, tolerance.element)
    others = tuple(i for i in range(x_part.ndim) if i != problem.axis)
    for name, gradient, derivative in (("dμ", d_mu, dx_dmu), ("dlog σ", d_log_sigma, sigma * dx_dsigma)):
        expected = np.sum(dy_part * x_part * (theta * derivative), axis=others)
        _close(name, _float64(gradient), expected, tolerance.sum, of_largest=True)


def check_dropout(variant: Variant, inputs: Inputs) -> None:
    """Raise WrongResultError unless each element is dropped or doubled, about half of them each."""
    y = variant.forward()
    (dx,) = variant.backward(y)
    kept = y != 0
    if not (torch.equal(y, 2 * inputs.x * kept) and torch.equal(dx, 2 * inputs.dy * kept)):
        raise WrongResultError("dropout neither drops nor doubles")
    share = float(kept.double().mean())
    if abs(share - 0.5) > 5 * 0.5 / kept.numel() ** 0.5:  # five standard deviations
        raise WrongResultError(f"dropout kept {share:.3f} of the elements, not half")


def _samples(problem: Problem) -> list[int]:
    """Which samples to look at: evenly spread, the first and the last among them."""
    batch = problem.shape[0]
    per_sample = int(np.prod(problem.noise_shape[1:]))
    number = min(batch, max(FEWEST_SAMPLES, MOST_DRAWS // per_sample))
    return [int(i) for i in np.unique(np.linspace(0, batch - 1, number).round())]


def _rows(problem: Problem, chosen: list[int]) -> list[int]:
    """Their places on axis 0 of θ, which a whole batch may share."""
    return [0] if problem.noise_shape[0] < problem.shape[0] else chosen


def _of_seed(seed: int, problem: Problem) -> Array:
    """Random numbers of a seed, counted row by row through θ."""
    return philox.uniform(seed, 0, int(np.prod(problem.noise_shape))).reshape(problem.noise_shape)


def _drawn(theta: Array, mu: Array, sigma: Array, problem: Problem) -> Array:
    """Random numbers that a rival's noise says it drew; they must be uniform."""
    sizes = zip(problem.noise_shape, problem.shape, strict=True)
    once = theta[tuple(slice(0, 1) if drawn < whole else slice(None) for drawn, whole in sizes)]
    inside = np.clip(once, np.exp(LOG_A), np.exp(LOG_B))
    u: Array = np.exp(logcdf(inside, mu, sigma, log_a=LOG_A, log_b=LOG_B))
    ranked = np.sort(u, axis=None)
    steps = np.arange(ranked.size + 1) / ranked.size
    distance = max(float(np.max(steps[1:] - ranked)), float(np.max(ranked - steps[:-1])))
    if not distance <= KOLMOGOROV / ranked.size**0.5 + ROUNDING_OF_U[problem.dtype]:
        raise WrongResultError(f"the noise has another distribution: Kolmogorov's distance is {distance:.2g}")
    return u


def _finite(what: str, values: Tensor) -> None:
    if not bool(values.isfinite().all()):
        raise WrongResultError(f"{what} is not finite everywhere")


def _close(what: str, found: Array, expected: Array, tolerance: float, *, of_largest: bool = False) -> None:
    if found.shape != expected.shape:
        raise WrongResultError(f"{what} has shape {found.shape}, expected {expected.shape}")
    scale = np.abs(expected).max() if of_largest else np.abs(expected)
    # What underflows in float32 is not missed.
    worst = float(np.max(np.abs(found - expected) / (scale + np.finfo(np.float32).tiny)))
    if not worst <= tolerance:
        raise WrongResultError(f"{what} is off by {worst:.1e}, more than {tolerance:.0e}")


def _float64(values: Tensor) -> Array:
    result: Array = values.detach().double().cpu().numpy()
    return result
