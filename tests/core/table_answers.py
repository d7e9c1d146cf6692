"""What ``bmrs_core`` answers on a reference table, column by column."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bmrs_core

from .truth_tables import Table, load

Array = NDArray[Any]

_ELEMENTWISE = {
    "logZ": bmrs_core.log_normalizer,
    "KL": bmrs_core.kl_divergence,
    "E": bmrs_core.mean,
    "logE": bmrs_core.log_mean,
    "Var": bmrs_core.variance,
    "SNR": bmrs_core.snr,
}
_GRADIENTS = {
    "logZ": bmrs_core.log_normalizer_grad,
    "KL": bmrs_core.kl_divergence_grad,
    "logE": bmrs_core.log_mean_grad,
}


def answer(table: Table, column: str, library: Callable[[Array], Any] = np.asarray) -> Array:
    """The package's answer to one column of a table, in the table's precision.

    ``library`` makes the arguments arrays of another library, whose answer is brought back to NumPy.
    """
    inputs = table.inputs("a", "b", "mu", "sigma", "u", "a2", "b2", "sp")
    log_a, log_b, mu, sigma, u, lower, upper, sigma_p = map(library, inputs)
    bounds: dict[str, Any] = {"log_a": log_a, "log_b": log_b}
    if column in _ELEMENTWISE:
        return np.asarray(_ELEMENTWISE[column](mu, sigma, **bounds))
    if column == "x_u":
        return np.asarray(bmrs_core.log_quantile(u, mu, sigma, **bounds))
    if column == "theta_u":
        return np.asarray(bmrs_core.quantile(u, mu, sigma, **bounds))
    if column == "log_mass":
        return np.asarray(bmrs_core.log_mass(lower, upper, mu, sigma, **bounds))
    if column == "dF_N":
        return np.asarray(bmrs_core.delta_f_normal(mu, sigma, sigma_p=sigma_p, **bounds))
    if column == "dF_U":
        reduced: dict[str, Any] = {"log_a_reduced": lower, "log_b_reduced": upper}
        return np.asarray(bmrs_core.delta_f_uniform(mu, sigma, **reduced, **bounds))
    function, _, argument = column.removeprefix("d").partition("_d")
    which = {"mu": 1, "sigma": 2}[argument]
    if function == "x":
        return np.asarray(bmrs_core.log_quantile_grad(u, mu, sigma, **bounds)[which])
    return np.asarray(_GRADIENTS[function](mu, sigma, **bounds)[which])


@cache
def cached_answer(domain: str, precision: str, column: str) -> Array:
    """As `answer`, computed once per process: several tests look at the same columns.

    The tables' extreme rows overflow to inf and underflow to 0; anything invalid still warns.
    """
    with np.errstate(over="ignore", under="ignore"):
        return answer(load(domain, precision), column)
