"""Functions of bmrs_core with their analytic gradients in autograd, in float64 whatever comes in."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import bmrs_core
from bmrs_torch.operation.operators import differentiable_once

__all__ = [
    "CDF",
    "ENTROPY",
    "ICDF",
    "KL_DIVERGENCE",
    "LOG_PROB",
    "MEAN",
    "VARIANCE",
    "Analytic",
    "evaluate",
]

Derivatives = tuple[Tensor, ...]


@dataclass(frozen=True)
class Analytic:
    """A function of tensors and the bounds, and its derivative with respect to each of the tensors.

    Both take float64 tensors of one shape, those of the bounds last, none of which requires grad.
    """

    value: Callable[..., Tensor]
    derivatives: Callable[..., Derivatives]


# The CPU's loops are Numba's, on memory that torch.compile doesn't have yet.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def evaluate(function: Analytic, *tensors: Tensor, log_a: Tensor, log_b: Tensor) -> Tensor:
    """Return a function of broadcast tensors, once differentiable in all but the bounds.

    Returns
    -------
    Tensor
        Of the tensors' broadcast shape, and of the dtype that they and the bounds promote to.
    """
    dtype = functools.reduce(torch.promote_types, (tensor.dtype for tensor in (*tensors, log_a, log_b)))
    *inputs, low, high = torch.broadcast_tensors(*tensors, log_a, log_b)
    result: Tensor = _Evaluate.apply(function, dtype, low, high, *inputs)  # type: ignore[no-untyped-call]
    return result


class _Evaluate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, function: Analytic, dtype: torch.dtype, low: Tensor, high: Tensor, *inputs: Tensor
    ) -> Tensor:
        ctx.derivatives = function.derivatives
        ctx.save_for_backward(*inputs, low, high)
        return function.value(*_in_float64(*inputs, low, high)).to(dtype)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, low, high = ctx.saved_tensors
        slope = grad_outputs[0].to(torch.float64)
        derivatives = ctx.derivatives(*_in_float64(*inputs, low, high))
        gradients = (slope * one for one in derivatives)
        wanted = zip(gradients, inputs, ctx.needs_input_grad[4:], strict=True)
        return None, None, None, None, *(g.to(x.dtype) if needed else None for g, x, needed in wanted)


def _in_float64(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.detach().to(torch.float64) for tensor in tensors)


def _with_bounds(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of bmrs_core with the bounds as its last two positional arguments."""

    def call(*arguments: Tensor) -> Any:
        *inputs, low, high = arguments
        return function(*inputs, log_a=low, log_b=high)

    return call


def _of_log_prob(theta: Tensor, mu: Tensor, sigma: Tensor, low: Tensor, high: Tensor) -> Derivatives:
    value, d_mu, d_sigma = bmrs_core.logpdf_grad(theta, mu, sigma, log_a=low, log_b=high)
    d_theta = -(1 + (theta.log() - mu) / sigma**2) / theta
    return torch.where(value.isneginf(), 0.0, d_theta), d_mu, d_sigma


def _of_cdf(theta: Tensor, mu: Tensor, sigma: Tensor, low: Tensor, high: Tensor) -> Derivatives:
    """F (1 − F) times the difference of the log masses' derivatives below and above; 0 outside."""
    below, above, density = (
        f(theta, mu, sigma, log_a=low, log_b=high) for f in (bmrs_core.cdf, bmrs_core.sf, bmrs_core.pdf)
    )
    x = theta.clamp_min(0.0).log()
    inside = (x > low) & (x < high)
    _, mu_below, sigma_below = bmrs_core.log_normalizer_grad(
        mu, sigma, log_a=low, log_b=torch.where(inside, x, high)
    )
    _, mu_above, sigma_above = bmrs_core.log_normalizer_grad(
        mu, sigma, log_a=torch.where(inside, x, low), log_b=high
    )
    both = below * above
    return density, both * (mu_below - mu_above), both * (sigma_below - sigma_above)


def _of_icdf(u: Tensor, mu: Tensor, sigma: Tensor, low: Tensor, high: Tensor) -> Derivatives:
    theta = bmrs_core.quantile(u, mu, sigma, log_a=low, log_b=high)
    _, d_mu, d_sigma = bmrs_core.log_quantile_grad(u, mu, sigma, log_a=low, log_b=high)
    density = bmrs_core.pdf(theta, mu, sigma, log_a=low, log_b=high)
    return 1 / density, theta * d_mu, theta * d_sigma


def _of_mean(mu: Tensor, sigma: Tensor, low: Tensor, high: Tensor) -> Derivatives:
    log_mean, d_mu, d_sigma = bmrs_core.log_mean_grad(mu, sigma, log_a=low, log_b=high)
    return log_mean.exp() * d_mu, log_mean.exp() * d_sigma


def _of_variance(mu: Tensor, sigma: Tensor, low: Tensor, high: Tensor) -> Derivatives:
    """Var ∂log E[θ²] + E[θ]² (∂log E[θ²] − 2 ∂log E[θ]).

    θ² is a truncated log-normal, too, of twice the parameters and bounds. Where σ is tiny the difference
    has lost eps/σ of its size.
    """
    log_mean, *firsts = bmrs_core.log_mean_grad(mu, sigma, log_a=low, log_b=high)
    _, *seconds = bmrs_core.log_mean_grad(2 * mu, 2 * sigma, log_a=2 * low, log_b=2 * high)
    variance = bmrs_core.variance(mu, sigma, log_a=low, log_b=high)
    square = (2 * log_mean).exp()
    pairs = zip(seconds, firsts, strict=True)
    return tuple(2 * variance * second + square * 2 * (second - first) for second, first in pairs)


def _of_entropy(*arguments: Tensor) -> Derivatives:
    _, *derivatives = _with_bounds(bmrs_core.entropy_grad)(*arguments)
    return tuple(derivatives)


def _of_kl_divergence(*arguments: Tensor) -> Derivatives:
    _, *derivatives = _with_bounds(bmrs_core.kl_divergence_grad)(*arguments)
    return tuple(derivatives)


LOG_PROB = Analytic(_with_bounds(bmrs_core.logpdf), _of_log_prob)
CDF = Analytic(_with_bounds(bmrs_core.cdf), _of_cdf)
ICDF = Analytic(_with_bounds(bmrs_core.quantile), _of_icdf)
MEAN = Analytic(_with_bounds(bmrs_core.mean), _of_mean)
VARIANCE = Analytic(_with_bounds(bmrs_core.variance), _of_variance)
ENTROPY = Analytic(_with_bounds(bmrs_core.entropy), _of_entropy)
KL_DIVERGENCE = Analytic(_with_bounds(bmrs_core.kl_divergence), _of_kl_divergence)
