"""The truncated log-normal distribution, the posterior of the noise (paper Eq. 7)."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from numbers import Number
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints, register_kl
from torch.distributions.utils import broadcast_all

from bmrs_torch.distributions import analytic
from bmrs_torch.distributions.analytic import Analytic
from bmrs_torch.distributions.log_uniform import LogUniform

__all__ = ["TruncatedLogNormal"]


class TruncatedLogNormal(Distribution):
    """θ whose logarithm is normal, truncated to [log_a, log_b]: the posterior of multiplicative noise.

    Parameters
    ----------
    loc, scale : float or Tensor
        Mean μ and standard deviation σ of log θ before truncation. Gradients flow to both.
    log_a, log_b : float or Tensor
        Bounds of log θ, log_a < log_b, without gradient. By default −20 and 0, as in the paper: θ from 2e-9,
        as good as switched off, to 1, unchanged.
    validate_args : bool, optional
        Whether parameters and values are checked, as in all of torch's distributions, whose default it has.
        What describes no distribution is refused by what is computed of it in any case.

    Raises
    ------
    ValueError
        If log_a is not below log_b, a bound requires grad, or a parameter breaks its constraint.
    TypeError
        If the parameters are tensors of whole numbers.

    Notes
    -----
    Everything is computed in float64 and rounded to the parameters' dtype; on the CPU by compiled loops, else
    in torch's own operations on the parameters' device. Gradients are analytic and can't be differentiated
    again; under torch.compile the graph breaks here. The noise of a network is
    :class:`~bmrs_torch.MultiplicativeNoise`, which is faster.

    Examples
    --------
    >>> import torch
    >>> from bmrs_torch import LogUniform, TruncatedLogNormal
    >>> q = TruncatedLogNormal(torch.tensor([-3.0, -25.0]), torch.tensor([0.5, 1.0]))
    >>> q.mean
    tensor([5.6416e-02, 2.5299e-09])
    >>> torch.distributions.kl_divergence(q, LogUniform())
    tensor([2.2699, 3.6755])
    """

    arg_constraints = {  # noqa: RUF012
        "loc": constraints.real,
        "scale": constraints.positive,
        "log_a": constraints.real,
        "log_b": constraints.real,
    }
    has_rsample = True

    def __init__(
        self,
        loc: float | Tensor,
        scale: float | Tensor,
        log_a: float | Tensor = -20.0,
        log_b: float | Tensor = 0.0,
        validate_args: bool | None = None,
    ) -> None:
        given = (loc, scale, log_a, log_b)
        dtype, tensors = _in_one_dtype(broadcast_all(*given))
        if not dtype.is_floating_point:
            raise TypeError(f"loc and scale must be numbers or floating-point tensors, got {dtype}")
        self.loc, self.scale, self.log_a, self.log_b = tensors
        for name, bound in (("log_a", self.log_a), ("log_b", self.log_b)):
            if bound.requires_grad:
                raise ValueError(
                    f"{name} must not require grad, for gradients flow to loc and scale alone: give "
                    f"{name}.detach()"
                )
        scalar = all(isinstance(one, Number) for one in given)
        super().__init__(Size() if scalar else self.loc.size(), validate_args=validate_args)
        if self._validate_args and not bool(torch.lt(self.log_a, self.log_b).all()):
            raise ValueError("log_a must be below log_b: the support of θ would be empty")

    def expand(self, batch_shape: Any, _instance: Any = None) -> TruncatedLogNormal:
        """Return the distribution with batch dimensions expanded to `batch_shape`."""
        new: TruncatedLogNormal = self._get_checked_instance(TruncatedLogNormal, _instance)  # type: ignore[no-untyped-call]
        shape = Size(batch_shape)
        for name in self.arg_constraints:
            setattr(new, name, getattr(self, name).expand(shape))
        super(TruncatedLogNormal, new).__init__(shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The interval from exp(log_a) to exp(log_b), both rounded to the parameters' dtype."""
        return constraints.interval(*(end.to(self.loc.dtype) for end in self._ends()))

    def _ends(self) -> tuple[Tensor, Tensor]:
        """The least and the largest θ, as the quantile gives them."""
        with torch.no_grad():
            parts = (torch.zeros((), dtype=torch.float64, device=self.loc.device) + u for u in (0.0, 1.0))
            low, high = (self._of(analytic.ICDF, part) for part in parts)
        return low, high

    def _of(self, function: Analytic, *leading: Tensor) -> Tensor:
        bounds = {"log_a": self.log_a, "log_b": self.log_b}
        result: Tensor = analytic.evaluate(function, *leading, self.loc, self.scale, **bounds)
        return result

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw θ, with gradients to loc and scale: the quantile at uniform numbers of torch's generator.

        Parameters
        ----------
        sample_shape : sequence of int
            What comes before the batch's own shape.

        Returns
        -------
        Tensor of shape sample_shape + batch_shape
        """
        shape = self._extended_shape(sample_shape)
        u = torch.rand(shape, dtype=torch.float64, device=self.loc.device)
        return self._of(analytic.ICDF, u).to(self.loc.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density per unit of θ, −inf outside the support; differentiable in `value`, too."""
        if self._validate_args:
            self._validate_sample(value)
        dtype = torch.promote_types(value.dtype, self.loc.dtype)
        return self._of(analytic.LOG_PROB, self._within(value)).to(dtype)

    def cdf(self, value: Tensor) -> Tensor:
        """Probability of θ ≤ value."""
        if self._validate_args:
            self._validate_sample(value)
        return self._of(analytic.CDF, value)

    def icdf(self, value: Tensor) -> Tensor:
        """θ below which lies the probability `value`, between 0 and 1."""
        return self._of(analytic.ICDF, value)

    def _within(self, value: Tensor) -> Tensor:
        """Return a value in float64, one that is an end of the support in its own dtype at that end."""
        low, high = self._ends()
        exact = value.to(torch.float64)
        exact = torch.where(value == low.to(value.dtype), low, exact)
        return torch.where(value == high.to(value.dtype), high, exact)

    @property
    def mean(self) -> Tensor:
        """Mean of θ."""
        return self._of(analytic.MEAN)

    @property
    def mode(self) -> Tensor:
        """θ of the largest density: exp(loc − scale²), within the support."""
        return (self.loc - self.scale**2).clamp(self.log_a, self.log_b).exp()

    @property
    def variance(self) -> Tensor:
        """Variance of θ."""
        return self._of(analytic.VARIANCE)

    def entropy(self) -> Tensor:
        """Differential entropy of θ in nats."""
        return self._of(analytic.ENTROPY)

    def kl_to_log_uniform(self) -> Tensor:
        """Divergence from the log-uniform distribution on the same support, in nats (paper Eq. 3)."""
        return self._of(analytic.KL_DIVERGENCE)


def _in_one_dtype(tensors: Iterable[Tensor]) -> tuple[torch.dtype, list[Tensor]]:
    """Return tensors in the dtype that all of them promote to."""
    given = list(tensors)
    dtype = functools.reduce(torch.promote_types, (tensor.dtype for tensor in given))
    return dtype, [tensor.to(dtype) for tensor in given]


@register_kl(TruncatedLogNormal, LogUniform)  # type: ignore[untyped-decorator]
def _kl_truncated_log_normal_log_uniform(q: TruncatedLogNormal, p: LogUniform) -> Tensor:
    """Divergence in nats: infinite where q has mass outside the support of p."""
    wider = ((p.log_b - p.log_a) / (q.log_b - q.log_a)).log()
    outside = (q.log_a < p.log_a) | (q.log_b > p.log_b)
    return torch.where(outside, torch.inf, q.kl_to_log_uniform() + wider)
