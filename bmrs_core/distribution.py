"""Quantile, density and masses of the truncated log-normal posterior (paper Eq. 7), on arrays."""

from __future__ import annotations

from bmrs_core.arrays import Array, ArrayLike, collect
from bmrs_core.checks import require_part, require_posterior, require_within
from bmrs_core.evaluation import Out, evaluate

__all__ = [
    "log_mass",
    "log_quantile",
    "logcdf",
    "logpdf",
    "quantile",
]


def quantile(
    u: ArrayLike,
    mu: ArrayLike,
    sigma: ArrayLike,
    *,
    log_a: ArrayLike = -20.0,
    log_b: ArrayLike = 0.0,
    out: Out = None,
) -> Array:
    """Quantile of the truncated log-normal: theta with P(Theta <= theta) = u.

    The reparameterisation theta = f(phi, epsilon) of paper Eq. 3 for uniform epsilon = u.

    Parameters
    ----------
    u : array_like
        Probabilities in [0, 1].
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
        theta in natural units, within the support. NaN where an argument is.
        Of the arguments' library; float32 if every array is, else float64.

    Raises
    ------
    ValueError
        sigma <= 0, an infinite parameter, log_a >= log_b, u outside [0, 1], or shapes do not broadcast.
    TypeError
        An argument is not a number or a float32 or float64 array, or requires grad.

    Notes
    -----
    exp of `log_quantile`.

    Examples
    --------
    >>> import bmrs_core
    >>> print(round(bmrs_core.quantile(0.5, -3.0, 2.0), 6))
    0.042102
    """
    arguments = collect({"u": u, "mu": mu, "sigma": sigma, "log_a": log_a, "log_b": log_b})
    require_posterior(arguments)
    require_within(arguments, "u", 0.0, 1.0, "between 0 and 1", "it is a probability")
    return evaluate("quantile", arguments, out)


def log_quantile(
    u: ArrayLike,
    mu: ArrayLike,
    sigma: ArrayLike,
    *,
    log_a: ArrayLike = -20.0,
    log_b: ArrayLike = 0.0,
    out: Out = None,
) -> Array:
    """Quantile of x = log theta.

    Parameters
    ----------
    u : array_like
        Probabilities in [0, 1].
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
        x in log units, log_a <= x <= log_b. NaN where an argument is.
        Of the arguments' library; float32 if every array is, else float64.

    Raises
    ------
    ValueError
        sigma <= 0, an infinite parameter, log_a >= log_b, u outside [0, 1], or shapes do not broadcast.
    TypeError
        An argument is not a number or a float32 or float64 array, or requires grad.

    Notes
    -----
    Inverse normal of the smaller tail where mu lies inside the support; beyond it one step of order 5
    on the distance from the nearer bound; of short supports the inverted integral from the nearer end.

    Examples
    --------
    >>> import bmrs_core
    >>> print(round(bmrs_core.log_quantile(0.5, -3.0, 2.0), 6))
    -3.167657
    """
    arguments = collect({"u": u, "mu": mu, "sigma": sigma, "log_a": log_a, "log_b": log_b})
    require_posterior(arguments)
    require_within(arguments, "u", 0.0, 1.0, "between 0 and 1", "it is a probability")
    return evaluate("log_quantile", arguments, out)


def logpdf(
    theta: ArrayLike,
    mu: ArrayLike,
    sigma: ArrayLike,
    *,
    log_a: ArrayLike = -20.0,
    log_b: ArrayLike = 0.0,
    out: Out = None,
) -> Array:
    """Logarithm of the density of theta.

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
        log q(theta) (natural logarithm of a density per unit of theta); -inf outside the support. NaN
        where an argument is.
        Of the arguments' library; float32 if every array is, else float64.

    Raises
    ------
    ValueError
        sigma <= 0, an infinite parameter, log_a >= log_b, or shapes do not broadcast.
    TypeError
        An argument is not a number or a float32 or float64 array, or requires grad.

    Notes
    -----
    q_phi of paper Eq. 7. theta itself is rounded, which counts where q is steep.

    Examples
    --------
    >>> import bmrs_core
    >>> print(round(bmrs_core.logpdf(0.05, -3.0, 2.0), 6))
    1.452788
    """
    arguments = collect({"theta": theta, "mu": mu, "sigma": sigma, "log_a": log_a, "log_b": log_b})
    require_posterior(arguments)
    return evaluate("logpdf", arguments, out)


def logcdf(
    theta: ArrayLike,
    mu: ArrayLike,
    sigma: ArrayLike,
    *,
    log_a: ArrayLike = -20.0,
    log_b: ArrayLike = 0.0,
    out: Out = None,
) -> Array:
    """Logarithm of the distribution function of theta.

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
        log P(Theta <= theta) (natural logarithm), -inf below the support and 0 above. NaN where an
        argument is.
        Of the arguments' library; float32 if every array is, else float64.

    Raises
    ------
    ValueError
        sigma <= 0, an infinite parameter, log_a >= log_b, or shapes do not broadcast.
    TypeError
        An argument is not a number or a float32 or float64 array, or requires grad.

    Notes
    -----
    `log_mass` from log_a to log theta. theta itself is rounded, which counts where q is steep: `log_mass`
    takes log units.

    Examples
    --------
    >>> import bmrs_core
    >>> print(round(bmrs_core.logcdf(0.05, -3.0, 2.0), 6))
    -0.622303
    """
    arguments = collect({"theta": theta, "mu": mu, "sigma": sigma, "log_a": log_a, "log_b": log_b})
    require_posterior(arguments)
    return evaluate("logcdf", arguments, out)


def log_mass(
    log_lower: ArrayLike,
    log_upper: ArrayLike,
    mu: ArrayLike,
    sigma: ArrayLike,
    *,
    log_a: ArrayLike = -20.0,
    log_b: ArrayLike = 0.0,
    out: Out = None,
) -> Array:
    """Logarithm of the mass of q on a part of its support, log P(log_lower <= x <= log_upper).

    Parameters
    ----------
    log_lower, log_upper : array_like
        Bounds of the part in log units, within [log_a, log_b].
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
        The natural logarithm, <= 0; -inf where the bounds are equal. NaN where an argument is.
        Of the arguments' library; float32 if every array is, else float64.

    Raises
    ------
    ValueError
        sigma <= 0, an infinite parameter, log_a >= log_b, a part outside the support or inverted, or shapes
        do not broadcast.
    TypeError
        An argument is not a number or a float32 or float64 array, or requires grad.

    Notes
    -----
    q(a' <= theta <= b') of paper Eq. 10. Near 0 from the mass outside.

    Examples
    --------
    >>> import bmrs_core
    >>> print(round(bmrs_core.log_mass(-16.0, -5.5, -3.0, 2.0), 6))
    -2.178482
    """
    arguments = collect(
        {
            "log_lower": log_lower,
            "log_upper": log_upper,
            "mu": mu,
            "sigma": sigma,
            "log_a": log_a,
            "log_b": log_b,
        }
    )
    require_posterior(arguments)
    require_part(arguments, "log_lower", "log_upper")
    return evaluate("log_mass", arguments, out)
