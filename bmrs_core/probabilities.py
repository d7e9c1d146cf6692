"""Density and probabilities of theta under the truncated log-normal posterior (paper Eq. 7), on arrays.

Their logarithms are in :mod:`bmrs_core.distribution`.
"""

from __future__ import annotations

from bmrs_core.arrays import Array, ArrayLike, collect
from bmrs_core.checks import require_posterior
from bmrs_core.evaluation import Out, evaluate

__all__ = ["cdf", "logsf", "pdf", "sf"]


def pdf(
    theta: ArrayLike,
    mu: ArrayLike,
    sigma: ArrayLike,
    *,
    log_a: ArrayLike = -20.0,
    log_b: ArrayLike = 0.0,
    out: Out = None,
) -> Array:
    """Density of theta.

    Parameters
    ----------
    theta : array_like
        Where to evaluate, in natural (not log) units; any number, also outside the support.
    mu, sigma : array_like
        Parameters of x = log theta before truncation (sigma > 0, not its logarithm); any shapes that
        broadcast. float32 or float64 arrays of NumPy, torch, JAX or CuPy, or Python numbers.
    log_a, log_b : array_like, optional
        Bounds of the support in log units; they broadcast too. Default: -20 and 0, as in the paper: theta
        from 2e-9, as good as switched off, to 1, unchanged.
    out : ndarray, optional
        Where to write the result; NumPy only.

    Returns
    -------
    array
        q(theta) per unit of theta, in natural units; 0 outside the support. NaN where an argument is.
        Of the arguments' library; float32 if every array is, else float64.

    Raises
    ------
    ValueError
        sigma <= 0, an infinite parameter, log_a >= log_b, or shapes do not broadcast.
    TypeError
        An argument is not a number or a float32 or float64 array, or requires grad.

    Notes
    -----
    q_phi of paper Eq. 7. Within a few roundings times its condition number: it is not exp of `logpdf`, whose
    rounding would grow with its size. theta itself is rounded, which counts where q is steep.

    Examples
    --------
    >>> import bmrs_core
    >>> print(round(bmrs_core.pdf(0.05, -3.0, 2.0), 6))
    4.275016
    """
    arguments = collect({"theta": theta, "mu": mu, "sigma": sigma, "log_a": log_a, "log_b": log_b})
    require_posterior(arguments)
    return evaluate("pdf", arguments, out)


def cdf(
    theta: ArrayLike,
    mu: ArrayLike,
    sigma: ArrayLike,
    *,
    log_a: ArrayLike = -20.0,
    log_b: ArrayLike = 0.0,
    out: Out = None,
) -> Array:
    """Distribution function of theta, P(Theta <= theta).

    Parameters
    ----------
    theta : array_like
        Where to evaluate, in natural (not log) units; any number, also outside the support.
    mu, sigma : array_like
        Parameters of x = log theta before truncation (sigma > 0, not its logarithm); any shapes that
        broadcast. float32 or float64 arrays of NumPy, torch, JAX or CuPy, or Python numbers.
    log_a, log_b : array_like, optional
        Bounds of the support in log units; they broadcast too. Default: -20 and 0, as in the paper: theta
        from 2e-9, as good as switched off, to 1, unchanged.
    out : ndarray, optional
        Where to write the result; NumPy only.

    Returns
    -------
    array
        The probability, 0 below the support and 1 above. NaN where an argument is.
        Of the arguments' library; float32 if every array is, else float64.

    Raises
    ------
    ValueError
        sigma <= 0, an infinite parameter, log_a >= log_b, or shapes do not broadcast.
    TypeError
        An argument is not a number or a float32 or float64 array, or requires grad.

    Notes
    -----
    exp of `logcdf`. Near 1 use `sf`, which keeps the digits of what is missing.

    Examples
    --------
    >>> import bmrs_core
    >>> print(round(bmrs_core.cdf(0.05, -3.0, 2.0), 6))
    0.536707
    """
    arguments = collect({"theta": theta, "mu": mu, "sigma": sigma, "log_a": log_a, "log_b": log_b})
    require_posterior(arguments)
    return evaluate("cdf", arguments, out)


def sf(
    theta: ArrayLike,
    mu: ArrayLike,
    sigma: ArrayLike,
    *,
    log_a: ArrayLike = -20.0,
    log_b: ArrayLike = 0.0,
    out: Out = None,
) -> Array:
    """Survival function of theta, P(Theta > theta).

    Parameters
    ----------
    theta : array_like
        Where to evaluate, in natural (not log) units; any number, also outside the support.
    mu, sigma : array_like
        Parameters of x = log theta before truncation (sigma > 0, not its logarithm); any shapes that
        broadcast. float32 or float64 arrays of NumPy, torch, JAX or CuPy, or Python numbers.
    log_a, log_b : array_like, optional
        Bounds of the support in log units; they broadcast too. Default: -20 and 0, as in the paper: theta
        from 2e-9, as good as switched off, to 1, unchanged.
    out : ndarray, optional
        Where to write the result; NumPy only.

    Returns
    -------
    array
        The probability, 1 below the support and 0 above. NaN where an argument is.
        Of the arguments' library; float32 if every array is, else float64.

    Raises
    ------
    ValueError
        sigma <= 0, an infinite parameter, log_a >= log_b, or shapes do not broadcast.
    TypeError
        An argument is not a number or a float32 or float64 array, or requires grad.

    Notes
    -----
    exp of `logsf`: small probabilities keep all digits, where 1 - `cdf` would have none.

    Examples
    --------
    >>> import bmrs_core
    >>> print(round(bmrs_core.sf(0.05, -3.0, 2.0), 6))
    0.463293
    """
    arguments = collect({"theta": theta, "mu": mu, "sigma": sigma, "log_a": log_a, "log_b": log_b})
    require_posterior(arguments)
    return evaluate("sf", arguments, out)


def logsf(
    theta: ArrayLike,
    mu: ArrayLike,
    sigma: ArrayLike,
    *,
    log_a: ArrayLike = -20.0,
    log_b: ArrayLike = 0.0,
    out: Out = None,
) -> Array:
    """Logarithm of the survival function of theta, log P(Theta > theta).

    Parameters
    ----------
    theta : array_like
        Where to evaluate, in natural (not log) units; any number, also outside the support.
    mu, sigma : array_like
        Parameters of x = log theta before truncation (sigma > 0, not its logarithm); any shapes that
        broadcast. float32 or float64 arrays of NumPy, torch, JAX or CuPy, or Python numbers.
    log_a, log_b : array_like, optional
        Bounds of the support in log units; they broadcast too. Default: -20 and 0, as in the paper: theta
        from 2e-9, as good as switched off, to 1, unchanged.
    out : ndarray, optional
        Where to write the result; NumPy only.

    Returns
    -------
    array
        The natural logarithm, 0 below the support and -inf above. NaN where an argument is.
        Of the arguments' library; float32 if every array is, else float64.

    Raises
    ------
    ValueError
        sigma <= 0, an infinite parameter, log_a >= log_b, or shapes do not broadcast.
    TypeError
        An argument is not a number or a float32 or float64 array, or requires grad.

    Notes
    -----
    `log_mass` from log theta to log_b. theta itself is rounded, which counts where q is steep: `log_mass`
    takes log units.

    Examples
    --------
    >>> import bmrs_core
    >>> print(round(bmrs_core.logsf(0.05, -3.0, 2.0), 6))
    -0.769396
    """
    arguments = collect({"theta": theta, "mu": mu, "sigma": sigma, "log_a": log_a, "log_b": log_b})
    require_posterior(arguments)
    return evaluate("logsf", arguments, out)
