"""Bayesian model reduction beyond the two closed forms: any reduced prior, and the Gaussian case."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bmrs_core.arrays import Array, ArrayLike, collect
from bmrs_core.checks import require, require_finite, require_posterior, require_scale
from bmrs_core.evaluation import Out, evaluate

__all__ = ["delta_f", "delta_f_gaussian"]

LogDensity = Callable[[NDArray[np.float64]], ArrayLike]

# The reduced prior must integrate to 1 within this: a density that is merely unnormalised shifts
# Delta F by the log of its integral, which no one could tell from evidence.
NORMALISATION = 1e-6
# The search for the peak: 256 cells, zoomed in 8 times by a factor of 128, reaches the spacing of floats.
GRID = 257
REFINEMENTS = 8
# About a thousand points a panel before tanh-sinh may take two levels that agree for the answer, and until
# they agree to about 3 eps: the default, 2e-12, is more than the tests allow.
LEVELS = 6
LOG_RTOL = -35.0
# For -inf, which makes NaN of a panel that has nothing else.
NOTHING = -1e300


def delta_f(
    reduced_log_density: LogDensity,
    mu: ArrayLike,
    sigma: ArrayLike,
    *,
    log_a: ArrayLike = -20.0,
    log_b: ArrayLike = 0.0,
    points: ArrayLike = (),
) -> tuple[Array, Array]:
    """Change in log evidence under any reduced prior, by quadrature with an error estimate.

    Parameters
    ----------
    reduced_log_density : callable
        Log density (natural logarithm) of the reduced prior over x = log theta, per unit of x, on
        [log_a, log_b]; it takes and returns a float64 array of shape (n,) and may be -inf. A density
        over theta becomes one over x by adding x to its logarithm.
    mu, sigma : array_like
        Parameters of x before truncation (sigma > 0, not its logarithm); any shapes that broadcast.
        NumPy arrays or Python numbers.
    log_a, log_b : array_like, optional
        Bounds of the support in log units; they broadcast too. Default: -20 and 0, as in the paper: theta
        from 2e-9, as good as switched off, to 1, unchanged.
    points : array_like, optional
        Where the reduced density jumps or has a peak narrower than 1/256 of the support, in x.

    Returns
    -------
    value, error : array
        Delta F in nats, and an estimate of its absolute error in nats; float64.

    Raises
    ------
    ValueError
        sigma <= 0, log_a >= log_b, shapes do not broadcast, or the density does not integrate to 1.
    TypeError
        An argument is not a number or a float32 or float64 NumPy array.

    Notes
    -----
    Paper Eq. 6, log E_reduced[q / p] = log of the integral of (log_b - log_a) q(x) p~(x), by
    tanh-sinh quadrature (scipy.integrate.tanhsinh) between the bounds, the integrand's peak, the
    posterior's mode and the points given; about 10 ms an element.

    Examples
    --------
    >>> import bmrs_core, numpy as np
    >>> value, error = bmrs_core.delta_f(lambda x: 20 * x + np.log(20), -3.0, 2.0)
    >>> print(round(value, 6), error < 1e-8)
    0.365338 True
    """
    arguments = collect({"mu": mu, "sigma": sigma, "log_a": log_a, "log_b": log_b})
    if arguments.namespace is not np:
        raise TypeError(
            f"delta_f takes NumPy arrays, got {arguments.namespace.__name__}: it calls back into Python"
        )
    require_posterior(arguments)
    inputs = np.broadcast_arrays(*(value.astype(np.float64) for value in arguments.values.values()))
    value = np.empty(inputs[0].shape)
    error = np.empty(inputs[0].shape)
    marks = np.asarray(points, dtype=np.float64).ravel()
    for index in np.ndindex(value.shape):
        mu_i, sigma_i, a, b = (float(array[index]) for array in inputs)
        value[index], error[index] = _delta_f(reduced_log_density, mu_i, sigma_i, a, b, marks)
    return value[()], error[()]


def _delta_f(
    density: LogDensity, mu: float, sigma: float, a: float, b: float, marks: NDArray[np.float64]
) -> tuple[float, float]:
    if not np.isfinite([mu, sigma]).all():
        return np.nan, np.nan

    def prior(x: NDArray[np.float64]) -> NDArray[np.float64]:
        values = np.broadcast_to(np.asarray(density(x), dtype=np.float64), x.shape)
        wrong = ~(values < np.inf)
        if wrong.any():  # tanh-sinh would pass them over
            raise ValueError(
                f"reduced_log_density must be a number or -inf on [{a}, {b}], got {values[wrong][0]} at "
                f"{x[wrong][0]}: a prior has a density, not too large for a float64, everywhere"
            )
        return values

    def posterior(x: NDArray[np.float64]) -> NDArray[np.float64]:
        arguments = collect({"x": x, "mu": mu, "sigma": sigma, "log_a": a, "log_b": b})
        log_q: NDArray[np.float64] = evaluate("log_density", arguments)
        return np.asarray(prior(x) + log_q + np.log(b - a))

    total, _ = _log_integral(prior, a, b, marks)
    if not abs(total) < NORMALISATION:
        raise ValueError(
            f"reduced_log_density must integrate to 1 over [{a}, {b}], got exp({total:.6g}): Delta F "
            "compares normalised priors. Is it a density over theta rather than log theta, or is a "
            "jump or a narrow peak missing in points=?"
        )
    return _log_integral(posterior, a, b, np.append(marks, min(max(mu, a), b)))


def _log_integral(
    log_density: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    a: float,
    b: float,
    marks: NDArray[np.float64],
) -> tuple[float, float]:
    """Return the log of the integral of exp(log_density) over [a, b] and an estimate of its error.

    Tanh-sinh quadrature on panels between the peak and the marks.
    """
    from scipy.integrate import tanhsinh
    from scipy.special import logsumexp

    def panel(offset: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.float64]:
        x = start + offset
        return np.maximum(log_density(x.ravel()), NOTHING).reshape(x.shape)

    peak = _peak(log_density, a, b)
    edges = np.unique(np.concatenate([[a, b, peak], marks[(marks >= a) & (marks <= b)]]))
    # In offsets from a panel's start: scipy's own nodes close to a bound far from 0 are rounded all to one
    # side, which costs 4e-12 nats of a peak there.
    found = tanhsinh(panel, 0.0, np.diff(edges), args=(edges[:-1],), log=True, rtol=LOG_RTOL, minlevel=LEVELS)
    total = float(logsumexp(found.integral.real))
    if total < NOTHING / 2:
        return -np.inf, 0.0
    return total, float(np.exp(logsumexp(found.error.real) - total))


def _peak(log_density: Callable[[NDArray[np.float64]], NDArray[np.float64]], a: float, b: float) -> float:
    """Return where a density is largest, by a grid that zooms in."""
    low, high = a, b
    peak = a
    for _ in range(REFINEMENTS):
        grid = np.linspace(low, high, GRID)
        best = int(np.argmax(log_density(grid)))
        peak = float(grid[best])
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)]
    return peak


def delta_f_gaussian(
    mu: ArrayLike,
    sigma: ArrayLike,
    *,
    mu_0: ArrayLike = 0.0,
    sigma_0: ArrayLike = 1.0,
    mu_p: ArrayLike = 0.0,
    sigma_p: ArrayLike = 1e-3,
    out: Out = None,
) -> Array:
    """Change in log evidence of a Gaussian weight under a narrower Gaussian prior.

    For Bayesian networks with Gaussian weights (Friston and Penny 2011, footnote 2 of the paper): prune a
    weight where the data are explained no worse with its prior N(mu_0, sigma_0^2) replaced by
    N(mu_p, sigma_p^2). Of independent weights the values add.

    Parameters
    ----------
    mu, sigma : array_like
        Mean and standard deviation of the posterior of the weight; any shapes that broadcast. float32 or
        float64 arrays of NumPy, torch, JAX or CuPy, or Python numbers.
    mu_0, sigma_0 : array_like, optional
        Mean and standard deviation of its prior. Default: 0 and 1, for weights of standardised inputs.
    mu_p, sigma_p : array_like, optional
        Mean and standard deviation of the reduced prior. Default: 0 and 1e-3, next to the weight's being 0
        in units of that prior.
    out : ndarray, optional
        Where to write the result; NumPy only.

    Returns
    -------
    array
        Delta F in nats (natural logarithm). NaN where an argument is. Of the arguments' library;
        float32 if every array is, else float64; always computed in float64.

    Raises
    ------
    ValueError
        A standard deviation that is not positive and finite, an infinite mean, a reduced prior so wide
        that the reduced posterior has no finite variance, or shapes do not broadcast.
    TypeError
        An argument is not a number or a float32 or float64 array, or requires grad.

    Notes
    -----
    log of the integral of q p~/p; one quotient instead of the textbook form's difference of squares;
    where the two priors nearly agree its absolute error is a few eps.

    Examples
    --------
    >>> import bmrs_core
    >>> bmrs_core.delta_f_gaussian([0.01, 0.5], [0.2, 0.1]).round(6)
    array([  1.608176, -10.196215])
    """
    arguments = collect(
        {"mu": mu, "sigma": sigma, "mu_0": mu_0, "sigma_0": sigma_0, "mu_p": mu_p, "sigma_p": sigma_p}
    )
    values = arguments.values
    for name in ("sigma", "sigma_0", "sigma_p"):
        require_scale(arguments, name, "it is a standard deviation, not its logarithm")
    require_finite(arguments, "mu", "mu_0", "mu_p")
    improper = (values["sigma_0"] / values["sigma"]) ** 2 + (
        values["sigma_0"] / values["sigma_p"]
    ) ** 2 <= 1.0
    why = "the reduced posterior, of precision 1/sigma^2 + 1/sigma_p^2 - 1/sigma_0^2, would be improper"
    require(arguments, improper, "sigma_p", "narrower, or sigma below sigma_0", why)
    return evaluate("delta_f_gaussian", arguments, out)
