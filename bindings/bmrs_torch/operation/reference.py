"""The noise operation written plainly: the reference that faster implementations are held to.

y = x·θ·mask with θ = exp(x_q(u)), x_q the quantile of the truncated normal of log θ (paper, Eq. 7) and u
from Philox. The backward pass is analytic and draws the noise again from the seed, so that nothing of the
size of `x` but `x` itself is kept:

    dx = dy·θ·mask,    dμ_c = Σ dy·x·mask·∂θ/∂μ_c,    dlog σ_c = Σ dy·x·mask·σ_c·∂θ/∂σ_c,    ∂θ = θ·∂x_q.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bmrs_core import log_quantile, log_quantile_grad, philox
from bmrs_kernels.contract import NoiseLayout

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Uniforms(NamedTuple):
    """Random numbers of the noise shape, and the parameters of log θ broadcastable to them; all float64."""

    u: NDArray[np.float64]
    mu: NDArray[np.float64]
    sigma: NDArray[np.float64]


def draw_uniforms(
    shape: torch.Size, mu: Tensor, log_sigma: Tensor, seed: Tensor, layout: NoiseLayout
) -> Uniforms:
    """Draw u for an input of `shape`, a pure function of the seed, and lay the parameters out beside it.

    Parameters
    ----------
    shape : torch.Size
        Shape of the input.
    mu, log_sigma : Tensor, shape (structures,)
        Parameters of log θ.
    seed : Tensor of int64, one element
        Key of the random numbers.
    layout : NoiseLayout
        Axis and sharing.

    Returns
    -------
    Uniforms
    """
    noise_shape = layout.noise_shape(shape)
    u = philox.uniform(int(seed.item()), 0, math.prod(noise_shape)).reshape(noise_shape)
    view = tuple(-1 if i == layout.axis else 1 for i in range(len(shape)))
    along = (_float64(p).reshape(view) for p in (mu, log_sigma))
    return Uniforms(u, next(along), np.exp(next(along)))


def draw_noise(draw: Uniforms, layout: NoiseLayout) -> NDArray[np.float64]:
    """θ of the noise shape."""
    theta: NDArray[np.float64] = np.exp(log_quantile(*draw, log_a=layout.log_a, log_b=layout.log_b))
    return theta


def draw_noise_and_derivatives(draw: Uniforms, layout: NoiseLayout) -> tuple[NDArray[np.float64], ...]:
    """θ, ∂θ/∂μ and ∂θ/∂log σ of the noise shape."""
    x, dx_dmu, dx_dsigma = log_quantile_grad(*draw, log_a=layout.log_a, log_b=layout.log_b)
    theta = np.exp(x)
    return theta, theta * dx_dmu, theta * dx_dsigma * draw.sigma


def reference_forward(
    x: Tensor, mu: Tensor, log_sigma: Tensor, mask: Tensor, seed: Tensor, layout: NoiseLayout
) -> Tensor:
    """Multiply `x` by the noise and the mask.

    θ is float64, products of the size of `x` float32 (float64 for float64).
    """
    theta = draw_noise(draw_uniforms(x.shape, *_usable(mu, log_sigma, mask), seed, layout), layout)
    return _scaled(x, _tensor(theta, x) * _along(mask, layout, x.ndim))


def reference_backward(
    dy: Tensor,
    x: Tensor,
    mu: Tensor,
    log_sigma: Tensor,
    mask: Tensor,
    seed: Tensor,
    layout: NoiseLayout,
    want_dx: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (dx, dμ, dlog σ); dx is an empty tensor if it is not wanted. All sums are float64."""
    masks = _along(mask, layout, x.ndim)
    uniforms = draw_uniforms(x.shape, *_usable(mu, log_sigma, mask), seed, layout)
    theta, *derivatives = (_tensor(part, x) for part in draw_noise_and_derivatives(uniforms, layout))
    dx = _scaled(dy, theta * masks) if want_dx else x.new_empty(0)
    products = _zero_where_pruned(_working(dy) * _working(x), masks)
    weight = _summed_to(products, theta.shape) * masks
    d_mu, d_log_sigma = (
        _summed_per_structure(weight * derivative, layout.axis).to(mu.dtype) for derivative in derivatives
    )
    return dx, d_mu, d_log_sigma


class ReferenceNoise(torch.autograd.Function):
    """y = x·θ·mask with the analytic backward pass; the noise is drawn again there, from the same seed."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mu: Tensor, log_sigma: Tensor, mask: Tensor, seed: Tensor, layout: NoiseLayout
    ) -> Tensor:
        """Multiply `x` by the noise and the mask."""
        ctx.save_for_backward(x, mu, log_sigma, mask, seed)
        ctx.layout = layout
        return reference_forward(x, mu, log_sigma, mask, seed, layout)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, mu and log_sigma; mask, seed and layout have none."""
        x, mu, log_sigma, mask, seed = ctx.saved_tensors
        want_dx = ctx.needs_input_grad[0]
        dx, d_mu, d_log_sigma = reference_backward(
            grad_outputs[0], x, mu, log_sigma, mask, seed, ctx.layout, want_dx
        )
        return dx if want_dx else None, d_mu, d_log_sigma, None, None, None


def _usable(mu: Tensor, log_sigma: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The parameters, 0 where the mask is: nobody looks at them there."""
    kept = mask != 0
    return torch.where(kept, mu, 0.0), torch.where(kept, log_sigma, 0.0)


def _zero_where_pruned(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask != 0, values, 0.0)


def _float64(parameters: Tensor) -> NDArray[np.float64]:
    return parameters.detach().double().cpu().numpy()


def _tensor(values: NDArray[np.float64], like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like.device)


def _working(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _scaled(values: Tensor, scale: Tensor) -> Tensor:
    working = _working(values)
    return _zero_where_pruned(working * scale.to(working.dtype), scale).to(values.dtype)


def _along(mask: Tensor, layout: NoiseLayout, ndim: int) -> Tensor:
    return mask.double().view(tuple(-1 if i == layout.axis else 1 for i in range(ndim)))


def _summed_to(values: Tensor, shape: torch.Size) -> Tensor:
    shared = [i for i, size in enumerate(shape) if size != values.shape[i]]
    return values.sum(shared, keepdim=True, dtype=torch.float64) if shared else values.double()


def _summed_per_structure(values: Tensor, axis: int) -> Tensor:
    return values.movedim(axis, 0).flatten(1).sum(1) if values.ndim > 1 else values
