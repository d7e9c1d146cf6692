"""Adds to the tables the condition numbers of derivatives, of log masses and of ΔF.

κ = Σ |p ∂f/∂p| / |f| over the inputs p that a value f depends on, by forward differences in 420 decimal
digits: a step of 1e-60 leaves differences that are exact for the purpose. Each value is first compared with
the table's own, so this is a second derivation of those columns too. Needed only when the tables change, and
takes an hour (with gmpy2 installed, ten minutes): ``python tests/truth/condition_numbers.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mpmath import MPContext
from numpy.typing import NDArray

mp = MPContext()  # a context of its own: importing this file leaves other users' precision alone
mp.dps = 420
STEP = mp.mpf(10) ** -60
ROOT2, ROOT2PI = mp.sqrt(2), mp.sqrt(2 * mp.pi)
AGREEMENT = 1e-14  # the table rounds to 1.1e-16; anything above that is a different formula, not a rounding

INPUTS = ("a", "b", "mu", "sigma", "u", "a2", "b2", "sp")

Values = dict[str, Any]


def phi(t: Any) -> Any:
    return mp.exp(-t * t / 2) / ROOT2PI


def upper_tail(t: Any) -> Any:
    return mp.erfc(t / ROOT2) / 2


def mass_between(alpha: Any, beta: Any) -> Any:
    """Φ(β) − Φ(α), subtracted in the tail it lies in."""
    if alpha > 0:
        return upper_tail(alpha) - upper_tail(beta)
    if beta < 0:
        return upper_tail(-beta) - upper_tail(-alpha)
    return 1 - upper_tail(-alpha) - upper_tail(beta)


def moment_values(a: Any, b: Any, mu: Any, sigma: Any) -> Values:
    """Derivatives of log Z and KL from the raw moments of the standardised variable."""
    alpha, beta = (a - mu) / sigma, (b - mu) / sigma
    left, right, mass = phi(alpha), phi(beta), mass_between(alpha, beta)
    first = (left - right) / mass
    second_less_one = (alpha * left - beta * right) / mass
    third = 2 * first + (alpha**2 * left - beta**2 * right) / mass
    covariance = third - first * (1 + second_less_one)
    return {
        "dlogZ_dmu": first / sigma,
        "dlogZ_dsigma": second_less_one / sigma,
        "dKL_dmu": -covariance / (2 * sigma),
    }


def interval_values(a: Any, b: Any, mu: Any, sigma: Any, a2: Any, b2: Any) -> Values:
    """The log mass of [a2, b2] and ΔF_U (Eq. 10)."""
    part = mass_between((a2 - mu) / sigma, (b2 - mu) / sigma)
    log_mass = mp.log(part / mass_between((a - mu) / sigma, (b - mu) / sigma))
    return {"log_mass": log_mass, "dF_U": log_mass + mp.log((b - a) / (b2 - a2))}


def normal_values(a: Any, b: Any, mu: Any, sigma: Any, sp: Any) -> Values:
    """ΔF_N (Eq. 8), literally, with μ̃_p = a."""
    variance = 1 / (1 / sigma**2 + 1 / sp**2)
    centre, width = variance * (mu / sigma**2 + a / sp**2), mp.sqrt(variance)
    reduced = mass_between((a - centre) / width, (b - centre) / width)
    posterior = mass_between((a - mu) / sigma, (b - mu) / sigma)
    prior = mass_between(mp.mpf(0), (b - a) / sp)
    squares = mu**2 / sigma**2 + a**2 / sp**2 - centre**2 / variance
    scale = mp.log(variance / (2 * mp.pi * sp**2 * sigma**2))
    return {"dF_N": mp.log(reduced * (b - a) / (prior * posterior)) + scale / 2 - squares / 2}


def quantile_values(a: Any, b: Any, mu: Any, sigma: Any, u: Any, start: Any) -> Values:
    """Derivatives of the quantile at fixed u, with ξ found by Newton's method from ``start``."""
    alpha, beta = (a - mu) / sigma, (b - mu) / sigma
    if u in (0, 1):
        return {"dx_dmu": mp.mpf(0), "dx_dsigma": mp.mpf(0)}
    mass, x = mass_between(alpha, beta), start
    for _ in range(60):
        xi = (x - mu) / sigma
        below, above = mass_between(alpha, xi), mass_between(xi, beta)
        gap = above - (1 - u) * mass if u > 0.5 else u * mass - below
        step = sigma * gap / phi(xi)
        x = min(max(x + step, a + (x - a) / 2), b - (b - x) / 2)
        if abs(step) < min(x - a, b - x) * mp.mpf(10) ** -150:
            break
    else:
        raise ArithmeticError(f"no quantile found at {mp.nstr((a, b, mu, sigma, u), 17)}")
    xi = (x - mu) / sigma
    at_a, at_b = (1 - u) * phi(alpha) / phi(xi), u * phi(beta) / phi(xi)
    return {"x_u": x, "dx_dmu": 1 - at_a - at_b, "dx_dsigma": xi - alpha * at_a - beta * at_b}


def conditions(function: Callable[..., Values], inputs: list[Any], row: Values, **fixed: Any) -> Values:
    """κ of each value of ``function`` at one row, after comparing it with the table.

    ``fixed`` inputs are not moved.
    """
    base = function(*inputs, **fixed)
    base.pop("x_u", None)
    sums = dict.fromkeys(base, mp.mpf(0))
    for position, value in enumerate(inputs):
        if value == 0:
            continue
        moved = list(inputs)
        moved[position] = value * (1 + STEP)
        for name, changed in function(*moved, **fixed).items():
            if name in sums:
                sums[name] += abs((changed - base[name]) / STEP)
    for name, value in base.items():
        if row["flag64_" + name] == 0 and abs(value / mp.mpf(float(row["out_" + name])) - 1) > AGREEMENT:
            raise ArithmeticError(f"{name}: {mp.nstr(value, 17)} here, {row['out_' + name]!r} in the table")
    return {name: sums[name] / abs(base[name]) if base[name] else mp.mpf(0) for name in base}


def row_conditions(row: Values) -> Values:
    """κ of every value that is computed here, for one row of a table."""
    a, b, mu, sigma, u, a2, b2, sp = (
        mp.mpf(float(row["in_" + name])) for name in "a b mu sigma u a2 b2 sp".split()
    )
    support = [a, b, mu, sigma]
    found = conditions(moment_values, support, row)
    found |= conditions(interval_values, [*support, a2, b2], row)
    found |= conditions(normal_values, [*support, sp], row)
    start = mp.mpf(float(row["out_x_u"]))
    inside = min(max(start, a + (b - a) * mp.mpf(10) ** -30), b - (b - a) * mp.mpf(10) ** -30)
    if u not in (0, 1):
        inside = quantile_values(a, b, mu, sigma, u, inside)["x_u"]
    found |= conditions(quantile_values, [*support, u], row, start=inside)
    return found


def coarse(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Eight binary digits: a scale needs no more, and the rest would be most of the file."""
    mantissa, exponent = np.frexp(np.clip(values, 0.0, 1e38))
    return np.ldexp(np.round(mantissa * 256) / 256, exponent).astype(np.float32)


def add_to(path: Path) -> None:
    """Write the condition numbers into one table."""
    with np.load(path) as archive:
        columns = {name: archive[name] for name in archive.files}
    rows = [{name: columns[name][i] for name in columns} for i in range(len(columns["tag"]))]
    found = [row_conditions(row) for row in rows]
    for name in found[0]:
        columns["kappa_" + name] = coarse(np.array([float(item[name]) for item in found]))
    np.savez_compressed(path, **columns)


if __name__ == "__main__":
    for table in sorted(Path(__file__).parent.glob("*.npz")):
        add_to(table)
