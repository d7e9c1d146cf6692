"""Entropy of the truncated log-normal posterior (paper Eq. 7), on arrays."""

from __future__ import annotations

from bmrs_core.arrays import Array, ArrayLike, collect
from bmrs_core.checks import require_posterior
from bmrs_core.evaluation import Out, evaluate

__all__ = ["entropy", "entropy_grad"]


def entropy(
    mu: ArrayLike,
    sigma: ArrayLike,
    *,
    log_a: ArrayLike = -20.0,
    log_b: ArrayLike = 0.0,
    out: Out = None,
) -> Array:
    """Differential entropy of theta, -E[log q(theta)].

    Parameters
    ----------
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
        H in nats; of a density per unit of theta, so of any sign. NaN where an argument is.
        Of the arguments' library; float32 if every array is, else float64.

    Raises
    ------
    ValueError
        sigma <= 0, an infinite parameter, log_a >= log_b, or shapes do not broadcast.
    TypeError
        An argument is not a number or a float32 or float64 array, or requires grad.

    Notes
    -----
    E[x] + log(log_b - log_a) - KL(q || p), each as accurate as `kl_divergence`: an absolute error of a few
    roundings of the largest of the three.

    Examples
    --------
    >>> import bmrs_core
    >>> print(round(bmrs_core.entropy(-3.0, 2.0), 6))
    -1.33873
    """
    arguments = collect({"mu": mu, "sigma": sigma, "log_a": log_a, "log_b": log_b})
    require_posterior(arguments)
    return evaluate("entropy", arguments, out)


def entropy_grad(
    mu: ArrayLike,
    sigma: ArrayLike,
    *,
    log_a: ArrayLike = -20.0,
    log_b: ArrayLike = 0.0,
    out: Out = None,
) -> tuple[Array, Array, Array]:
    """Entropy of theta and its gradient.

    Parameters
    ----------
    mu, sigma : array_like
        Parameters of x = log theta before truncation (sigma > 0, not its logarithm); any shapes that
        broadcast. float32 or float64 arrays of NumPy, torch, JAX or CuPy, or Python numbers.
    log_a, log_b : array_like, optional
        Bounds of the support in log units; they broadcast too. Default: -20 and 0, as in the paper: theta
        from 2e-9, as good as switched off, to 1, unchanged.
    out : tuple of ndarray, optional
        Where to write the three results; NumPy only.

    Returns
    -------
    value : array
        H in nats, as `entropy`.
    d_mu, d_sigma : array
        Its derivatives with respect to mu and sigma (not log sigma). NaN where an argument is.
        Of the arguments' library; float32 if every array is, else float64.

    Raises
    ------
    ValueError
        sigma <= 0, an infinite parameter, log_a >= log_b, or shapes do not broadcast.
    TypeError
        An argument is not a number or a float32 or float64 array, or requires grad.

    Notes
    -----
    Var(y) + Cov(y, y^2)/(2 sigma) and Cov(y, y^2) + Var(y^2)/(2 sigma) with y = (x - mu)/sigma under q.

    Examples
    --------
    >>> import bmrs_core
    >>> [round(float(g), 6) for g in bmrs_core.entropy_grad(-3.0, 2.0)]
    [-1.33873, 0.652563, -0.159946]
    """
    arguments = collect({"mu": mu, "sigma": sigma, "log_a": log_a, "log_b": log_b})
    require_posterior(arguments)
    result: tuple[Array, Array, Array] = evaluate("entropy_grad", arguments, out)
    return result
