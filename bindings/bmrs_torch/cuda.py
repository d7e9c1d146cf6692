"""The noise operation on CUDA tensors: memory allocated by torch, work queued by bmrs_kernels.

Nothing here waits for the device. In float64 the reference answers, which does.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from bmrs_kernels.contract import Layout
from bmrs_kernels.gpu_walk import Walk, walk
from bmrs_torch.cpu import as_arithmetic
from bmrs_torch.reference import reference_backward, reference_forward

__all__ = ["current", "noise_backward", "noise_forward"]


def noise_forward(
    x: Tensor, mu: Tensor, log_sigma: Tensor, mask: Tensor, seed: Tensor, layout: Layout
) -> Tensor:
    """Y = x·θ·mask, with the memory layout of `x`."""
    if x.dtype == torch.float64:
        return reference_forward(x, mu, log_sigma, mask, seed, layout)
    from bmrs_kernels import noise_gpu

    walked, y, found = _walked_forward(x, layout)
    if x.numel():
        with current(x.device):
            noise_gpu.noise_forward(
                walked, y, _parameters(mu, log_sigma, mask), seed.to(x.device), found, layout
            )
    return y if walked is x else torch.empty_like(x).copy_(y)


def noise_backward(
    dy: Tensor,
    x: Tensor,
    mu: Tensor,
    log_sigma: Tensor,
    mask: Tensor,
    seed: Tensor,
    layout: Layout,
    want_dx: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (dx, dμ, dlog σ); dx is an empty tensor if it is not wanted."""
    if x.dtype == torch.float64:
        return reference_backward(dy, x, mu, log_sigma, mask, seed, layout, want_dx)
    from bmrs_kernels import noise_gpu

    dy, walked, dx, found = _walked_backward(dy, x, layout, want_dx)
    gradients = mu.new_empty((2, mu.numel()), dtype=torch.float32)
    if not x.numel():
        gradients.zero_()
    else:
        tensors = (dy, walked, dx if want_dx else None)
        with current(x.device):
            noise_gpu.noise_backward(
                tensors, _parameters(mu, log_sigma, mask), gradients, seed.to(x.device), found, layout
            )
    if want_dx and walked is not x:
        dx = torch.empty_like(x).copy_(dx)
    return dx, gradients[0].to(mu.dtype), gradients[1].to(log_sigma.dtype)


def current(device: torch.device) -> AbstractContextManager[object]:
    """Make a device the current one, which kernels are queued on."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _parameters(mu: Tensor, log_sigma: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    first, second, third = as_arithmetic(torch.float32, mu, log_sigma, mask)
    return first, second, third


def _walked_forward(x: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Walk]:
    """Return x, y and the way through them; x is copied only where its axes cannot be merged."""
    y = torch.empty_like(x)
    found = walk(tuple(x.shape), (x.stride(), y.stride()), layout)
    return _walked_forward(x.contiguous(), layout) if found is None else (x, y, found)


def _walked_backward(
    dy: Tensor, x: Tensor, layout: Layout, want_dx: bool
) -> tuple[Tensor, Tensor, Tensor, Walk]:
    dx = torch.empty_like(x) if want_dx else x.new_empty(0)
    if 0 not in dy.stride() and dy.stride() != dx.stride() and want_dx:
        # Read across the grain, dy would cost several times what it costs to turn it once.
        dy = torch.empty_like(dx).copy_(dy)
    found = walk(tuple(x.shape), (dy.stride(), x.stride(), dx.stride() if want_dx else x.stride()), layout)
    if found is None:
        return _walked_backward(dy.contiguous(), x.contiguous(), layout, want_dx)
    return dy, x, dx, found
