"""Draws from the truncated log-normal posterior, the same on every machine."""

from __future__ import annotations

import math

import numpy as np

from bmrs_core import philox
from bmrs_core.arrays import Array, ArrayLike
from bmrs_core.truncated_lognormal import quantile

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
    shapes = [np.shape(value) for value in (mu, sigma, log_a, log_b)]
    broadcast = np.broadcast_shapes(*shapes)
    shape = broadcast if size is None else (size,) if isinstance(size, int) else tuple(size)
    if not _broadcasts_to(broadcast, shape):
        raise ValueError(f"size must be a shape the parameters broadcast to, got {shape} for {broadcast}")
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise TypeError(f"seed must be an integer, got {seed!r}: the draws are a function of it alone")
    draws = philox.uniform(seed, 0, math.prod(shape)).reshape(shape)
    return quantile(_like(draws, mu, sigma, log_a, log_b), mu, sigma, log_a=log_a, log_b=log_b)


def _broadcasts_to(source: tuple[int, ...], target: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(source, target) == target
    except ValueError:
        return False


def _like(draws: Array, *parameters: ArrayLike) -> Array:
    """Return the draws as an array of the parameters' library, device and dtype."""
    arrays = [value for value in parameters if hasattr(value, "dtype")]
    if not arrays:
        return draws
    from array_api_compat import array_namespace, device, is_jax_array

    xp = array_namespace(*arrays)
    float32 = all(str(value.dtype).endswith("float32") for value in arrays)
    keywords = {} if is_jax_array(arrays[0]) else {"device": device(arrays[0])}
    return xp.asarray(draws, dtype=xp.float32 if float32 else xp.float64, **keywords)
