"""Hypothesis strategies for truncated log-normal distributions, and integrals of their density."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st
from scipy.integrate import quad

# Quadrature is asked for 1e-12 and its estimates are pessimistic; a comparison at 1e-9 is limited by
# neither side's rounding.
QUADRATURE = 1e-9


@dataclass(frozen=True)
class Posterior:
    """x = log θ is normal (mu, sigma²) truncated to [log_a, log_b]."""

    mu: float
    sigma: float
    log_a: float
    log_b: float

    @property
    def bounds(self) -> dict[str, Any]:
        return {"log_a": self.log_a, "log_b": self.log_b}

    @property
    def width(self) -> float:
        return self.log_b - self.log_a

    @property
    def mode(self) -> float:
        return min(max(self.mu, self.log_a), self.log_b)

    def fall(self, nats: float) -> float:
        """How far from the mode, in σ, the log density falls by so many nats if the support goes on."""
        distance = abs(self.mode - self.mu) / self.sigma
        return 2.0 * nats / (distance + math.sqrt(distance * distance + 2.0 * nats))

    def log_ratio_to_mode(self, offset: float) -> float:
        """The log density at mode + offset less that at the mode."""
        step = offset / self.sigma
        return -step * ((self.mode - self.mu) / self.sigma + 0.5 * step)

    def integral(
        self,
        integrand: Callable[[float], float] = lambda _: 1.0,
        lower: float = -math.inf,
        upper: float = math.inf,
    ) -> float:
        """∫ integrand(x − mode)·(density at x ÷ at the mode) dx/σ, over [lower, upper] in the support.

        In steps of σ from the mode, so that a narrow peak is not lost in the rounding of x.
        """
        low, high = (
            (end - self.mode) / self.sigma for end in (max(self.log_a, lower), min(self.log_b, upper))
        )
        low, high = max(low, -self.fall(740.0)), min(high, self.fall(740.0))
        steps = [self.fall(nats) for nats in (0.1, 2.0, 40.0)]
        inner = [cut for cut in sorted([-step for step in steps] + [0.0, *steps]) if low < cut < high]
        cuts = [low, *inner, high] if low < high else []

        def value(step: float) -> float:
            offset = self.sigma * step
            return integrand(offset) * math.exp(self.log_ratio_to_mode(offset))

        # full_output: no warning where the last digit of 1e-12 is out of reach; QUADRATURE leaves room for
        # that.
        return math.fsum(
            quad(value, *ends, epsabs=0.0, epsrel=1e-12, limit=200, full_output=1)[0]
            for ends in pairwise(cuts)
        )

    def expectation(self, integrand: Callable[[float], float]) -> float:
        """E[integrand(x − mode)]."""
        return self.integral(integrand) / self.integral()

    def theta_expectation(self, power: float) -> float:
        """E[(θ/exp(log_b))^power], which is at most 1."""
        return self.expectation(lambda offset: math.exp(power * (self.mode - self.log_b + offset)))


def floats(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, allow_infinity=False, allow_subnormal=False)


def log_spaced(low: float, high: float) -> st.SearchStrategy[float]:
    """Numbers whose logarithm is spread evenly from log(low) to log(high)."""
    return floats(math.log(low), math.log(high)).map(math.exp)


@st.composite
def posteriors(draw: st.DrawFn, *, narrowest: float = 1e-3, widest: float = 1e3) -> Posterior:
    """Any support; μ inside, near and far outside; σ from far narrower to far wider than it."""
    log_a = draw(floats(-50.0, 10.0))
    width = draw(log_spaced(narrowest, 60.0))
    mu = log_a + width * draw(floats(-3.0, 4.0))
    sigma = width * draw(log_spaced(1e-4, widest))
    return Posterior(mu, sigma, log_a, log_a + width)


@st.composite
def trained(draw: st.DrawFn) -> Posterior:
    """What a noise layer with the default support can reach."""
    return Posterior(draw(floats(-40.0, 20.0)), math.exp(draw(floats(-20.0, 5.0))), -20.0, 0.0)


@st.composite
def on_a_grid(draw: st.DrawFn) -> Posterior:
    """Means and bounds that are multiples of 2⁻²⁰ below 2¹⁰: sums of them are exact in float64."""

    def steps(low: int, high: int) -> float:
        return draw(st.integers(low, high)) * 2.0**-20

    log_a = steps(-(2**25), 2**24)
    log_b = log_a + steps(1, 2**25)
    return Posterior(steps(-(2**26), 2**26), draw(log_spaced(1e-6, 1e3)), log_a, log_b)
