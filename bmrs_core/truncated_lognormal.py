"""The truncated log-normal posterior of the multiplicative noise (paper Eq. 7), on arrays.

theta = exp(x), x normal with mu and sigma, truncated to [log_a, log_b].
"""

from __future__ import annotations

from bmrs_core.arrays import Array, ArrayLike, collect
from bmrs_core.checks import require_posterior
from bmrs_core.evaluation import Out, evaluate

__all__ = [
    "kl_divergence",
    "log_mean",
    "log_normalizer",
    "mean",
    "snr",
    "variance",
]


def log_normalizer(
    mu: ArrayLike,
    sigma: ArrayLike,
    *,
    log_a: ArrayLike = -20.0,
    log_b: ArrayLike = 0.0,
    out: Out = None,
) -> Array:
    """Log normaliser of the truncated log-normal, log Z = log(Phi(beta) - Phi(alpha)).

    alpha = (log_a - mu)/sigma and beta = (log_b - mu)/sigma.

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
        log Z (natural logarithm), <= 0. NaN where an argument is.
        Of the arguments' library; float32 if every array is, else float64.

    Raises
    ------
    ValueError
        sigma <= 0, an infinite parameter, log_a >= log_b, or shapes do not broadcast.
    TypeError
        An argument is not a number or a float32 or float64 array, or requires grad.

    Notes
    -----
    Z_q of the paper, Appendix A. Within 4 eps times its condition number (alpha^2 where Z is near 1).

    Examples
    --------
    >>> import bmrs_core
    >>> print(round(bmrs_core.log_normalizer(-3.0, 2.0), 6))
    -0.069143
    """
    arguments = collect({"mu": mu, "sigma": sigma, "log_a": log_a, "log_b": log_b})
    require_posterior(arguments)
    return evaluate("log_normalizer", arguments, out)


def kl_divergence(
    mu: ArrayLike,
    sigma: ArrayLike,
    *,
    log_a: ArrayLike = -20.0,
    log_b: ArrayLike = 0.0,
    out: Out = None,
) -> Array:
    """Divergence KL(q || p) of the posterior from the log-uniform prior on the same support.

    The regulariser of the training objective (paper Eq. 3), per structure, in nats.

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
        KL in nats, >= 0, and 0 only in the limit of a uniform x. NaN where an argument is.
        Of the arguments' library; float32 if every array is, else float64.

    Raises
    ------
    ValueError
        sigma <= 0, an infinite parameter, log_a >= log_b, or shapes do not broadcast.
    TypeError
        An argument is not a number or a float32 or float64 array, or requires grad.

    Notes
    -----
    log(w/J) + E_q[e] in closed form, e the exponent relative to the mode; below about 0.4 nats a sum of
    non-negative terms, so that the smallest divergences keep full relative accuracy.

    Examples
    --------
    >>> import bmrs_core
    >>> print(round(bmrs_core.kl_divergence(-3.0, 2.0), 6))
    1.056882
    """
    arguments = collect({"mu": mu, "sigma": sigma, "log_a": log_a, "log_b": log_b})
    require_posterior(arguments)
    return evaluate("kl_divergence", arguments, out)


def mean(
    mu: ArrayLike,
    sigma: ArrayLike,
    *,
    log_a: ArrayLike = -20.0,
    log_b: ArrayLike = 0.0,
    out: Out = None,
) -> Array:
    """Mean E[theta] of the truncated log-normal.

    What the noise is replaced with after training, and a pruning criterion of the paper.

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
        E[theta] in natural units. NaN where an argument is.
        Of the arguments' library; float32 if every array is, else float64.

    Raises
    ------
    ValueError
        sigma <= 0, an infinite parameter, log_a >= log_b, or shapes do not broadcast.
    TypeError
        An argument is not a number or a float32 or float64 array, or requires grad.

    Notes
    -----
    exp(anchor + D) J_1/J_0: the mass of theta q over that of q, each anchored at its own mode, so that
    mu + sigma^2/2 is never formed only to be subtracted again.

    Examples
    --------
    >>> import bmrs_core
    >>> print(round(bmrs_core.mean(-3.0, 2.0), 6))
    0.12163
    """
    arguments = collect({"mu": mu, "sigma": sigma, "log_a": log_a, "log_b": log_b})
    require_posterior(arguments)
    return evaluate("mean", arguments, out)


def log_mean(
    mu: ArrayLike,
    sigma: ArrayLike,
    *,
    log_a: ArrayLike = -20.0,
    log_b: ArrayLike = 0.0,
    out: Out = None,
) -> Array:
    """Logarithm of the mean, log E[theta].

    Finite where E[theta] underflows or overflows.

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
        log E[theta] (natural logarithm). NaN where an argument is.
        Of the arguments' library; float32 if every array is, else float64.

    Raises
    ------
    ValueError
        sigma <= 0, an infinite parameter, log_a >= log_b, or shapes do not broadcast.
    TypeError
        An argument is not a number or a float32 or float64 array, or requires grad.

    Notes
    -----
    Where x varies little over q and E[theta] may be near 1, as log1p of the mean of exp(x - mode) - 1.

    Examples
    --------
    >>> import bmrs_core
    >>> print(round(bmrs_core.log_mean(-3.0, 2.0), 6))
    -2.106768
    """
    arguments = collect({"mu": mu, "sigma": sigma, "log_a": log_a, "log_b": log_b})
    require_posterior(arguments)
    return evaluate("log_mean", arguments, out)


def variance(
    mu: ArrayLike,
    sigma: ArrayLike,
    *,
    log_a: ArrayLike = -20.0,
    log_b: ArrayLike = 0.0,
    out: Out = None,
) -> Array:
    """Variance of the truncated log-normal, Var(theta).

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
        Var(theta) in natural units, > 0. NaN where an argument is.
        Of the arguments' library; float32 if every array is, else float64.

    Raises
    ------
    ValueError
        sigma <= 0, an infinite parameter, log_a >= log_b, or shapes do not broadcast.
    TypeError
        An argument is not a number or a float32 or float64 array, or requires grad.

    Notes
    -----
    E[theta^2] - E[theta]^2 where the two differ by more than a factor of e^(1/2); else the centred second
    moment of exp(x - mode), summed.

    Examples
    --------
    >>> import bmrs_core
    >>> print(round(bmrs_core.variance(-3.0, 2.0), 6))
    0.034374
    """
    arguments = collect({"mu": mu, "sigma": sigma, "log_a": log_a, "log_b": log_b})
    require_posterior(arguments)
    return evaluate("variance", arguments, out)


def snr(
    mu: ArrayLike,
    sigma: ArrayLike,
    *,
    log_a: ArrayLike = -20.0,
    log_b: ArrayLike = 0.0,
    out: Out = None,
) -> Array:
    """Signal-to-noise ratio E[theta] / sqrt(Var(theta)).

    The criterion of Neklyudov et al. (2017), which prunes below 1.

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
        The ratio, > 0. NaN where an argument is.
        Of the arguments' library; float32 if every array is, else float64.

    Raises
    ------
    ValueError
        sigma <= 0, an infinite parameter, log_a >= log_b, or shapes do not broadcast.
    TypeError
        An argument is not a number or a float32 or float64 array, or requires grad.

    Notes
    -----
    From log(E[theta^2]/E[theta]^2); where that is below 1/2 from the centred second moment.

    Examples
    --------
    >>> import bmrs_core
    >>> print(round(bmrs_core.snr(-3.0, 2.0), 6))
    0.656031
    """
    arguments = collect({"mu": mu, "sigma": sigma, "log_a": log_a, "log_b": log_b})
    require_posterior(arguments)
    return evaluate("snr", arguments, out)
