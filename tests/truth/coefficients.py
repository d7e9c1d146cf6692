"""Fits the polynomials and rationals of formulas and kernels again: ``python -m tests.truth.coefficients``.

It prints, of the coefficients in use and of those fitted again, the largest error in units of what the text
that uses them promises. Mills' ratio and the quadrature rules come out to the last bit; of the others the
arithmetic of the first fit isn't known to the bit, and theirs must be no better than those in use. Not fitted
but published: the inverse normal of `ndtri` (Wichura 1988) and the logarithm of fdlibm.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from scipy.special import log_ndtr, ndtri_exp

from bmrs_core.backends import numba_elementary
from bmrs_core.formulas import flat_divergence, mills, noise, quantile, short_support
from bmrs_kernels.cpu import float32
from tests.truth.approximation import (
    chebyshev_surface,
    chebyshev_truncated,
    mp,
    reweighted,
    smallest_worst,
    spread,
)

__all__ = ["FITS", "Fit", "gauss_legendre"]

Coefficients = Mapping[str, Any]
KERNELS = Path(float32.__file__).parents[1]


@dataclass(frozen=True)
class Fit:
    """Coefficients in use, how they are made, and their largest error in units of what is promised."""

    name: str
    stored: Coefficients
    make: Callable[[], Coefficients]
    error: Callable[[Coefficients], float]
    to_the_bit: bool = False

    def again(self) -> Coefficients:
        """The coefficients made again, rounded as those in use are."""
        made = self.make()
        return {name: type(value)(float(made[name])) for name, value in self.stored.items()}


def named(module: ModuleType, names: list[str]) -> Coefficients:
    return {name: getattr(module, name) for name in names}


def in_float32(coefficients: Coefficients) -> Coefficients:
    return {name: np.float32(value) for name, value in coefficients.items()}


def numbered(prefix: str, values: list[Any], start: int = 0) -> dict[str, Any]:
    return {f"{prefix}{k}": value for k, value in enumerate(values, start)}


def polynomial(coefficients: Coefficients, x: Any) -> Any:
    """Σ c_k x^k of coefficients in their order."""
    return mp.polyval([mp.mpf(float(c)) for c in reversed(list(coefficients.values()))], x)


def mills_ratio(z: Any) -> Any:
    """R(z), far out by its continued fraction, in more digits than its excess loses."""
    with mp.workdps(120):
        if z < 40:
            return mp.sqrt(mp.pi / 2) * mp.exp(z * z / 2) * mp.erfc(z / mp.sqrt(2))
        tail = mp.mpf(0)
        for k in range(300, 0, -1):
            tail = k / (z + tail)
        return 1 / (z + tail)


def z_of(s: Any) -> Any:
    return mills.S_CENTRE * (1 + s) / (1 - s)


def scaled_mills(s: Any) -> Any:
    return (1 + z_of(s)) * mills_ratio(z_of(s))


def scaled_excess(s: Any) -> Any:
    z = z_of(s)
    with mp.workdps(120):
        return (1 + z) ** 2 * (1 - z * mills_ratio(z))


def of_mills(name: str, prefix: str, degree: int, function: Callable[[Any], Any], promised: float) -> Fit:
    names = [f"{prefix}{k}" for k in range(degree + 1)]
    ends = (mp.mpf(-1), mp.mpf(1))

    def error(coefficients: Coefficients) -> float:
        inner = spread(mp.mpf(-1), mp.mpf("0.999"), 40)
        return max(float(abs(polynomial(coefficients, s) / function(s) - 1)) for s in inner) / promised

    return Fit(
        name,
        named(mills, names),
        lambda: numbered(prefix, chebyshev_truncated(function, *ends, 44, degree)),
        error,
        to_the_bit=True,
    )


SERIES = 60


@cache
def tilted_means(q: Any, flat: bool) -> list[Any]:
    """E[t^2k exp(-q t^2)] of t uniform in [-1, 1], with t^2 - 1/3 in the exponent where `flat`."""
    factor = mp.exp(q / 3) if flat else mp.mpf(1)
    powers = [(-q) ** j / mp.factorial(j) for j in range(SERIES)]
    return [factor * sum(p / (2 * k + 2 * j + 1) for j, p in enumerate(powers)) for k in range(SERIES)]


def by_slope(s: Any, terms: list[Any]) -> Any:
    """Σ s^(k-1)/(2k)! terms_k for k > 0."""
    return sum(s ** (k - 1) / mp.factorial(2 * k) * term for k, term in enumerate(terms) if k > 0)


def short_mean(s: Any, q: Any) -> Any:
    return by_slope(s, tilted_means(q, False))


def short_curvature(q: Any) -> Any:
    return (tilted_means(q, False)[0] - 1) / q


def flat_mean(s: Any, q: Any) -> Any:
    return by_slope(s, tilted_means(q, True))


def flat_curvature(q: Any) -> Any:
    return (tilted_means(q, True)[0] - 1) / q**2


def weighted_mean(s: Any, q: Any) -> Any:
    """E[f e^f], which is p d/dp + q d/dq of E[e^f], less what is left of it at s = 0, over s."""
    means = tilted_means(q, True)
    pairs = pairwise(means)
    return by_slope(s, [2 * k * mean - q * (after - mean / 3) for k, (mean, after) in enumerate(pairs)])


def weighted_curvature(q: Any) -> Any:
    means = tilted_means(q, True)
    return -(means[1] - means[0] / 3) / q


def of_two_variables(
    name: str,
    module: ModuleType,
    prefix: str,
    surface: tuple[Callable[[Any, Any], Any], Callable[[Any], Any]],
    ends: tuple[Any, Any],
    cuts: tuple[int, float, float],
    promised: Callable[[Any, Any, Any], Any],
) -> Fit:
    """s a(s, q) + q^n b(q), named as the texts name it: `short_support` counts s from 1, with b at s^0."""
    a, b = surface
    short = module is short_support
    count, cut, cut_b = cuts

    def surface_name(j: int, i: int) -> str:
        return f"{prefix}{j}_{i + short}"

    def edge_name(j: int) -> str:
        return f"{prefix}{j + 1}_0" if short else f"{prefix}{j}"

    stored = {
        key: value
        for key, value in vars(module).items()
        if key.startswith(prefix) and key[1:].replace("_", "").isdigit()
    }

    def make() -> Coefficients:
        rows = chebyshev_surface(a, *ends, count, cut)
        edge = chebyshev_surface(lambda _, q: b(q), *ends, count, cut_b)
        found = {surface_name(j, i): value for j, row in enumerate(rows) for i, value in enumerate(row)}
        found |= {edge_name(j): row[0] for j, row in enumerate(edge)}
        unused = {key for key, value in found.items() if key not in stored and abs(value) > 1e-30}
        if unused:
            raise ArithmeticError(f"{name} has terms that the text leaves out: {sorted(unused)}")
        return found

    def error(coefficients: Coefficients) -> float:
        worst = 0.0
        for s in spread(mp.mpf(0), ends[0], 9):
            for q in spread(mp.mpf(0), ends[1], 9):
                exact = s * a(s, q) + q ** (1 if short else 2) * b(q)
                total = mp.mpf(0)
                for j in range(count):
                    for i in range(count):
                        total += mp.mpf(coefficients.get(surface_name(j, i), 0.0)) * s ** (i + 1) * q**j
                    total += mp.mpf(coefficients.get(edge_name(j), 0.0)) * q ** (j + (1 if short else 2))
                worst = max(worst, float(abs(total - exact) / promised(s, q, exact)))
        return worst

    return Fit(name, stored, make, error)


def of_one_variable(
    name: str,
    stored: Coefficients,
    function: Callable[[Any], Any],
    weight: Callable[[Any], Any],
    interval: tuple[Any, Any],
    promised: float,
) -> Fit:
    """Σ c_k x^k with the smallest largest error times `weight`."""
    low, high = (mp.mpf(end) for end in interval)

    def make() -> Coefficients:
        found = smallest_worst(function, weight, low, high, len(stored))
        return dict(zip(stored, found, strict=True))

    def error(coefficients: Coefficients) -> float:
        return (
            max(
                float(abs((polynomial(coefficients, x) - function(x)) * weight(x)))
                for x in spread(low, high, 301)
            )
            / promised
        )

    return Fit(name, stored, make, error)


def horner_literals(path: Path, function: str) -> list[float]:
    """The coefficients in the lines ``p = ...`` of a function's text, that of the lowest power first."""
    body = path.read_text(encoding="utf-8").split(f"def {function}(")[1].split("return")[0]
    lines = "".join(line for line in body.splitlines() if line.strip().startswith("p = "))
    found = re.findall(r"([-+]?) ?(\d\.\d{8,}(?:e-\d+)?)", lines)
    return [float(sign + digits) for sign, digits in found[::-1]]


def exponential(r: Any) -> Any:
    """(e^r - 1 - r)/r^2."""
    return mp.hyp1f1(1, 3, r) / 2


def log_rest(f: Any) -> Any:
    """(log(1 + f) - f)/f^2."""
    return -mp.hyp2f1(1, 2, 3, -f) / 2


def log_rest_less(f: Any) -> Any:
    """(log(1 + f) - f + f^2/2)/f^3."""
    return mp.hyp2f1(1, 3, 4, -f) / 3


def log_scaled_mills(r: Any) -> Any:
    """log(z R(z))/r at z = 1/sqrt(r); -1 at r = 0."""
    z = 1 / mp.sqrt(r)
    return mp.log(z * mills_ratio(z)) / r


HALF_LOG_2 = (-0.34657359027997264, 0.34657359027997264)
ROOTS_OF_2 = (-0.2928932188134524, 0.41421356237309515)


def float32_inverse_normal() -> Fit:
    """z(s), s = sqrt(-2 log(1 - Phi(z))), as a rational of degree 4 over 3, in units of 1.1e-7 max(z, 1/2).

    4.2e-8 is what the coefficients reach before they are rounded to float32.
    """
    names = [f"ZN{k}" for k in range(5)] + [f"ZD{k}" for k in range(1, 4)]
    s = 4.785 + 3.615 * np.cos(np.pi * (np.arange(2000) + 0.5) / 2000)
    exact = -ndtri_exp(-0.5 * s * s)
    weight = 1.0 / np.maximum(exact, 0.5)
    above, below = np.vander(s, 5, increasing=True), np.vander(s, 4, increasing=True)[:, 1:]

    def make() -> Coefficients:
        denominator = np.ones_like(s)
        for _ in range(12):
            # Linear in the coefficients once divided by the denominator of the round before.
            columns = np.column_stack([above, -exact[:, None] * below]) / denominator[:, None]
            found = reweighted(columns, exact / denominator, weight)
            denominator = 1.0 + below @ found[5:]
        return dict(zip(names, found, strict=True))

    def error(coefficients: Coefficients) -> float:
        c = np.array([float(coefficients[name]) for name in names])
        return float(np.max(np.abs(above @ c[:5] / (1.0 + below @ c[5:]) - exact) * weight)) / 1.1e-7

    return Fit("inverse normal, float32", in_float32(named(noise, names)), make, error)


def guess_of_tails() -> Fit:
    """The polynomial of `quantile.tail_guess`, in units of what one step mends: 7e-4, 1e-3 far out."""
    names = [f"G{i}_{j}" for i in range(4) for j in range(3)]
    lower = np.concatenate([[0.0], np.geomspace(1e-3, 300.0, 150)])[:, None]
    y = np.geomspace(0.06, 692.0, 200)[None, :]
    log_near = log_ndtr(-lower)
    t = -ndtri_exp(log_near - y) - lower
    near = np.exp(log_near + 0.5 * lower**2 + 0.5 * math.log(2 * math.pi))
    growth = np.array([float(1 - z * mills_ratio(mp.mpf(z))) for z in lower.ravel()])[:, None]
    root = np.sqrt(1 + 2 * growth * y)
    r = (root - 1) / (1 + root)
    first = 2 * y * near / (1 + root)
    allowed = np.where(y < 36.0, 7e-4, 1e-3)
    columns = np.stack([first / t * growth * r * growth**i * r**j for i in range(4) for j in range(3)], -1)
    flat, weight = columns.reshape(-1, len(names)), np.broadcast_to(1 / allowed, t.shape).ravel()
    target = (first / t - 1).ravel()

    def make() -> Coefficients:
        return dict(zip(names, reweighted(flat, target, weight), strict=True))

    def error(coefficients: Coefficients) -> float:
        c = np.array([float(coefficients[name]) for name in names])
        return float(np.max(np.abs(flat @ c - target) * weight))

    return Fit("first guess in tails", named(quantile, names), make, error)


def gauss_legendre(count: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Nodes and weights on [0, 1], by Newton's iteration on the Legendre recurrence."""
    nodes_found, weights = [], []
    for k in range(count, 0, -1):
        x = mp.cos(mp.pi * (k - mp.mpf(1) / 4) / (count + mp.mpf(1) / 2))
        for _ in range(8):
            before, value = mp.mpf(1), x
            for n in range(2, count + 1):
                before, value = value, ((2 * n - 1) * x * value - (n - 1) * before) / n
            slope = count * (x * value - before) / (x * x - 1)
            x -= value / slope
        nodes_found.append(float((1 + x) / 2))
        weights.append(float(1 / ((1 - x * x) * slope**2)))
    return tuple(nodes_found), tuple(weights)


def of_short(s: Any, q: Any, _exact: Any) -> Any:
    return 2e-16 * max(s / 6, q / 3)


def of_flat(_s: Any, _q: Any, exact: Any) -> Any:
    return 1.6e-16 * exact


SHORT_ENDS = (mp.mpf(1) / 4, mp.mpf(9) / 32)
FLAT_ENDS = (mp.mpf(81) / 16, mp.mpf(2))
EXP_FLOAT32 = {"E2": float32.E2, **{f"E{k}": getattr(float32, f"E{k}") for k in range(3, 8)}}

FITS = (
    of_mills("Mills' ratio", "M", 23, scaled_mills, 1e-16),
    of_mills("excess of Mills' ratio", "X", 25, scaled_excess, 1e-16),
    of_two_variables(
        "short support",
        short_support,
        "S",
        (short_mean, short_curvature),
        SHORT_ENDS,
        (16, 3e-17, 3e-17),
        of_short,
    ),
    of_two_variables(
        "flat divergence, A",
        flat_divergence,
        "A",
        (flat_mean, flat_curvature),
        FLAT_ENDS,
        (24, 1e-17, 4e-18),
        of_flat,
    ),
    of_two_variables(
        "flat divergence, B",
        flat_divergence,
        "B",
        (weighted_mean, weighted_curvature),
        FLAT_ENDS,
        (24, 1e-17, 4e-18),
        of_flat,
    ),
    of_one_variable(
        "exp, float64",
        numbered("p", horner_literals(Path(numba_elementary.__file__), "_exp_tail")),
        exponential,
        lambda r: r * r / mp.exp(r),
        HALF_LOG_2,
        1.1e-17,
    ),
    of_one_variable("exp, float32", EXP_FLOAT32, exponential, lambda r: r * r / mp.exp(r), HALF_LOG_2, 1e-8),
    of_one_variable(
        "log, float32",
        named(float32, [f"L{k}" for k in range(3, 11)]),
        log_rest_less,
        lambda f: abs(f) ** 3,
        ROOTS_OF_2,
        1e-8,
    ),
    of_one_variable(
        "log of a tail, float32",
        numbered(
            "p", [np.float32(c) for c in horner_literals(KERNELS / "gpu" / "formulas.py", "log_of_tail")]
        ),
        log_rest,
        lambda f: f * f,
        ROOTS_OF_2,
        3.9e-8,
    ),
    of_one_variable(
        "logarithm of tails, float32",
        in_float32(named(noise, [f"SM{k}" for k in range(1, 9)])),
        log_scaled_mills,
        lambda _: mp.mpf(1),
        (0.0, 1 / 9),
        2.2e-7,
    ),
    float32_inverse_normal(),
    guess_of_tails(),
)


def main() -> None:
    """Print what the coefficients in use reach and what those made again do."""
    print("largest error in units of what is promised: in use, made again; coefficients that are the same")  # noqa: T201
    for fit in FITS:
        again = fit.again()
        same = sum(fit.stored[name] == value for name, value in again.items())
        print(f"{fit.name}: {fit.error(fit.stored):.3f}, {fit.error(again):.3f}; {same} of {len(again)}")  # noqa: T201


if __name__ == "__main__":
    main()
