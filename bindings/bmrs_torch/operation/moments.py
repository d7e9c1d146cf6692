"""E[θ] of the noise as a differentiable operator, by the analytic gradient of bmrs_core."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmrs_core import log_mean_grad, mean
from bmrs_torch.operation.checks import check_parameters
from bmrs_torch.operation.operators import refuse_transforms, refuse_twice

__all__ = ["noise_mean"]

_PARAMETERS = "Tensor mu, Tensor log_sigma, float log_a, float log_b"
_library = torch.library.Library("bmrs", "FRAGMENT")
_library.define(f"noise_mean({_PARAMETERS}) -> Tensor")
_library.define(f"noise_mean_gradient({_PARAMETERS}) -> (Tensor, Tensor)")


def noise_mean(mu: Tensor, log_sigma: Tensor, *, log_a: float, log_b: float) -> Tensor:
    """E[θ] of each structure, differentiable in `mu` and `log_sigma`.

    Parameters
    ----------
    mu, log_sigma : Tensor, shape (structures,)
        Parameters of log θ.
    log_a, log_b : float
        Bounds of log θ.

    Returns
    -------
    Tensor of float64, shape (structures,)

    Raises
    ------
    ValueError
        For parameters that are not finite. On a GPU, which nobody waits for, the answer is NaN instead, and
        computed in float32 unless a parameter is float64.

    Examples
    --------
    >>> import torch
    >>> from bmrs_torch.operation.moments import noise_mean
    >>> noise_mean(torch.tensor([0.0]), torch.tensor([-5.0]), log_a=-20.0, log_b=0.0).round(decimals=4).item()
    0.9946
    """
    refuse_transforms()
    value: Tensor = torch.ops.bmrs.noise_mean(mu, log_sigma, log_a, log_b)
    return value


def _in_float64(mu: Tensor, log_sigma: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    check_parameters(mu, log_sigma)
    return mu.detach().double().cpu().numpy(), np.exp(log_sigma.detach().double().cpu().numpy())


def _mean(mu: Tensor, log_sigma: Tensor, log_a: float, log_b: float) -> Tensor:
    value = mean(*_in_float64(mu, log_sigma), log_a=log_a, log_b=log_b)
    return torch.from_numpy(np.ascontiguousarray(value)).to(mu.device)


def _gradient(mu: Tensor, log_sigma: Tensor, log_a: float, log_b: float) -> tuple[Tensor, Tensor]:
    own_mu, sigma = _in_float64(mu, log_sigma)
    log_mean, d_mu, d_sigma = log_mean_grad(own_mu, sigma, log_a=log_a, log_b=log_b)
    by_mu, by_log_sigma = (
        torch.from_numpy(np.ascontiguousarray(np.exp(log_mean) * part)).to(mu.device)
        for part in (d_mu, d_sigma * sigma)
    )
    return by_mu, by_log_sigma


def _mean_cuda(mu: Tensor, log_sigma: Tensor, log_a: float, log_b: float) -> Tensor:
    if torch.float64 in (mu.dtype, log_sigma.dtype):
        return _mean(mu, log_sigma, log_a, log_b)
    from bmrs_torch.operation import cuda

    return cuda.noise_mean(mu, log_sigma, log_a, log_b, gradients=False)


def _gradient_cuda(mu: Tensor, log_sigma: Tensor, log_a: float, log_b: float) -> tuple[Tensor, Tensor]:
    if torch.float64 in (mu.dtype, log_sigma.dtype):
        return _gradient(mu, log_sigma, log_a, log_b)
    from bmrs_torch.operation import cuda

    by_mu, by_log_sigma = cuda.noise_mean(mu, log_sigma, log_a, log_b, gradients=True)
    return by_mu.clone(), by_log_sigma.clone()  # an operator's results must not share memory


def _mean_fake(mu: Tensor, *_rest: Any) -> Tensor:
    return mu.new_empty(mu.shape, dtype=torch.float64)


def _gradient_fake(mu: Tensor, *_rest: Any) -> tuple[Tensor, Tensor]:
    return _mean_fake(mu), _mean_fake(mu)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 torch names them
    ctx.save_for_backward(*inputs[:2])
    ctx.bounds = inputs[2:]


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    mu, log_sigma = ctx.saved_tensors
    by_mu, by_log_sigma = torch.ops.bmrs.noise_mean_gradient(mu, log_sigma, *ctx.bounds)
    return (dy * by_mu).to(mu.dtype), (dy * by_log_sigma).to(log_sigma.dtype), None, None


_library.impl("noise_mean", _mean, "CompositeExplicitAutograd")
_library.impl("noise_mean_gradient", _gradient, "CompositeExplicitAutograd")
_library.impl("noise_mean", _mean_cuda, "CUDA")
_library.impl("noise_mean_gradient", _gradient_cuda, "CUDA")
torch.library.register_fake("bmrs::noise_mean", _mean_fake, lib=_library)
torch.library.register_fake("bmrs::noise_mean_gradient", _gradient_fake, lib=_library)
torch.library.register_autograd(
    "bmrs::noise_mean", _differentiate, setup_context=_setup_context, lib=_library
)
torch.library.register_autograd("bmrs::noise_mean_gradient", refuse_twice, lib=_library)
