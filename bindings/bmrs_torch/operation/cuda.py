"""The noise operation on CUDA tensors: memory allocated by torch, work queued by bmrs_kernels.

Nothing here waits for the device, but where something is first copied to it. In float64 the reference
answers, which does wait.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import ModuleType

import torch
from torch import Tensor

from bmrs_kernels.contract import NoiseLayout
from bmrs_kernels.gpu.walk import Walk, walk
from bmrs_torch.operation.cpu import as_arithmetic
from bmrs_torch.operation.reference import reference_backward, reference_forward

__all__ = ["current", "divergence", "noise_backward", "noise_forward", "noise_mean", "weighted"]


def noise_forward(
    x: Tensor, mu: Tensor, log_sigma: Tensor, mask: Tensor, seed: Tensor, layout: NoiseLayout
) -> Tensor:
    """Y = x·θ·mask, with the memory layout of `x`."""
    if x.dtype == torch.float64:
        return reference_forward(x, mu, log_sigma, mask, seed, layout)
    noise_gpu = _kernels("noise")

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
    layout: NoiseLayout,
    want_dx: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (dx, dμ, dlog σ); dx is an empty tensor if it is not wanted."""
    if x.dtype == torch.float64:
        return reference_backward(dy, x, mu, log_sigma, mask, seed, layout, want_dx)
    noise_gpu = _kernels("noise")

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


def divergence(
    parameters: Sequence[Sequence[Tensor]],
    bounds: tuple[tuple[float, ...], tuple[float, ...]],
    want_gradients: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """KL and kept structures of each layer, and the gradients of all structures, (2, structures).

    Each structure's are computed in float32, and NaN where its parameters are unusable; the sums are float64.
    """
    parameters_gpu = _kernels("parameters")

    mu, log_sigma, mask = (torch.cat([p.detach().float() for p in tensors]) for tensors in parameters)
    sizes = tuple(p.numel() for p in parameters[0])
    structures = mu.numel()
    sums = mu.new_empty((2, len(sizes), parameters_gpu.divergence_blocks(max(sizes))))
    gradients = mu.new_empty((2, structures if want_gradients else 0))
    with current(mu.device):
        places = _places(sizes, bounds, mu.device)[:2]
        parameters_gpu.divergence((mu, log_sigma, mask), places, sums, gradients if want_gradients else None)
    values, kept = sums.sum(2, dtype=torch.float64)
    return values, kept.to(torch.int64), gradients


def weighted(gradients: Tensor, weights: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """The gradients of :func:`divergence`, each times the weight of its layer."""
    layer_of = _places(sizes, ((0.0,) * len(sizes),) * 2, gradients.device)[2]
    return gradients * weights.to(gradients.dtype).index_select(0, layer_of)


def noise_mean(mu: Tensor, log_sigma: Tensor, log_a: float, log_b: float, *, gradients: bool) -> Tensor:
    """E[θ] of each structure, or its derivatives by mu and log sigma, (2, structures); float64."""
    parameters_gpu = _kernels("parameters")

    first, second = as_arithmetic(torch.float32, mu.detach(), log_sigma.detach())
    out = first.new_empty((2, mu.numel()) if gradients else (mu.numel(),))
    with current(mu.device):
        parameters_gpu.noise_mean(first, second, NoiseLayout(0, "batch", log_a, log_b), out)
    return out.double()


@functools.lru_cache(maxsize=64)
def _places(
    sizes: tuple[int, ...], bounds: tuple[tuple[float, ...], tuple[float, ...]], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Where layers start, their bounds, the layer of each structure; copied to the device once."""
    starts = torch.tensor([0, *itertools.accumulate(sizes)], dtype=torch.int32)
    layer_of = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return starts.to(device), torch.tensor(bounds, dtype=torch.float32).to(device), layer_of.to(device)


def _kernels(name: str) -> ModuleType:
    """A module of bmrs_kernels that needs Triton: imported when first needed, as not everyone has it."""
    try:
        return importlib.import_module(f"bmrs_kernels.gpu.{name}")
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise ImportError(
            "noise on a CUDA device needs Triton, which CUDA builds of torch bring on Linux but not "
            "everywhere; install the release that belongs to this torch, or move the model to the CPU"
        ) from error


def current(device: torch.device) -> AbstractContextManager[object]:
    """Make a device the current one, which kernels are queued on."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _parameters(mu: Tensor, log_sigma: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    first, second, third = as_arithmetic(torch.float32, mu, log_sigma, mask)
    return first, second, third


def _walked_forward(x: Tensor, layout: NoiseLayout) -> tuple[Tensor, Tensor, Walk]:
    """Return x, y and the way through them; x is copied only where its axes cannot be merged."""
    y = torch.empty_like(x)
    found = walk(tuple(x.shape), (x.stride(), y.stride()), layout)
    return _walked_forward(x.contiguous(), layout) if found is None else (x, y, found)


def _walked_backward(
    dy: Tensor, x: Tensor, layout: NoiseLayout, want_dx: bool
) -> tuple[Tensor, Tensor, Tensor, Walk]:
    dx = torch.empty_like(x) if want_dx else x.new_empty(0)
    if 0 not in dy.stride() and dy.stride() != dx.stride() and want_dx:
        # Read across the grain, dy would cost several times what it costs to turn it once.
        dy = torch.empty_like(dx).copy_(dy)
    found = walk(tuple(x.shape), (dy.stride(), x.stride(), dx.stride() if want_dx else x.stride()), layout)
    if found is None:
        return _walked_backward(dy.contiguous(), x.contiguous(), layout, want_dx)
    return dy, x, dx, found
