"""Errors on the reference tables, beside SciPy's and those of the formulas as printed: markdown tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.arrays import naive
from tests.core.accuracy_table import lines
from tests.core.table_answers import cached_answer
from tests.core.truth_tables import QUANTITIES, Quantity, Table, errors_in_eps, load, score, tables

Array = NDArray[Any]
Answer = Callable[[Table, str], Array | None]

# Relative errors beyond these are called wrong: no digit count of a decision or of a loss would forgive them.
WRONG = {"float64": 1e-6, "float32": 1e-2}
# Errors up to this many eps·κ are left to the conditioning of the row.
EXPLAINED = 100.0
COMPARED = ("logZ", "KL", "E", "SNR", "theta_u", "dF_N", "dF_U")


@np.errstate(all="ignore")
def printed(table: Table, column: str) -> Array | None:
    """Take the paper's formulas literally."""
    log_a, log_b, mu, sigma, u = table.inputs("a", "b", "mu", "sigma", "u")
    lower, upper, sigma_p = table.inputs("a2", "b2", "sp")
    bounds = {"log_a": log_a, "log_b": log_b}
    elementwise = {
        "logZ": naive.log_normalizer,
        "KL": naive.kl_divergence,
        "E": naive.mean,
        "SNR": naive.snr,
    }
    if column in elementwise:
        return elementwise[column](mu, sigma, **bounds)
    if column == "theta_u":
        return naive.quantile(u, mu, sigma, **bounds)
    if column == "dF_N":
        return naive.delta_f_normal(mu, sigma, sigma_p=sigma_p, **bounds)
    return naive.delta_f_uniform(mu, sigma, log_a_reduced=lower, log_b_reduced=upper, **bounds)


@np.errstate(all="ignore")
def truncnorm(table: Table, column: str) -> Array | None:
    """Ask the public methods of ``scipy.stats.truncnorm``; None where there is none."""
    log_a, log_b, mu, sigma, u = table.inputs("a", "b", "mu", "sigma", "u")
    lower, upper = table.inputs("a2", "b2")
    alpha, beta = (log_a - mu) / sigma, (log_b - mu) / sigma
    frozen = stats.truncnorm(alpha, beta, loc=mu, scale=sigma)
    if column == "KL":
        return np.asarray(np.log(log_b - log_a) - frozen.entropy())
    if column == "theta_u":
        return np.asarray(np.exp(frozen.ppf(u)))
    if column == "dF_U":
        ratio = np.log((log_b - log_a) / (upper - lower))
        return np.asarray(ratio + np.log(frozen.cdf(upper) - frozen.cdf(lower)))
    return None


def ours(table: Table, column: str) -> Array | None:
    """Ask this package."""
    return cached_answer(table.domain, table.dtype.name, column)


RIVALS: tuple[tuple[str, str, str, Answer], ...] = (
    ("bmrs_core, f64", "training", "float64", ours),
    ("bmrs_core, f32", "training_f32", "float32", ours),
    ("scipy truncnorm, f64", "training", "float64", truncnorm),
    ("as printed, f64", "training", "float64", printed),
    ("as printed, f32", "training_f32", "float32", printed),
)


def wrong_cell(table: Table, quantity: Quantity, computed: Array | None) -> str:
    """Per cent of rows not finite; wrong. For ΔF, in brackets, per cent of wrong decisions."""
    if computed is None:
        return "–"
    rows = table.scored(quantity.column)
    limit = WRONG[table.dtype.name] / float(np.finfo(table.dtype).eps)
    explained = EXPLAINED * table.condition(quantity.kappa)[rows]
    # As a relative error, but an error that rounding the inputs would cause as well is nobody's fault.
    relative = errors_in_eps(table, replace(quantity, kappa=None), computed)
    wrong = int(np.count_nonzero(relative > np.maximum(limit, explained)))
    not_finite = int(np.count_nonzero(~np.isfinite(computed[rows])))
    text = f"{percent(not_finite, len(relative))}; {percent(wrong, len(relative))}"
    if not quantity.sign:
        return text
    decisions = int(np.count_nonzero((computed >= 0)[rows] != (table.truth(quantity.column) >= 0)[rows]))
    return f"{text} ({percent(decisions, len(relative))})"


def percent(count: int, of: int) -> str:
    """Write a share that is 0 only if the count is."""
    share = 100.0 * count / of
    return "0" if count == 0 else f"{share:.1f}" if share < 10 else f"{share:.0f}"


def comparison() -> list[str]:
    """Compare the rivals on the training domain, one row each."""
    quantities = [quantity for quantity in QUANTITIES if quantity.column in COMPARED]
    rows = []
    for name, domain, precision, answer in RIVALS:
        table = load(domain, precision)
        cells = [wrong_cell(table, quantity, answer(table, quantity.column)) for quantity in quantities]
        rows.append("| " + " | ".join([name, *cells]) + " |")
    return [
        "Training domain, per cent of rows: not finite; relative error above 1e-6 (f64) or 1e-2 (f32)",
        "that conditioning does not explain; in brackets, wrong decisions ΔF ≥ 0; –, no such function.",
        "",
        "| " + " | ".join(["", *(quantity.name for quantity in quantities)]) + " |",
        "|---" * (1 + len(quantities)) + "|",
        *rows,
    ]


def report() -> list[str]:
    """Both tables."""
    scores = {
        (quantity.name, table.name): score(
            table, quantity, cached_answer(table.domain, table.dtype.name, quantity.column)
        )
        for quantity in QUANTITIES
        for table in tables()
    }
    return [*comparison(), "", *lines(scores)]
