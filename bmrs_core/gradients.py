"""Gradients of the truncated log-normal's functions with respect to mu and sigma, on arrays.

All are analytic; none differentiates through a choice of formula. For d/d log sigma multiply by sigma.
"""

from __future__ import annotations

from bmrs_core.arrays import Array, ArrayLike, collect
from bmrs_core.checks import require_posterior, require_within
from bmrs_core.evaluation import Out, evaluate

__all__ = ["kl_divergence_grad", "log_mean_grad", "log_normalizer_grad", "log_quantile_grad", "logpdf_grad"]


def log_normalizer_grad(
    mu: ArrayLike,
    sigma: ArrayLike,
    *,
    log_a: ArrayLike = -20.0,
    log_b: ArrayLike = 0.0,
    out: Out = None,
) -> tuple[Array, Array, Array]:
    """Log normaliser and its gradient.

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
        log Z, as `log_normalizer`.
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
    (phi(alpha) - phi(beta))/(sigma Z) and (alpha phi(alpha) - beta phi(beta))/(sigma Z), in tails as moments
    of the distance from the bound.

    Examples
    --------
    >>> import bmrs_core
    >>> [round(float(g), 6) for g in bmrs_core.log_normalizer_grad(-3.0, 2.0)]
    [-0.069143, -0.069395, -0.104092]
    """
    arguments = collect({"mu": mu, "sigma": sigma, "log_a": log_a, "log_b": log_b})
    require_posterior(arguments)
    result: tuple[Array, Array, Array] = evaluate("log_normalizer_grad", arguments, out)
    return result


def kl_divergence_grad(
    mu: ArrayLike,
    sigma: ArrayLike,
    *,
    log_a: ArrayLike = -20.0,
    log_b: ArrayLike = 0.0,
    out: Out = None,
) -> tuple[Array, Array, Array]:
    """Divergence from the prior and its gradient.

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
        KL in nats, as `kl_divergence`.
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
    -Cov(y, y^2)/(2 sigma) and -Var(y^2)/(2 sigma) with y = (x - mu)/sigma under q.

    Examples
    --------
    >>> import bmrs_core
    >>> [round(float(g), 6) for g in bmrs_core.kl_divergence_grad(-3.0, 2.0)]
    [1.056882, 0.11999, -0.320015]
    """
    arguments = collect({"mu": mu, "sigma": sigma, "log_a": log_a, "log_b": log_b})
    require_posterior(arguments)
    result: tuple[Array, Array, Array] = evaluate("kl_divergence_grad", arguments, out)
    return result


def log_mean_grad(
    mu: ArrayLike,
    sigma: ArrayLike,
    *,
    log_a: ArrayLike = -20.0,
    log_b: ArrayLike = 0.0,
    out: Out = None,
) -> tuple[Array, Array, Array]:
    """Logarithm of the mean and its gradient.

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
        log E[theta], as `log_mean`.
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
    The difference of E[y] and of E[y^2] between theta q and q, over sigma. At tiny sigma d/dsigma is of the
    size of sigma while its absolute accuracy stays eps: relative accuracy eps/sigma.

    Examples
    --------
    >>> import bmrs_core
    >>> [round(float(g), 6) for g in bmrs_core.log_mean_grad(-3.0, 2.0)]
    [-2.106768, 0.498856, 0.107206]
    """
    arguments = collect({"mu": mu, "sigma": sigma, "log_a": log_a, "log_b": log_b})
    require_posterior(arguments)
    result: tuple[Array, Array, Array] = evaluate("log_mean_grad", arguments, out)
    return result


def log_quantile_grad(
    u: ArrayLike,
    mu: ArrayLike,
    sigma: ArrayLike,
    *,
    log_a: ArrayLike = -20.0,
    log_b: ArrayLike = 0.0,
    out: Out = None,
) -> tuple[Array, Array, Array]:
    """Quantile of x = log theta and its gradient.

    The reparameterised draw and what its backward pass needs: d theta = theta dx.

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
    out : tuple of ndarray, optional
        Where to write the three results; NumPy only.

    Returns
    -------
    value : array
        x(u) in log units, as `log_quantile`.
    d_mu, d_sigma : array
        Its derivatives with respect to mu and sigma (not log sigma). NaN where an argument is.
        Of the arguments' library; float32 if every array is, else float64.

    Raises
    ------
    ValueError
        sigma <= 0, an infinite parameter, log_a >= log_b, u outside [0, 1], or shapes do not broadcast.
    TypeError
        An argument is not a number or a float32 or float64 array, or requires grad.

    Notes
    -----
    dx/dmu = u(1 - u)(E[y | y > xi] - E[y | y < xi])/f(xi), with y^2 in place of y for dx/dsigma; 0 at u = 0
    and u = 1.

    Examples
    --------
    >>> import bmrs_core
    >>> [round(float(g), 6) for g in bmrs_core.log_quantile_grad(0.5, -3.0, 2.0)]
    [-3.167657, 0.837102, -0.328175]
    """
    arguments = collect({"u": u, "mu": mu, "sigma": sigma, "log_a": log_a, "log_b": log_b})
    require_posterior(arguments)
    require_within(arguments, "u", 0.0, 1.0, "between 0 and 1", "it is a probability")
    result: tuple[Array, Array, Array] = evaluate("log_quantile_grad", arguments, out)
    return result


def logpdf_grad(
    theta: ArrayLike,
    mu: ArrayLike,
    sigma: ArrayLike,
    *,
    log_a: ArrayLike = -20.0,
    log_b: ArrayLike = 0.0,
    out: Out = None,
) -> tuple[Array, Array, Array]:
    """Logarithm of the density of theta and its gradient.

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
    out : tuple of ndarray, optional
        Where to write the three results; NumPy only.

    Returns
    -------
    value : array
        log q(theta), as `logpdf`.
    d_mu, d_sigma : array
        Its derivatives with respect to mu and sigma (not log sigma), 0 outside the support. NaN where an
        argument is. Of the arguments' library; float32 if every array is, else float64.

    Raises
    ------
    ValueError
        sigma <= 0, an infinite parameter, log_a >= log_b, or shapes do not broadcast.
    TypeError
        An argument is not a number or a float32 or float64 array, or requires grad.

    Notes
    -----
    (y - E[y])/sigma and (y^2 - E[y^2])/sigma with y = (x - mu)/sigma, each measured from the mode. That with
    respect to theta itself is -(1 + y/sigma)/theta.

    Examples
    --------
    >>> import bmrs_core
    >>> [round(float(g), 6) for g in bmrs_core.logpdf_grad(0.05, -3.0, 2.0)]
    [1.452788, 0.070462, -0.395905]
    """
    arguments = collect({"theta": theta, "mu": mu, "sigma": sigma, "log_a": log_a, "log_b": log_b})
    require_posterior(arguments)
    result: tuple[Array, Array, Array] = evaluate("logpdf_grad", arguments, out)
    return result
