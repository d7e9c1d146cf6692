"""The log-uniform distribution, the prior of the noise (paper Eq. 7)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import ExpTransform, TransformedDistribution, Uniform, constraints

__all__ = ["LogUniform"]

# Below this half-width of the support the variance is a series, of which less than 1e-18 is left out; above
# it the difference of E[θ²] and E[θ]² loses at most a factor of 5.
SHORT = 1.0
TERMS = 9


class LogUniform(TransformedDistribution):
    """θ whose logarithm is uniform between two bounds: the prior of multiplicative noise.

    Parameters
    ----------
    log_a, log_b : float or Tensor
        Bounds of log θ, log_a < log_b; they broadcast. By default −20 and 0, as in the paper: θ from 2e-9, as
        good as switched off, to 1, unchanged.
    validate_args : bool, optional
        Whether parameters and values are checked, as in all of torch's distributions, whose default it has.

    Raises
    ------
    ValueError
        If log_a is not below log_b.

    Examples
    --------
    >>> import torch
    >>> from bmrs_torch import LogUniform
    >>> round(LogUniform().cdf(torch.tensor(0.01)).item(), 4)
    0.7697
    """

    arg_constraints = {"log_a": constraints.real, "log_b": constraints.real}  # noqa: RUF012
    base_dist: Uniform

    def __init__(
        self,
        log_a: float | Tensor = -20.0,
        log_b: float | Tensor = 0.0,
        validate_args: bool | None = None,
    ) -> None:
        # What the base is asked lies in its support up to the rounding of a logarithm, which it would refuse.
        base = Uniform(log_a, log_b, validate_args=False)
        super().__init__(base, ExpTransform(), validate_args=validate_args)
        if self._validate_args and not bool(torch.lt(self.log_a, self.log_b).all()):
            raise ValueError("log_a must be below log_b: the support of θ would be empty")

    @property
    def log_a(self) -> Tensor:
        """Lower bound of log θ."""
        return self.base_dist.low

    @property
    def log_b(self) -> Tensor:
        """Upper bound of log θ."""
        return self.base_dist.high

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The interval from exp(log_a) to exp(log_b)."""
        return constraints.interval(self.log_a.exp(), self.log_b.exp())

    def expand(self, batch_shape: Any, _instance: Any = None) -> LogUniform:
        """Return the distribution with batch dimensions expanded to `batch_shape`."""
        new = self._get_checked_instance(LogUniform, _instance)  # type: ignore[no-untyped-call]
        expanded: LogUniform = super().expand(batch_shape, _instance=new)  # type: ignore[no-untyped-call]
        return expanded

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density per unit of θ: −log θ − log(log_b − log_a), −inf outside the support."""
        if self._validate_args:
            self._validate_sample(value)
        inside = (value >= self.log_a.exp()) & (value <= self.log_b.exp())
        density = -torch.where(inside, value, 1.0).log() - (self.log_b - self.log_a).log()
        return torch.where(inside, density, -torch.inf)

    @property
    def mean(self) -> Tensor:
        """Mean of θ: (exp(log_b) − exp(log_a)) / (log_b − log_a)."""
        width = self.log_b - self.log_a
        return self.log_b.exp() * -torch.expm1(-width) / width

    @property
    def variance(self) -> Tensor:
        """Variance of θ.

        With h half the width of the support, s = sinh(h)/h and m its middle, exp(2m) s (cosh(h) − s).
        """
        half = (self.log_b - self.log_a) / 2
        short = half < SHORT
        h = torch.where(short, half, 1.0)
        spread = _cosh_less_sinhc(h) * (h.sinh() / h)
        of_short = (self.log_a + self.log_b).exp() * spread
        wide = torch.where(short, 1.0, half)
        second = (2 * self.log_b).exp() * -torch.expm1(-4 * wide) / (4 * wide)
        return torch.where(short, of_short, second - self.mean**2)

    def entropy(self) -> Tensor:
        """Differential entropy of θ in nats: (log_a + log_b)/2 + log(log_b − log_a)."""
        return (self.log_a + self.log_b) / 2 + (self.log_b - self.log_a).log()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_shown('log_a', self.log_a)}, {_shown('log_b', self.log_b)})"


def _cosh_less_sinhc(h: Tensor) -> Tensor:
    """Return cosh(h) − sinh(h)/h = Σ 2k h^2k / (2k + 1)! for |h| ≤ 1."""
    term = torch.ones_like(h)
    total = torch.zeros_like(h)
    for k in range(1, TERMS + 1):
        term = term * h * h / (2 * k * (2 * k + 1))
        total = total + 2 * k * term
    return total


def _shown(name: str, value: Tensor) -> str:
    """One parameter as torch's own distributions show it."""
    return f"{name}: {value if value.numel() == 1 else value.size()}"
