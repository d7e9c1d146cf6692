"""E[θ] and KL(q‖p) of the noise as differentiable functions, by the analytic gradients of bmrs_core."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bmrs_core import kl_divergence_grad, log_mean_grad
from bmrs_torch.operators import differentiable_once

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ValueAndGrad = Callable[..., tuple["NDArray[np.float64]", "NDArray[np.float64]", "NDArray[np.float64]"]]
Bound = float | np.ndarray


class _Analytic(torch.autograd.Function):
    """value(μ, σ) of a bmrs_core function that also returns its derivatives, chained to log σ."""

    @staticmethod
    def forward(
        ctx: Any, mu: Tensor, log_sigma: Tensor, function: _ValueAndGrad, log_a: Bound, log_b: Bound
    ) -> Tensor:
        """Evaluate in float64 and keep the derivatives for the backward pass."""
        sigma = np.exp(log_sigma.detach().double().cpu().numpy())
        value, d_mu, d_sigma = function(mu.detach().double().cpu().numpy(), sigma, log_a=log_a, log_b=log_b)
        ctx.save_for_backward(*(torch.as_tensor(d).to(mu.device) for d in (d_mu, sigma * d_sigma)))
        ctx.dtypes = (mu.dtype, log_sigma.dtype)
        return torch.as_tensor(value).to(mu.device)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Multiply the incoming gradient by the stored derivatives."""
        gradients = (grad_outputs[0] * derivative for derivative in ctx.saved_tensors)
        d_mu, d_log_sigma = (
            gradient.to(dtype) for gradient, dtype in zip(gradients, ctx.dtypes, strict=True)
        )
        return d_mu, d_log_sigma, None, None, None


def noise_mean(mu: Tensor, log_sigma: Tensor, *, log_a: Bound, log_b: Bound) -> Tensor:
    """E[θ] of each structure, differentiable in `mu` and `log_sigma`.

    Parameters
    ----------
    mu, log_sigma : Tensor, shape (structures,)
        Parameters of log θ.
    log_a, log_b : float or ndarray
        Bounds of log θ.

    Returns
    -------
    Tensor of float64, shape (structures,)

    Examples
    --------
    >>> import torch
    >>> from bmrs_torch.moments import noise_mean
    >>> noise_mean(torch.tensor([0.0]), torch.tensor([-5.0]), log_a=-20.0, log_b=0.0).round(decimals=4).item()
    0.9946
    """
    return _apply(log_mean_grad, mu, log_sigma, log_a, log_b).exp()


def noise_kl(mu: Tensor, log_sigma: Tensor, *, log_a: Bound, log_b: Bound) -> Tensor:
    """KL divergence of each structure's noise from its log-uniform prior, in nats, differentiable.

    Parameters
    ----------
    mu, log_sigma : Tensor, shape (structures,)
        Parameters of log θ.
    log_a, log_b : float or ndarray
        Bounds of log θ, of the posterior and of the prior.

    Returns
    -------
    Tensor of float64, shape (structures,)

    Examples
    --------
    >>> import torch
    >>> from bmrs_torch.moments import noise_kl
    >>> noise_kl(torch.tensor([0.0]), torch.tensor([-5.0]), log_a=-20.0, log_b=0.0).round(decimals=3).item()
    7.27
    """
    return _apply(kl_divergence_grad, mu, log_sigma, log_a, log_b)


def _apply(function: _ValueAndGrad, mu: Tensor, log_sigma: Tensor, log_a: Bound, log_b: Bound) -> Tensor:
    result: Tensor = _Analytic.apply(mu, log_sigma, function, log_a, log_b)  # type: ignore[no-untyped-call]
    return result
