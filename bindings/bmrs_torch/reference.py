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

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Layout(NamedTuple):
    """Where the structures lie in `x`, how the noise is shared, and the bounds of log θ."""

    axis: int
    share: str
    log_a: float
    log_b: float

    def noise_shape(self, shape: torch.Size) -> tuple[int, ...]:
        """Shape of θ for an `x` of `shape`; its row-major index is the counter of the draw."""
        if self.share == "element":
            return tuple(shape)
        per_sample = self.share == "sample"
        return tuple(size if i == self.axis or (i == 0 and per_sample) else 1 for i, size in enumerate(shape))

    def along_axis(self, parameters: NDArray[np.float64], ndim: int) -> NDArray[np.float64]:
        """View a vector with one entry per structure so that it broadcasts against θ."""
        return parameters.reshape(tuple(-1 if i == self.axis else 1 for i in range(ndim)))


class Uniforms(NamedTuple):
    """Random numbers of the noise shape, and the parameters of log θ broadcastable to them; all float64."""

    u: NDArray[np.float64]
    mu: NDArray[np.float64]
    sigma: NDArray[np.float64]


def draw_uniforms(shape: torch.Size, mu: Tensor, log_sigma: Tensor, seed: Tensor, layout: Layout) -> Uniforms:
    """Draw u for an input of `shape`, a pure function of the seed, and lay the parameters out beside it.

    Parameters
    ----------
    shape : torch.Size
        Shape of the input.
    mu, log_sigma : Tensor, shape (structures,)
        Parameters of log θ.
    seed : Tensor of int64, one element
        Key of the random numbers.
    layout : Layout
        Axis and sharing.

    Returns
    -------
    Uniforms
    """
    noise_shape = layout.noise_shape(shape)
    u = philox.uniform(int(seed.item()), 0, math.prod(noise_shape)).reshape(noise_shape)
    along = (layout.along_axis(_float64(p), len(shape)) for p in (mu, log_sigma))
    return Uniforms(u, next(along), np.exp(next(along)))


def draw_noise(draw: Uniforms, layout: Layout) -> NDArray[np.float64]:
    """θ of the noise shape."""
    theta: NDArray[np.float64] = np.exp(log_quantile(*draw, log_a=layout.log_a, log_b=layout.log_b))
    return theta


def draw_noise_and_derivatives(draw: Uniforms, layout: Layout) -> tuple[NDArray[np.float64], ...]:
    """θ, ∂θ/∂μ and ∂θ/∂log σ of the noise shape."""
    x, dx_dmu, dx_dsigma = log_quantile_grad(*draw, log_a=layout.log_a, log_b=layout.log_b)
    theta = np.exp(x)
    return theta, theta * dx_dmu, theta * dx_dsigma * draw.sigma


class ReferenceNoise(torch.autograd.Function):
    """y = x·θ·mask with the analytic backward pass; the noise is drawn again there, from the same seed.

    θ, its derivatives and all sums are float64; products of the size of `x` float32 (float64 for float64).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mu: Tensor, log_sigma: Tensor, mask: Tensor, seed: Tensor, layout: Layout
    ) -> Tensor:
        """Multiply `x` by the noise and the mask."""
        ctx.save_for_backward(x, mu, log_sigma, mask, seed)
        ctx.layout = layout
        theta = draw_noise(draw_uniforms(x.shape, mu, log_sigma, seed, layout), layout)
        return _scaled(x, _tensor(theta, x) * _along(mask, layout, x.ndim))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, mu and log_sigma; mask, seed and layout have none."""
        x, mu, log_sigma, mask, seed = ctx.saved_tensors
        layout: Layout = ctx.layout
        dy = grad_outputs[0]
        masks = _along(mask, layout, x.ndim)
        uniforms = draw_uniforms(x.shape, mu, log_sigma, seed, layout)
        if not any(ctx.needs_input_grad[1:3]):
            theta = _tensor(draw_noise(uniforms, layout), x)
            return _scaled(dy, theta * masks), None, None, None, None, None
        theta, *derivatives = (_tensor(part, x) for part in draw_noise_and_derivatives(uniforms, layout))
        dx = _scaled(dy, theta * masks) if ctx.needs_input_grad[0] else None
        weight = _summed_to(_working(dy) * _working(x), theta.shape) * masks
        d_mu, d_log_sigma = (
            _summed_per_structure(weight * derivative, layout.axis).to(mu.dtype) for derivative in derivatives
        )
        return dx, d_mu, d_log_sigma, None, None, None


def _float64(parameters: Tensor) -> NDArray[np.float64]:
    return parameters.detach().double().cpu().numpy()


def _tensor(values: NDArray[np.float64], like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like.device)


def _working(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _scaled(values: Tensor, scale: Tensor) -> Tensor:
    working = _working(values)
    return (working * scale.to(working.dtype)).to(values.dtype)


def _along(mask: Tensor, layout: Layout, ndim: int) -> Tensor:
    return mask.double().view(tuple(-1 if i == layout.axis else 1 for i in range(ndim)))


def _summed_to(values: Tensor, shape: torch.Size) -> Tensor:
    shared = [i for i, size in enumerate(shape) if size != values.shape[i]]
    return values.sum(shared, keepdim=True, dtype=torch.float64) if shared else values.double()


def _summed_per_structure(values: Tensor, axis: int) -> Tensor:
    return values.movedim(axis, 0).flatten(1).sum(1) if values.ndim > 1 else values
