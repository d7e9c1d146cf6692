"""Draws from the truncated log-normal posterior, the same on every machine."""

from __future__ import annotations

import math
import operator
from dataclasses import replace

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
    seed: int | None = None,
    rng: np.random.Generator | None = None,
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
    seed : int, optional
        A 64-bit integer; the same one gives the same draws. There is no default: draws that nobody can
        repeat are asked for by ``rng=numpy.random.default_rng()``.
    rng : numpy.random.Generator, optional
        In place of a seed: it gives one, and the next call another.
    size : int or tuple of int, optional
        Shape of the result, which the parameters broadcast to. Default: their broadcast shape.
    log_a, log_b : array_like, optional
        Bounds of the support in log units; they broadcast too. Default: -20 and 0, as in the paper: theta
        from 2e-9, as good as switched off, to 1, unchanged.

    Returns
    -------
    array
        theta in natural units. Of the arguments' library; float32 if every array is, else float64.

    Raises
    ------
    ValueError
        sigma <= 0, an infinite parameter, log_a >= log_b, or the parameters do not broadcast to size.
    TypeError
        An argument is not a number or a float32 or float64 array, or requires grad; neither or both of seed
        and rng are given.

    Examples
    --------
    >>> import bmrs_core
    >>> [round(theta, 6) for theta in bmrs_core.sample(-3.0, 0.5, seed=1, size=3).tolist()]
    [0.091993, 0.0931, 0.055481]
    """
    key = _key(seed, rng)
    arguments = collect({"mu": mu, "sigma": sigma, "log_a": log_a, "log_b": log_b})
    require_posterior(arguments)
    broadcast = np.broadcast_shapes(*(value.shape for value in arguments.values.values()))
    shape = broadcast if size is None else _shape(size)
    if not _broadcasts_to(broadcast, shape):
        raise ValueError(f"size must be a shape the parameters broadcast to, got {shape} for {broadcast}")
    if shape != broadcast:
        arguments = replace(arguments, index=None)  # more draws than a Series has entries
    draws: Array = philox.uniform(key, 0, math.prod(shape)).reshape(shape)
    if not arguments.on_host:
        place = {} if arguments.device is None else {"device": arguments.device}
        draws = arguments.namespace.asarray(draws, dtype=arguments.namespace.float64, **place)
    order = ("u", "mu", "sigma", "log_a", "log_b")
    return evaluate("quantile", arguments.including({"u": draws}).only(order))


def _key(seed: int | None, rng: np.random.Generator | None) -> int:
    """Return the seed, or one of the generator's."""
    if rng is None and seed is not None:
        if isinstance(seed, bool) or not hasattr(seed, "__index__"):
            raise TypeError(f"seed must be an integer, got {seed!r}: the draws are a function of it alone")
        return operator.index(seed)
    if seed is not None or rng is None:
        came = "neither" if seed is None else "both"
        raise TypeError(f"sample takes either seed=, an integer, or rng=, a NumPy Generator, got {came}")
    if not isinstance(rng, np.random.Generator):
        raise TypeError(
            f"rng must be a numpy.random.Generator, as numpy.random.default_rng() gives, got {rng!r}: a "
            "number is given as seed="
        )
    return int(rng.integers(2**64, dtype=np.uint64))


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
