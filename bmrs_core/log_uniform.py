"""The log-uniform prior of the multiplicative noise (paper Eq. 7), on arrays."""

from __future__ import annotations

from bmrs_core.arrays import Array, ArrayLike, collect
from bmrs_core.checks import require_bounds, require_within
from bmrs_core.evaluation import Out, evaluate

__all__ = ["log_uniform_cdf", "log_uniform_pdf", "log_uniform_quantile"]


def log_uniform_pdf(
    theta: ArrayLike, *, log_a: ArrayLike = -20.0, log_b: ArrayLike = 0.0, out: Out = None
) -> Array:
    """Density of the log-uniform prior, 1 / (theta (log_b - log_a)) on its support.

    Parameters
    ----------
    theta : array_like
        Where to evaluate, in natural units; any number.
    log_a, log_b : array_like, optional
        Bounds of the support in log units; they broadcast too. Default: -20 and 0, as in the paper: theta
        from 2e-9, as good as switched off, to 1, unchanged.
    out : ndarray, optional
        Where to write the result; NumPy only.

    Returns
    -------
    array
        The density per unit of theta, 0 outside the support, NaN where theta is.
        Of the arguments' library; float32 if every array is, else float64.

    Raises
    ------
    ValueError
        log_a >= log_b, or shapes do not broadcast.
    TypeError
        An argument is not a number or a float32 or float64 array, or requires grad.

    Examples
    --------
    >>> import bmrs_core
    >>> bmrs_core.log_uniform_pdf([0.01, 2.0])
    array([5., 0.])
    """
    arguments = collect({"theta": theta, "log_a": log_a, "log_b": log_b})
    require_bounds(arguments)
    return evaluate("log_uniform_pdf", arguments, out)


def log_uniform_cdf(
    theta: ArrayLike, *, log_a: ArrayLike = -20.0, log_b: ArrayLike = 0.0, out: Out = None
) -> Array:
    """Distribution function of the log-uniform prior.

    Parameters
    ----------
    theta : array_like
        Where to evaluate, in natural units; any number.
    log_a, log_b : array_like, optional
        Bounds of the support in log units; they broadcast too. Default: -20 and 0, as in the paper: theta
        from 2e-9, as good as switched off, to 1, unchanged.
    out : ndarray, optional
        Where to write the result; NumPy only.

    Returns
    -------
    array
        P(Theta <= theta), 0 below the support and 1 above, NaN where theta is.
        Of the arguments' library; float32 if every array is, else float64.

    Raises
    ------
    ValueError
        log_a >= log_b, or shapes do not broadcast.
    TypeError
        An argument is not a number or a float32 or float64 array, or requires grad.

    Examples
    --------
    >>> import bmrs_core
    >>> print(round(bmrs_core.log_uniform_cdf(0.01), 6))
    0.769741
    """
    arguments = collect({"theta": theta, "log_a": log_a, "log_b": log_b})
    require_bounds(arguments)
    return evaluate("log_uniform_cdf", arguments, out)


def log_uniform_quantile(
    u: ArrayLike, *, log_a: ArrayLike = -20.0, log_b: ArrayLike = 0.0, out: Out = None
) -> Array:
    """Quantile of the log-uniform prior.

    Parameters
    ----------
    u : array_like
        Probabilities in [0, 1].
    log_a, log_b : array_like, optional
        Bounds of the support in log units; they broadcast too. Default: -20 and 0, as in the paper: theta
        from 2e-9, as good as switched off, to 1, unchanged.
    out : ndarray, optional
        Where to write the result; NumPy only.

    Returns
    -------
    array
        theta in natural units with P(Theta <= theta) = u, NaN where u is.
        Of the arguments' library; float32 if every array is, else float64.

    Raises
    ------
    ValueError
        u outside [0, 1], log_a >= log_b, or shapes do not broadcast.
    TypeError
        An argument is not a number or a float32 or float64 array, or requires grad.

    Examples
    --------
    >>> import bmrs_core
    >>> print(round(bmrs_core.log_uniform_quantile(0.5), 9))
    4.54e-05
    """
    arguments = collect({"u": u, "log_a": log_a, "log_b": log_b})
    require_bounds(arguments)
    require_within(arguments, "u", 0.0, 1.0, "between 0 and 1", "it is a probability")
    return evaluate("log_uniform_quantile", arguments, out)
