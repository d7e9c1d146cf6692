"""Delta F, the change in log evidence under a reduced prior (paper Eq. 6-13), on arrays.

A structure is pruned where Delta F >= 0, up to a tolerance that is the pruning rule's, not these
functions': they are exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bmrs_core.arrays import Arguments, Array, ArrayLike, collect
from bmrs_core.checks import require_part, require_posterior, require_scale, require_within
from bmrs_core.evaluation import Out, evaluate, evaluate_raw

__all__ = ["delta_f_normal", "delta_f_uniform", "reduced_posterior"]

LOG_2 = 0.6931471805599453
P1, P2 = 8, 23


def _normal_arguments(
    mu: ArrayLike,
    sigma: ArrayLike,
    mu_p: ArrayLike | None,
    sigma_p: ArrayLike,
    log_a: ArrayLike,
    log_b: ArrayLike,
) -> Arguments:
    mean = log_a if mu_p is None else mu_p
    arguments = collect(
        {"mu": mu, "sigma": sigma, "log_a": log_a, "log_b": log_b, "mu_p": mean, "sigma_p": sigma_p}
    ).only(("mu", "sigma", "mu_p", "sigma_p", "log_a", "log_b"))
    require_posterior(arguments)
    values = arguments.values
    require_scale(arguments, "sigma_p", "it is the standard deviation of log theta under the reduced prior")
    why = "the reduced prior's mode lies in the support [log_a, log_b]; to collapse theta to 0 it is log_a"
    require_within(arguments, "mu_p", values["log_a"], values["log_b"], "within [log_a, log_b]", why)
    return arguments


def delta_f_normal(
    mu: ArrayLike,
    sigma: ArrayLike,
    *,
    mu_p: ArrayLike | None = None,
    sigma_p: ArrayLike = 1e-6,
    log_a: ArrayLike = -20.0,
    log_b: ArrayLike = 0.0,
    out: Out = None,
) -> Array:
    """Change in log evidence under a truncated log-normal reduced prior, Delta F_N.

    How much better (positive, in nats) the data are explained when the log-uniform prior on theta is
    replaced with one concentrated around exp(mu_p): by default collapsed to the lower bound.

    Parameters
    ----------
    mu, sigma : array_like
        Parameters of x = log theta before truncation (sigma > 0, not its logarithm); any shapes that
        broadcast. float32 or float64 arrays of NumPy, torch, JAX or CuPy, or Python numbers.
    mu_p : array_like, optional
        Location of the reduced prior in log units, within the support. Default: log_a, where theta is as
        good as 0.
    sigma_p : array_like, optional
        Its scale in log units. Default: 1e-6, the paper's variance of 1e-12: all but a point, and still a
        density.
    log_a, log_b : array_like, optional
        Bounds of the support in log units; they broadcast too. Default: -20 and 0, as in the paper: theta
        from 2e-9, as good as switched off, to 1, unchanged.
    out : ndarray, optional
        Where to write the result; NumPy only.

    Returns
    -------
    array
        Delta F_N in nats (natural logarithm). NaN where an argument is. Of the arguments' library;
        float32 if every array is, else float64; always computed in float64.

    Raises
    ------
    ValueError
        sigma <= 0, sigma_p <= 0, mu_p outside the support, an infinite parameter, log_a >= log_b, or
        shapes do not broadcast.
    TypeError
        An argument is not a number or a float32 or float64 array, or requires grad.

    Notes
    -----
    Paper Eq. 8, exactly: the 2 pi included. It tends to the Savage-Dickey ratio
    log[(log_b - log_a) q(x = mu_p)] as sigma_p -> 0. Evaluated literally Eq. 8 subtracts squares near
    4e14 and loses 0.1 nats; here its three squares are one sum of terms of the same sign. Of a
    nearly uniform q its error is of the order of eps times the range of the exponent, not of Delta F itself.

    Examples
    --------
    >>> import bmrs_core
    >>> bmrs_core.delta_f_normal([-25.0, -3.0], [1.0, 2.0]).round(6)
    array([  4.641788, -34.672207])
    """
    arguments = _normal_arguments(mu, sigma, mu_p, sigma_p, log_a, log_b)
    prior = arguments.only(("mu_p", "sigma_p", "log_a", "log_b"))
    moments = dict(zip(("j_p", "first", "second"), evaluate_raw("reduced_prior", prior), strict=True))
    order = ("mu", "sigma", "mu_p", "sigma_p", "j_p", "first", "second", "log_a", "log_b")
    return evaluate("delta_f_normal", arguments.including(moments).only(order), out)


def reduced_posterior(
    mu: ArrayLike,
    sigma: ArrayLike,
    *,
    mu_p: ArrayLike | None = None,
    sigma_p: ArrayLike = 1e-6,
    log_a: ArrayLike = -20.0,
    log_b: ArrayLike = 0.0,
) -> tuple[Array, Array]:
    """Posterior under the truncated log-normal reduced prior.

    Parameters
    ----------
    mu, sigma, mu_p, sigma_p, log_a, log_b : array_like
        As for `delta_f_normal`.

    Returns
    -------
    mu_q, sigma_q : array
        Parameters of x = log theta before truncation to [log_a, log_b], in log units. Of the arguments'
        library; float32 if every array is, else float64.

    Raises
    ------
    ValueError, TypeError
        As `delta_f_normal`.

    Notes
    -----
    sigma_q^2 = 1/(1/sigma^2 + 1/sigma_p^2) and mu_q = sigma_q^2 (mu/sigma^2 + mu_p/sigma_p^2), the
    definitions after paper Eq. 8.

    Examples
    --------
    >>> import bmrs_core
    >>> mu_q, sigma_q = bmrs_core.reduced_posterior(-3.0, 2.0, mu_p=-20.0, sigma_p=1.0)
    >>> round(float(mu_q), 6), round(float(sigma_q), 6)
    (-16.6, 0.894427)
    """
    arguments = _normal_arguments(mu, sigma, mu_p, sigma_p, log_a, log_b)
    result: tuple[Array, Array] = evaluate("reduced_posterior", arguments)
    return result


def delta_f_uniform(
    mu: ArrayLike,
    sigma: ArrayLike,
    *,
    p1: int = P1,
    p2: int | None = P2,
    log_a: ArrayLike = -20.0,
    log_b: ArrayLike = 0.0,
    log_a_reduced: ArrayLike | None = None,
    log_b_reduced: ArrayLike | None = None,
    out: Out = None,
) -> Array:
    """Change in log evidence under a log-uniform reduced prior of smaller support, Delta F_U.

    Positive where the posterior has more mass in the reduced support than the prior has.

    Parameters
    ----------
    mu, sigma : array_like
        Parameters of x = log theta before truncation (sigma > 0, not its logarithm); any shapes that
        broadcast. float32 or float64 arrays of NumPy, torch, JAX or CuPy, or Python numbers.
    p1, p2 : int, optional
        Bits: the reduced support is 2^-p2 <= theta <= 2^-p1, 0 <= p1 < p2 (paper Eq. 13). Default: 8,
        below which a factor is lost in eight bits, and 23, the bits of a float32's fraction. With
        ``p2=None`` it reaches down to log_a, which one above -15.9 needs: at the default 23 a posterior
        squeezed below 2^-23 has no mass in it, and Delta F_U is very negative.
    log_a, log_b : array_like, optional
        Bounds of the support in log units; they broadcast too. Default: -20 and 0, as in the paper: theta
        from 2e-9, as good as switched off, to 1, unchanged.
    log_a_reduced, log_b_reduced : array_like, optional
        Bounds of the reduced support in log units, each instead of its bits (log_a_reduced of p2,
        log_b_reduced of p1), which are then left at their defaults.
    out : ndarray, optional
        Where to write the result; NumPy only.

    Returns
    -------
    array
        Delta F_U in nats (natural logarithm). NaN where an argument is. Of the arguments' library;
        float32 if every array is, else float64; always computed in float64.

    Raises
    ------
    ValueError
        sigma <= 0, an infinite parameter, log_a >= log_b, p1 >= p2, a reduced support that is empty or
        not within [log_a, log_b], both bits and a bound for the same end, or shapes do not broadcast.
    TypeError
        An argument is not a number or a float32 or float64 array, or requires grad; p1 or p2 is not an
        integer.

    Notes
    -----
    Paper Eq. 10 to 13. Near 0 the difference of two log masses is taken of their complements, and of a
    nearly uniform q of two means of exp(f), f the exponent: there its error is of the order of eps f.

    Examples
    --------
    >>> import bmrs_core
    >>> bmrs_core.delta_f_uniform([-12.0, -3.0], [2.0, 2.0]).round(6)
    array([ 0.628934, -1.56355 ])
    """
    lower, upper = _reduced_support(p1, p2, log_a, log_a_reduced, log_b_reduced)
    arguments = collect(
        {
            "mu": mu,
            "sigma": sigma,
            "log_a": log_a,
            "log_b": log_b,
            "log_a_reduced": lower[0],
            "log_b_reduced": upper[0],
        }
    ).only(("mu", "sigma", "log_a_reduced", "log_b_reduced", "log_a", "log_b"))
    require_posterior(arguments)
    labels = {"log_a_reduced": lower[1], "log_b_reduced": upper[1]}
    require_part(arguments, "log_a_reduced", "log_b_reduced", labels=labels, empty=False)
    return evaluate("delta_f_uniform", arguments, out)


def _reduced_support(
    p1: Any, p2: Any, log_a: ArrayLike, log_a_reduced: ArrayLike | None, log_b_reduced: ArrayLike | None
) -> tuple[tuple[ArrayLike, str], tuple[ArrayLike, str]]:
    """Return both bounds of the reduced support, each with what a message should call it."""
    for bits, default, bound, value in (
        ("p2", (p2, P2), "log_a_reduced", log_a_reduced),
        ("p1", (p1, P1), "log_b_reduced", log_b_reduced),
    ):
        if value is not None and default[0] != default[1]:
            raise ValueError(
                f"give {bits} or {bound}, not both, got {bits}={default[0]!r}: they name the same end"
            )
    by_bits = log_a_reduced is None and log_b_reduced is None and p2 is not None
    if by_bits and _bits("p1", p1) >= _bits("p2", p2):
        raise ValueError(f"p1 must be below p2, got p1={p1} and p2={p2}: [2^-p2, 2^-p1] would be empty")
    lower: tuple[ArrayLike, str] = (log_a_reduced, "log_a_reduced")
    if log_a_reduced is None:
        lower = (log_a, "log_a") if p2 is None else (-LOG_2 * _bits("p2", p2), f"-p2 log 2 (p2={p2})")
    upper: tuple[ArrayLike, str] = (log_b_reduced, "log_b_reduced")
    if log_b_reduced is None:
        upper = (-LOG_2 * _bits("p1", p1), f"-p1 log 2 (p1={p1})")
    return lower, upper


def _bits(name: str, value: Any) -> int:
    if isinstance(value, (bool, float, np.ndarray)) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, a number of bits, got {value!r}: see paper Eq. 13")
    if value < 0:
        raise ValueError(
            f"{name} must be at least 0, got {value}: 2^-0 = 1 is the largest theta that bits can name"
        )
    return int(value)
