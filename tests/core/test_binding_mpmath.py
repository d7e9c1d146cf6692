"""The same texts in 50 digits: what is left of an error there is the formula's, not the arithmetic's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mpmath import MPContext

from bmrs_core.backends.clone import clone_formulas, scalar_constants
from bmrs_core.backends.formula import FORMULAS
from bmrs_core.formulas.constants import EXACT, FLOAT64_RULES
from tests.core.truth_tables import load

mp = MPContext()
mp.dps = 50


def real(function: Any) -> Any:
    """A real function that is NaN outside its domain, where `where` discards it."""

    def call(x: Any) -> Any:
        return function(x) if x > 0 else -mp.inf if x == 0 and function is mp.log else mp.nan

    return call


def exact_mills(z: Any) -> Any:
    """Mills' ratio: by the error function, far out by its continued fraction."""
    if z < 50:
        return mp.sqrt(mp.pi / 2) * mp.exp(z * z / 2) * mp.erfc(z / mp.sqrt(2))
    tail = mp.mpf(0)
    for k in range(80, 0, -1):
        tail = k / (z + tail)
    return 1 / (z + tail)


def exact_excess(z: Any) -> Any:
    """1 - z R(z); 1/z^2 of it cancels, hence the working precision."""
    with mp.workdps(50 + int(4 * mp.log10(z + 2))):
        return 1 - z * exact_mills(z)


def exact_upper_quantile(p: Any) -> Any:
    depth = -mp.log(p)
    z = mp.sqrt(2 * max(depth - 1, mp.mpf(0.1)))
    for _ in range(60):
        ratio = exact_mills(z)
        step = (mp.log(ratio) - z * z / 2 - mp.log(2 * mp.pi) / 2 + depth) * ratio
        z += step
        if abs(step) < mp.mpf(10) ** -45:
            break
    return z


def texts() -> dict[str, Any]:
    primitives = {
        "absolute": abs,
        "decay": mp.exp,
        "exp": mp.exp,
        "expm1": mp.expm1,
        "log": real(mp.log),
        "log1p": lambda x: mp.log1p(x) if x > -1 else mp.nan,
        "maximum": max,
        "minimum": min,
        "sqrt": lambda x: mp.sqrt(x) if x >= 0 else mp.nan,
        "where": lambda condition, x, y: x if condition else y,
    }
    names = {"mpf": mp.mpf, "pi": mp.pi, "log": mp.log, "sqrt": mp.sqrt}
    scalars = {name: mp.mpf(value) for name, value in scalar_constants().items()}
    scalars |= {name: eval(expression, names) for name, expression in EXACT.items()}
    exact = {"mills": exact_mills, "mills_excess": exact_excess, "upper_quantile": exact_upper_quantile}

    def decorate(text: Any) -> Any:
        return exact.get(text.__name__, text)

    return clone_formulas(primitives, scalars, exact_rules(), decorate, __name__)


def exact_rules() -> dict[str, Any]:
    """The quadrature rule of the float64 backends with nodes in 50 digits, found by Newton's iteration."""
    rules: dict[str, Any] = dict(FLOAT64_RULES)
    count = rules["MANY"]
    nodes, weights = [], []
    for guess in rules["MANY_T"]:
        x = 2 * mp.mpf(guess) - 1
        for _ in range(4):
            before, value = mp.mpf(1), x
            for k in range(2, count + 1):
                before, value = value, ((2 * k - 1) * x * value - (k - 1) * before) / k
            slope = count * (x * value - before) / (x * x - 1)
            x -= value / slope
        nodes.append((1 + x) / 2)
        weights.append(1 / ((1 - x * x) * slope**2))
    rules |= {"MANY_T": nodes, "MANY_TC": nodes[::-1], "MANY_W": weights}
    rules |= {"MANY_CUT": mp.mpf(47), "MANY_REACH": mp.sqrt(94)}
    return rules


@pytest.fixture(scope="module")
def in_50_digits() -> dict[str, Any]:
    bound = texts()

    def combined(name: str) -> Any:
        formula = FORMULAS[name]

        def evaluate(*inputs: Any) -> Any:
            text = formula.base
            for regime in formula.regimes:
                text = f"{name}_{regime}" if bound[f"{name}_is_{regime}"](*inputs) else text
            return bound[text](*inputs)

        return evaluate

    def delta_f_normal(mu: Any, sigma: Any, mu_p: Any, sigma_p: Any, a: Any, b: Any) -> Any:
        prior = bound["reduced_prior"](mu_p, sigma_p, a, b)
        return combined("delta_f_normal")(mu, sigma, mu_p, sigma_p, *prior, a, b)

    return {name: combined(name) for name in FORMULAS} | {"delta_f_normal": delta_f_normal}


COLUMNS = {
    "log_normalizer": ("logZ", ("mu", "sigma", "a", "b")),
    "kl_divergence": ("KL", ("mu", "sigma", "a", "b")),
    "mean": ("E", ("mu", "sigma", "a", "b")),
    "log_mean": ("logE", ("mu", "sigma", "a", "b")),
    "variance": ("Var", ("mu", "sigma", "a", "b")),
    "snr": ("SNR", ("mu", "sigma", "a", "b")),
    "quantile": ("theta_u", ("u", "mu", "sigma", "a", "b")),
    "log_quantile": ("x_u", ("u", "mu", "sigma", "a", "b")),
    "log_mass": ("log_mass", ("a2", "b2", "mu", "sigma", "a", "b")),
    "delta_f_normal": ("dF_N", ("mu", "sigma", "a", "sp", "a", "b")),
    "delta_f_uniform": ("dF_U", ("mu", "sigma", "a2", "b2", "a", "b")),
}

# The tables are rounded to 1.1e-16 and the quadrature rules truncate at about 1e-17 of an integral, which is
# an absolute error of a logarithm near 0 (ΔF next to the rule); a wrong formula misses by far more.
RELATIVE = 2e-15
ABSOLUTE = 1e-17


@pytest.mark.parametrize("domain", ["training", "hostile"])
@pytest.mark.parametrize("name", COLUMNS)
def test_in_50_digits_only_the_rounding_of_the_table_is_left(
    name: str, domain: str, in_50_digits: dict[str, Any]
) -> None:
    column, inputs = COLUMNS[name]
    table = load(domain, "float64")
    truth = table.columns[f"out_{column}"]
    rows = np.flatnonzero(np.isfinite(truth) & (abs(truth) > 1e-300))
    for row in rows[:: len(rows) // 30]:
        arguments = [mp.mpf(float(table.columns[f"in_{key}"][row])) for key in inputs]
        expected = mp.mpf(float(truth[row]))
        error = abs(in_50_digits[name](*arguments) - expected)
        assert error < RELATIVE * abs(expected) + ABSOLUTE * (column.startswith("dF")), (row, arguments)
