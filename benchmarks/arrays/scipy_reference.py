"""The stable formulas as a NumPy and SciPy user would write them: a second opinion, and a rival in speed.

x = log θ is normal (μ, σ²) truncated to [a, b] in log units; α = (a − μ)/σ, β = (b − μ)/σ, w = (b − a)/σ.
Densities are measured from their largest value: ``_scaled_mass`` is I = ∫ exp((m² − y²)/2) dy over [α, β]
with m the point of [α, β] nearest to 0, so that log Z = log I − m²/2 − ½ log 2π and nothing overflows.

float64 only, and correct to rounding only over what a noise layer can reach (a = −20, b = 0, μ in [−40, 20],
log σ in [−20, 5]), where an interval that lies in a tail is at least as wide as it is far out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, erfcx, log_ndtr, ndtr, ndtri, ndtri_exp

Array = NDArray[np.float64]
Rows = NDArray[np.intp]

ROOT_HALF = np.sqrt(0.5)
ROOT_HALF_PI = np.sqrt(0.5 * np.pi)
LOG2 = float(np.log(2.0))
HALF_LOG_2PI = 0.5 * np.log(2.0 * np.pi)
ROOT_2PI = float(np.sqrt(2.0 * np.pi))
# The far end of an interval matters only if the density there is above e^−40 of that at the near end.
NOTHING = 40.0
# Twelve nodes leave no error of the rule above rounding while the exponent varies by less than 1.
NARROW = 1.0
NODES, WEIGHTS = (
    0.5 * (values + offset)
    for values, offset in zip(np.polynomial.legendre.leggauss(12), (1.0, 0.0), strict=True)
)


def _standardise(mu: Array, sigma: Array, log_a: float, log_b: float) -> tuple[Array, Array, Array]:
    inverse = 1.0 / sigma
    return (log_a - mu) * inverse, (log_b - mu) * inverse, (log_b - log_a) * inverse


def _mills(t: Array) -> Array:
    """(1 − Φ(t))/φ(t)."""
    return np.asarray(ROOT_HALF_PI * erfcx(ROOT_HALF * t))


def _exponents_at_nodes(m: Array, width: Array) -> Array:
    offset = width[:, None] * NODES
    return -offset * (m[:, None] + 0.5 * offset)


def _rows(condition: NDArray[np.bool_]) -> Rows:
    """Row numbers: NumPy gathers by them several times faster than by a mask."""
    return np.flatnonzero(condition)


def _tail_mass(m: Array, width: Array) -> Array:
    mass = _mills(m)
    fall = width * (m + 0.5 * width)
    short = _rows(fall < NOTHING)
    mass[short] -= np.exp(-fall[short]) * _mills(m[short] + width[short])
    narrow = _rows(fall < NARROW)  # the density hardly falls: a difference of Mills ratios cancels
    mass[narrow] = width[narrow] * (np.exp(_exponents_at_nodes(m[narrow], width[narrow])) @ WEIGHTS)
    return mass


def _scaled_mass(alpha: Array, beta: Array, width: Array) -> Array:
    """I, by error functions where 0 lies inside [α, β] and by Mills ratios in a tail."""
    m = np.maximum(alpha, -beta)
    mass = np.full_like(m, ROOT_2PI)
    near = _rows((m <= 0.0) & (m > -8.5))  # an end further out cuts off less than 1e-17
    mass[near] = ROOT_HALF_PI * (erf(ROOT_HALF * beta[near]) - erf(ROOT_HALF * alpha[near]))
    tail = _rows(m > 0.0)
    mass[tail] = _tail_mass(m[tail], width[tail])
    return mass


def _log_mass_inside(alpha: Array, beta: Array) -> Array:
    """Log of Φ(β) − Φ(α) where 0 lies inside [α, β]."""
    outside = ndtr(alpha) + ndtr(-beta)
    result = np.log1p(-outside)
    lost = _rows(outside >= 0.5)  # 1 − outside cancels and the error functions do not
    result[lost] = np.log(0.5 * (erf(ROOT_HALF * beta[lost]) - erf(ROOT_HALF * alpha[lost])))
    return np.asarray(result)


def log_normalizer(mu: Array, sigma: Array, *, log_a: float = -20.0, log_b: float = 0.0) -> Array:
    """Log Z = log(Φ(β) − Φ(α))."""
    alpha, beta, width = _standardise(mu, sigma, log_a, log_b)
    m = np.maximum(alpha, -beta)
    result = np.zeros_like(m)
    tail = _rows(m > 0.0)
    distance = m[tail]
    result[tail] = np.log(_tail_mass(distance, width[tail])) - 0.5 * distance * distance - HALF_LOG_2PI
    near = _rows((m <= 0.0) & (m > -39.0))  # beyond, log Z is below the smallest number
    result[near] = _log_mass_inside(alpha[near], beta[near])
    return result


def _exponent_mean_by_quadrature(m: Array, width: Array) -> Array:
    exponent = _exponents_at_nodes(m, width)
    density = np.exp(exponent)
    return np.asarray(((density * exponent) @ WEIGHTS) / (density @ WEIGHTS))


def _tail_exponent_mean(m: Array, width: Array, mass: Array) -> Array:
    """E[(m² − y²)/2] in a tail: −½(1 + m/I − m² − (m + w)e^{…}/I), far out by its asymptotic series."""
    fall = width * (m + 0.5 * width)
    excess = m / mass - m * m
    far = _rows(
        m > 30.0
    )  # the first term left out is 1.1e5/m¹², 2e-13 here; m/I − m² has lost m²·eps = 2e-13
    square = 1.0 / np.square(m[far])
    excess[far] = 1.0 + square * (
        -2.0 + square * (10.0 + square * (-74.0 + square * (706.0 - 8162.0 * square)))
    )
    short = _rows(fall < NOTHING)
    excess[short] -= (m[short] + width[short]) * np.exp(-fall[short]) / mass[short]
    mean = -0.5 * (1.0 + excess)
    narrow = _rows(fall < NARROW)
    mean[narrow] = _exponent_mean_by_quadrature(m[narrow], width[narrow])
    return np.asarray(mean)


def _inside_exponent_mean(alpha: Array, beta: Array, mass: Array) -> Array:
    """E[−y²/2] where 0 lies inside [α, β]; by quadrature where 1 and the boundary terms would cancel."""
    boundary = alpha * np.exp(-0.5 * alpha * alpha) - beta * np.exp(-0.5 * beta * beta)
    mean = -0.5 * (1.0 + boundary / mass)
    narrow = _rows(beta - alpha < 1.0)
    start = alpha[narrow]
    # Offsets from α: the exponent is then less that at α, which is −α²/2.
    mean[narrow] = _exponent_mean_by_quadrature(start, beta[narrow] - start) - 0.5 * start * start
    return np.asarray(mean)


def kl_divergence(mu: Array, sigma: Array, *, log_a: float = -20.0, log_b: float = 0.0) -> Array:
    """KL(q ‖ log-uniform) = log(w/I) + E[(m² − y²)/2]; absolute, not relative, accuracy where it is small."""
    alpha, beta, width = _standardise(mu, sigma, log_a, log_b)
    mass = _scaled_mass(alpha, beta, width)
    m = np.maximum(alpha, -beta)
    result = np.log(width / mass)
    result -= 0.5  # E[−y²/2] of a normal that nothing is cut off from
    tail = _rows(m > 0.0)
    result[tail] += 0.5 + _tail_exponent_mean(m[tail], width[tail], mass[tail])
    near = _rows((m <= 0.0) & (m > -9.5))
    result[near] += 0.5 + _inside_exponent_mean(alpha[near], beta[near], mass[near])
    return np.asarray(result)


def mean(mu: Array, sigma: Array, *, log_a: float = -20.0, log_b: float = 0.0) -> Array:
    """E[θ] = exp(x₁ + G)·I₁/I₀; x₀, x₁ the modes of q and of e^x q, G the log of q at x₁ less at x₀."""
    alpha, beta, width = _standardise(mu, sigma, log_a, log_b)
    before = _scaled_mass(alpha, beta, width)
    after = _scaled_mass(alpha - sigma, beta - sigma, width)
    tilted = mu + sigma * sigma
    mode, tilted_mode = np.clip(mu, log_a, log_b), np.clip(tilted, log_a, log_b)
    gap = 0.5 * ((mode - tilted_mode) / sigma) * ((mode - mu) / sigma + (tilted_mode - mu) / sigma)
    return np.asarray(np.exp(tilted_mode + gap) * (after / before))


def _log_tail_level(near: Array, far: Array, fall: Array, level: Array) -> Array:
    """Log of level·Φ(near) + (1 − level)·Φ(far), where Φ(far)/Φ(near) is about e^−fall."""
    with np.errstate(divide="ignore"):
        result = np.log(level)
        short = _rows(fall < NOTHING - result)
        result += log_ndtr(near)
        result[short] = np.logaddexp(result[short], np.log1p(-level[short]) + log_ndtr(far[short]))
    return np.asarray(result)


def quantile(u: Array, mu: Array, sigma: Array, *, log_a: float = -20.0, log_b: float = 0.0) -> Array:
    """θ(u): from the smaller tail probability where 0 lies inside [α, β], from its logarithm in a tail."""
    alpha, beta, width = _standardise(mu, sigma, log_a, log_b)
    m = np.maximum(alpha, -beta)
    below, above = u.copy(), 1.0 - u
    near = _rows((m <= 0.0) & (m > -39.0))
    start, stop, down, up = alpha[near], beta[near], u[near], above[near]
    below[near] = up * ndtr(start) + down * ndtr(stop)
    above[near] = up * ndtr(-start) + down * ndtr(-stop)
    xi = ndtri(np.minimum(below, above))
    np.negative(xi, out=xi, where=above < below)
    tail = _rows(m > 0.0)
    distance, span = m[tail], width[tail]
    right = alpha[tail] > 0.0
    level = np.where(right, 1.0 - u[tail], u[tail])
    fall = span * (distance + 0.5 * span)
    log_p = _log_tail_level(-distance, -distance - span, fall, level)
    xi[tail] = np.where(right, -1.0, 1.0) * ndtri_exp(log_p)
    return np.asarray(np.exp(np.clip(mu + sigma * xi, log_a, log_b)))


def delta_f_normal(
    mu: Array, sigma: Array, *, sigma_p: float = 1e-6, log_a: float = -20.0, log_b: float = 0.0
) -> Array:
    """ΔF_N (Eq. 8) at μ̃_p = a, with the three squares collapsed; δ is the reduced posterior's mode less a."""
    alpha, beta, width = _standardise(mu, sigma, log_a, log_b)
    ratio = sigma_p / sigma
    spread = np.sqrt(1.0 + ratio * ratio)
    start = alpha * (ratio / spread)
    prior_width = (log_b - log_a) / sigma_p
    reduced_width = prior_width * spread
    prior = _scaled_mass(np.array([0.0]), np.array([prior_width]), np.array([prior_width]))
    reduced = _scaled_mass(start, start + reduced_width, reduced_width)
    mode = np.clip(mu, log_a, log_b)
    delta = np.clip((mu - log_a) * np.square(ratio / spread), 0.0, log_b - log_a)
    exponent = 0.5 * ((mode - log_a - delta) / sigma) * ((mode - mu + delta) / sigma + alpha)
    exponent -= 0.5 * np.square(delta / sigma_p)
    return np.asarray(
        exponent + np.log(width * reduced / (_scaled_mass(alpha, beta, width) * spread)) - np.log(prior)
    )


def delta_f_uniform(
    mu: Array,
    sigma: Array,
    *,
    log_a: float = -20.0,
    log_b: float = 0.0,
    log_a_reduced: float = -23.0 * LOG2,
    log_b_reduced: float = -8.0 * LOG2,
) -> Array:
    """ΔF_U (Eq. 10): the log mass of the reduced support, by modes as in `mean`, and the widths."""
    whole = _scaled_mass(*_standardise(mu, sigma, log_a, log_b))
    part = _scaled_mass(*_standardise(mu, sigma, log_a_reduced, log_b_reduced))
    mode, part_mode = np.clip(mu, log_a, log_b), np.clip(mu, log_a_reduced, log_b_reduced)
    exponent = 0.5 * ((mode - part_mode) / sigma) * ((mode - mu) / sigma + (part_mode - mu) / sigma)
    return np.asarray(
        exponent + np.log(part / whole) + np.log((log_b - log_a) / (log_b_reduced - log_a_reduced))
    )
