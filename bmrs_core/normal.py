"""Log-differences of the normal distribution function and of the error function."""

from __future__ import annotations

from bmrs_core.arrays import Array, ArrayLike, collect
from bmrs_core.checks import require
from bmrs_core.evaluation import Out, evaluate

__all__ = ["log_erf_diff", "log_ndtr_diff"]

WHY = "the logarithm of a negative mass is not a number"


def log_ndtr_diff(lower: ArrayLike, upper: ArrayLike, *, out: Out = None) -> Array:
    """Logarithm of the standard normal mass between two bounds, log(Phi(upper) - Phi(lower)).

    Neither underflows nor cancels, however far out in a tail or close together the bounds are.

    Parameters
    ----------
    lower, upper : array_like
        Bounds, ``lower <= upper``, possibly infinite; any shapes that broadcast. float32 or float64
        arrays of NumPy, torch, JAX or CuPy, or Python numbers.
    out : ndarray, optional
        Where to write the result; NumPy only.

    Returns
    -------
    array
        The log mass (natural logarithm), <= 0, -inf where the bounds are equal, NaN where one is. Of
        the arguments' library; float32 if every array is, else float64.

    Raises
    ------
    ValueError
        ``lower > upper`` somewhere, or shapes do not broadcast.
    TypeError
        An argument is not a number or a float32 or float64 array.

    Notes
    -----
    The normaliser Z of the truncated log-normal, paper Appendix A. Interior intervals from the
    complement of both tails by log1p; tails from Mills' ratios anchored at the nearer bound; short
    intervals (width times distance of the middle below 1, width below 1.5) by a polynomial anchored at
    the middle.

    Examples
    --------
    >>> import bmrs_core
    >>> print(round(bmrs_core.log_ndtr_diff(-1.0, 1.0), 6))
    -0.381715
    >>> print(round(bmrs_core.log_ndtr_diff(40.0, 41.0), 6))
    -804.608442
    """
    arguments = collect({"lower": lower, "upper": upper})
    bad = arguments.values["lower"] > arguments.values["upper"]
    require(arguments, bad, "lower", "at most upper", WHY)
    return evaluate("log_ndtr_diff", arguments, out)


def log_erf_diff(x: ArrayLike, y: ArrayLike, *, out: Out = None) -> Array:
    """Logarithm of a difference of error functions, log(erf(y) - erf(x)).

    Parameters
    ----------
    x, y : array_like
        Arguments, ``x <= y``, possibly infinite; any shapes that broadcast. float32 or float64 arrays
        of NumPy, torch, JAX or CuPy, or Python numbers.
    out : ndarray, optional
        Where to write the result; NumPy only.

    Returns
    -------
    array
        The natural logarithm, <= log 2, -inf where x equals y. Of the arguments' library; float32 if
        every array is, else float64.

    Raises
    ------
    ValueError
        ``x > y`` somewhere, or shapes do not broadcast.
    TypeError
        An argument is not a number or a float32 or float64 array.

    Notes
    -----
    log 2 plus `log_ndtr_diff` of sqrt(2) x and sqrt(2) y: where the result is near 0, its absolute, not its
    relative error is of the order of eps.

    Examples
    --------
    >>> import bmrs_core
    >>> print(round(bmrs_core.log_erf_diff(0.0, 1.0), 6))
    -0.171143
    >>> print(round(bmrs_core.log_erf_diff(30.0, 31.0), 6))
    -903.974117
    """
    arguments = collect({"x": x, "y": y})
    bad = arguments.values["x"] > arguments.values["y"]
    require(arguments, bad, "x", "at most y", WHY)
    return evaluate("log_erf_diff", arguments, out)
