"""Draws from the truncated log-normal posterior, the same on every machine."""

from __future__ import annotations

import math
import operator

import numpy as np

from bmrs_core import philox
from bmrs_core.arrays import Array, ArrayLike, collect
from bmrs_core.checks import require_posterior
from bmrs_core.evaluation import evaluate

__all__ = ["sample"]


def sample(
    mu: ArrayLike,
    sigma: ArrayLike,
    *,
    seed: int,
    size: int | tuple[int, ...] | None = None,
    log_a: ArrayLike = -20.0,
    log_b: ArrayLike = 0.0,
) -> Array:
    """Draw theta from the truncated log-normal.

    Element i of the result, in C order, is the quantile at the i-th uniform number of the
    Philox4x32-10 stream of the seed: independent of threads, device and library.

    Parameters
    ----------
    mu, sigma : array_like
        Parameters of x = log theta before truncation (sigma > 0, not its logarithm); any shapes that
        broadcast. float32 or float64 arrays of NumPy, torch, JAX or CuPy, or Python numbers.
    seed : int
        A 64-bit integer.
    size : int or tuple of int, optional
        Shape of the result, which the parameters broadcast to. Default: their broadcast shape.
    log_a, log_b : array_like, optional
        Bounds of the support in log units; they broadcast too. Default: -20 and 0, as in the paper.

    Returns
    -------
    array
        theta in natural units. Of the arguments' library; float32 if every array is, else float64.

    Raises
    ------
    ValueError
        sigma <= 0, an infinite parameter, log_a >= log_b, or the parameters do not broadcast to size.
    TypeError
        An argument is not a number or a float32 or float64 array, or requires grad.

    Examples
    --------
    >>> import bmrs_core
    >>> [round(theta, 6) for theta in bmrs_core.sample(-3.0, 0.5, seed=1, size=3).tolist()]
    [0.091993, 0.0931, 0.055481]
    """
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise TypeError(f"seed must be an integer, got {seed!r}: the draws are a function of it alone")
    arguments = collect({"mu": mu, "sigma": sigma, "log_a": log_a, "log_b": log_b})
    require_posterior(arguments)
    broadcast = np.broadcast_shapes(*(value.shape for value in arguments.values.values()))
    shape = broadcast if size is None else _shape(size)
    if not _broadcasts_to(broadcast, shape):
        raise ValueError(f"size must be a shape the parameters broadcast to, got {shape} for {broadcast}")
    draws: Array = philox.uniform(seed, 0, math.prod(shape)).reshape(shape)
    if not arguments.on_host:
        place = {} if arguments.device is None else {"device": arguments.device}
        draws = arguments.namespace.asarray(draws, dtype=arguments.namespace.float64, **place)
    order = ("u", "mu", "sigma", "log_a", "log_b")
    return evaluate("quantile", arguments.including({"u": draws}).only(order))


def _shape(size: int | tuple[int, ...]) -> tuple[int, ...]:
    sizes = size if isinstance(size, tuple) else (size,)
    try:
        return tuple(operator.index(one) for one in sizes)
    except TypeError:
        raise TypeError(f"size must be an integer or a tuple of integers, got {size!r}") from None


def _broadcasts_to(source: tuple[int, ...], target: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(source, target) == target
    except ValueError:
        return False
