"""Reference tables of correctly rounded values: loading them, and scoring answers against them.

An error is relative and counted in units of the precision's machine epsilon. Where a table knows the
condition number κ of a
value, the error is divided by max(1, κ): rounding the inputs alone moves the value that much.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

TRUTH_FOLDER = Path(__file__).resolve().parent.parent / "truth"
DOMAINS = ("training", "hostile", "training_f32", "hostile_f32")


@dataclass(frozen=True)
class Quantity:
    """One column of the tables, with the largest error it may have.

    ``worst`` bounds every scored row and ``p99`` the 99th percentile; None: no bound of that kind. ``sign``
    asks for the right
    sign in every row, which is what a pruning decision rests on.
    """

    name: str
    column: str
    kappa: str | None = None
    worst: float | None = None
    p99: float | None = None
    sign: bool = False


# Bounds on a 99th percentile, and on the worst row of the first seven and of ∂KL/∂σ, are what the package
# promises. The other bounds on the worst row are four times the worst seen: more is a change for the worse.
QUANTITIES = (
    Quantity("log Z", "logZ", "logZ", worst=4),
    Quantity("KL", "KL", "KL", worst=4),
    Quantity("E[θ]", "E", "E", worst=4),
    Quantity("log E[θ]", "logE", "logE", worst=4),
    Quantity("SNR", "SNR", "SNR", worst=16),
    Quantity("x(u)", "x_u", "x", worst=16),
    Quantity("θ(u)", "theta_u", "theta", worst=16),
    Quantity("Var[θ]", "Var", p99=8),
    Quantity("∂log Z/∂μ", "dlogZ_dmu", "dlogZ_dmu", p99=32, worst=12),
    Quantity("∂log Z/∂σ", "dlogZ_dsigma", "dlogZ_dsigma", p99=32, worst=12),
    Quantity("∂KL/∂μ", "dKL_dmu", "dKL_dmu", p99=32, worst=12),
    Quantity("∂KL/∂σ", "dKL_dsigma", worst=8),
    Quantity("∂log E/∂μ", "dlogE_dmu", p99=4, worst=16),
    Quantity("∂log E/∂σ", "dlogE_dsigma", "dlogE_dsigma", worst=8),
    Quantity("∂x/∂μ", "dx_dmu", "dx_dmu", p99=32, worst=16),
    Quantity("∂x/∂σ", "dx_dsigma", "dx_dsigma", p99=32, worst=32),
    Quantity("log mass", "log_mass", "log_mass", worst=4),
    Quantity("ΔF_N", "dF_N", "dF_N", worst=24, sign=True),
    Quantity("ΔF_U", "dF_U", "dF_U", worst=32, sign=True),
)
VARIANCE_BY_ITS_PARTS = Quantity("Var[θ]", "Var", "Var", worst=8)
"""The variance is (E/SNR)²: its worst rows are those where E or SNR themselves are ill-conditioned."""


@dataclass(frozen=True)
class Table:
    """A reference table read in one precision: inputs of that precision, truth in float64."""

    domain: str
    dtype: np.dtype[Any]
    columns: Mapping[str, Array]

    @property
    def name(self) -> str:
        """The domain and the precision that computes on it, as a heading."""
        return f"{self.domain} in f{8 * self.dtype.itemsize}"

    def inputs(self, *names: str) -> list[Array]:
        """The named inputs in the table's precision."""
        return [self.columns[f"in_{name}"].astype(self.dtype) for name in names]

    def truth(self, column: str) -> Array:
        """The correctly rounded values of a column, in float64."""
        return self.columns[f"out_{column}"]

    def scored(self, column: str) -> Array:
        """Which rows hold a normal number in the table's precision."""
        return np.asarray(self.columns[f"flag{8 * self.dtype.itemsize}_{column}"] == 0)

    def condition(self, kappa: str | None) -> Array:
        """max(1, κ), or 1 where the table knows no condition number."""
        if kappa is None:
            return np.ones(len(self.columns["tag"]))
        if kappa in _DERIVED:
            return _DERIVED[kappa](self)
        return np.maximum(1.0, self.columns[f"kappa_{kappa}"].astype(np.float64))


def _condition_of_log_mean(table: Table) -> Array:
    """An error of E is an absolute error of log E, which is divided by |log E| here."""
    with np.errstate(divide="ignore"):
        return np.maximum(1.0, table.condition("E") / np.abs(table.truth("logE")))


def _condition_of_log_mean_by_sigma(table: Table) -> Array:
    """∂log E/∂σ is a difference of second moments over σ, good to eps/σ in absolute value."""
    sigma = table.columns["in_sigma"].astype(np.float64)
    with np.errstate(divide="ignore"):
        return np.asarray(1.0 + 1.0 / (sigma * np.abs(table.truth("dlogE_dsigma"))))


def _condition_of_variance(table: Table) -> Array:
    """Var = (E/SNR)²."""
    parts = table.columns["kappa_E"].astype(np.float64) + table.columns["kappa_SNR"]
    return np.maximum(1.0, 2.0 * parts)


_DERIVED = {
    "logE": _condition_of_log_mean,
    "dlogE_dsigma": _condition_of_log_mean_by_sigma,
    "Var": _condition_of_variance,
}


@cache
def load(domain: str, precision: str) -> Table:
    """Read one table, to be computed on in ``"float32"`` or ``"float64"``."""
    with np.load(TRUTH_FOLDER / f"{domain}.npz") as archive:
        return Table(domain, np.dtype(precision), {name: archive[name] for name in archive.files})


def tables() -> list[Table]:
    """All four domains in their own precision, and the float32 domains computed in float64 as well."""
    native = [load(domain, "float32" if domain.endswith("f32") else "float64") for domain in DOMAINS]
    return native + [load(domain, "float64") for domain in DOMAINS if domain.endswith("f32")]


@dataclass(frozen=True)
class Score:
    """How one column of answers does: errors in eps·max(1, κ), counts in rows."""

    rows: int
    not_finite: int
    wrong_signs: int
    median: float
    p99: float
    worst: float


def errors_in_eps(table: Table, quantity: Quantity, computed: Array) -> Array:
    """Relative errors of the scored rows, in eps·max(1, κ). Never NaN: a non-finite answer scores inf."""
    rows = table.scored(quantity.column)
    truth = table.truth(quantity.column)[rows]
    answer = np.asarray(computed, dtype=np.float64)[rows]
    finite = np.isfinite(answer)
    relative = np.full(truth.shape, np.inf)
    with np.errstate(over="ignore"):  # an answer of the wrong order of magnitude may score inf
        relative[finite] = np.abs((answer[finite] - truth[finite]) / truth[finite])
    return relative / (float(np.finfo(table.dtype).eps) * table.condition(quantity.kappa)[rows])


def score(table: Table, quantity: Quantity, computed: Array) -> Score:
    """Score the answers to one column; a non-finite answer has a wrong sign too."""
    rows = table.scored(quantity.column)
    answer = np.asarray(computed, dtype=np.float64)[rows]
    finite = np.isfinite(answer)
    right = finite & (np.sign(answer) == np.sign(table.truth(quantity.column)[rows]))
    errors = errors_in_eps(table, quantity, computed)
    return Score(
        rows=len(errors),
        not_finite=int(np.count_nonzero(~finite)),
        wrong_signs=int(np.count_nonzero(~right)),
        median=float(np.quantile(errors, 0.5, method="higher")),
        p99=float(np.quantile(errors, 0.99, method="higher")),
        worst=float(errors.max()),
    )
