"""The quantities of the tables as they are defined, in 420 decimal digits.

What cancels, cancels: digits enough are left. Derivatives come from moments of the standardised variable y.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from mpmath import MPContext

mp = MPContext()  # a context of its own: importing this file leaves other users' precision alone
mp.dps = 420
ROOT2, ROOT2PI = mp.sqrt(2), mp.sqrt(2 * mp.pi)

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


def log_of(mass: Any, rest: Any) -> Any:
    """log of a probability, from that of the rest where next to nothing is left out."""
    return mp.log1p(-rest) if rest < 0.5 else mp.log(mass)


def powers(alpha: Any, beta: Any, count: int) -> list[Any]:
    """E[y^k] for k = 0 … count, by parts: E[y^k] = (k − 1) E[y^(k − 2)] + [α^(k−1) φ(α) − β^(k−1) φ(β)]/Z."""
    left, right, mass = phi(alpha), phi(beta), mass_between(alpha, beta)
    found = [mp.mpf(1), (left - right) / mass]
    for k in range(2, count + 1):
        boundary = (alpha ** (k - 1) * left - beta ** (k - 1) * right) / mass
        found.append((k - 1) * found[k - 2] + boundary)
    return found


def support_values(a: Any, b: Any, mu: Any, sigma: Any) -> Values:
    """What depends on μ, σ and the support alone."""
    alpha, beta = (a - mu) / sigma, (b - mu) / sigma
    tilted = [mass_between(alpha - k * sigma, beta - k * sigma) for k in range(3)]
    first, second = (mp.exp(k * mu + (k * sigma) ** 2 / 2) * tilted[k] / tilted[0] for k in (1, 2))
    variance = second - first * first
    _, y, square, _, fourth = powers(alpha, beta, 4)
    _, y_tilted, square_tilted = powers(alpha - sigma, beta - sigma, 2)
    values = {
        "logZ": log_of(tilted[0], upper_tail(-alpha) + upper_tail(beta)),
        "KL": mp.log((b - a) / (sigma * mp.sqrt(2 * mp.pi) * tilted[0])) - square / 2,
        "E": first,
        "logE": mp.log(first),
        "Var": variance,
        "SNR": first / mp.sqrt(variance),
        "dKL_dsigma": -(fourth - square**2) / (2 * sigma),
        # Under θ q the standardised variable is σ + that of the tilted normal.
        "dlogE_dmu": (sigma + y_tilted - y) / sigma,
        "dlogE_dsigma": (sigma**2 + 2 * sigma * y_tilted + square_tilted - square) / sigma,
    }
    return values | moment_values(a, b, mu, sigma)


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
    ends = [(end - mu) / sigma for end in (a, a2, b2, b)]
    whole = mass_between(ends[0], ends[-1])
    below, part, above = (mass_between(*pair) / whole for pair in pairwise(ends))
    return {"log_mass": log_of(part, below + above), "dF_U": mp.log(part * (b - a) / (b2 - a2))}


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
    """The quantile, found by Newton's method from ``start``, and its derivatives at fixed u."""
    alpha, beta = (a - mu) / sigma, (b - mu) / sigma
    if u in (0, 1):
        return {"x_u": a if u == 0 else b, "dx_dmu": mp.mpf(0), "dx_dsigma": mp.mpf(0)}
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


def inputs(row: Values) -> list[Any]:
    """The inputs of a row in the order a, b, μ, σ, u, a2, b2, σ̃_p."""
    return [mp.mpf(float(row["in_" + name])) for name in "a b mu sigma u a2 b2 sp".split()]


def start_of(row: Values) -> Any:
    """Where Newton's method starts to look for the quantile: that of the table, away from the bounds."""
    a, b, *_ = inputs(row)
    edge = (b - a) * mp.mpf(10) ** -30
    return min(max(mp.mpf(float(row["out_x_u"])), a + edge), b - edge)


def row_values(row: Values) -> Values:
    """Every value of one row, by its column's name without ``out_``."""
    a, b, mu, sigma, u, a2, b2, sp = inputs(row)
    values = support_values(a, b, mu, sigma) | interval_values(a, b, mu, sigma, a2, b2)
    values |= normal_values(a, b, mu, sigma, sp) | quantile_values(a, b, mu, sigma, u, start_of(row))
    return values | {"theta_u": mp.exp(values["x_u"])}
