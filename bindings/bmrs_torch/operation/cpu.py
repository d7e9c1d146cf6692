"""The noise operation on CPU tensors: memory allocated by torch, work done by bmrs_kernels."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

from bmrs_kernels.contract import LOG_SIGMA_LIMIT, LOG_SIGMA_LIMIT_FLOAT64, NoiseLayout
from bmrs_kernels.cpu import noise as noise_cpu
from bmrs_kernels.strides import Traversal, plan
from bmrs_torch.operation.memory import addresses

__all__ = [
    "as_arithmetic",
    "noise_backward",
    "noise_forward",
    "raise_unusable",
    "scale_backward",
    "scale_forward",
]

_NAMES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}


def noise_forward(
    x: Tensor, mu: Tensor, log_sigma: Tensor, mask: Tensor, seed: Tensor, layout: NoiseLayout
) -> Tensor:
    """Y = x·θ·mask, with the memory layout of `x`."""
    walked, y, found = _planned_forward(x, layout)
    if found.units:
        parameters = as_arithmetic(x.dtype, mu, log_sigma, mask)
        bad = noise_cpu.noise_forward(
            _NAMES[x.dtype],
            found,
            addresses(walked, y),
            addresses(*parameters),
            int(seed.item()),
            layout,
            torch.get_num_threads(),
        )
        if bad >= 0:
            raise_unusable(mu, log_sigma, bad, wide=x.dtype == torch.float64)
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
    dy, walked, dx, found = _planned_backward(dy, x, layout, want_dx)
    parameters = as_arithmetic(x.dtype, mu, log_sigma, mask)
    d_mu, d_log_sigma = torch.empty_like(parameters[0]), torch.empty_like(parameters[1])
    if not found.units:
        return dx, d_mu.zero_().to(mu.dtype), d_log_sigma.zero_().to(log_sigma.dtype)
    bad = noise_cpu.noise_backward(
        _NAMES[x.dtype],
        found,
        addresses(dy, walked, dx),
        addresses(*parameters),
        addresses(d_mu, d_log_sigma),
        int(seed.item()),
        layout,
        torch.get_num_threads(),
    )
    if bad >= 0:
        raise_unusable(mu, log_sigma, bad, wide=x.dtype == torch.float64)
    if want_dx and walked is not x:
        dx = torch.empty_like(x).copy_(dx)
    if mu.dtype != d_mu.dtype or log_sigma.dtype != d_log_sigma.dtype:
        return dx, d_mu.to(mu.dtype), d_log_sigma.to(log_sigma.dtype)
    return dx, d_mu, d_log_sigma


def scale_forward(x: Tensor, theta: Tensor, axis: int) -> Tensor:
    """Y = x·θ in float32; θ, drawn already, is (samples, structures) with contiguous rows."""
    x, y, found = _planned_forward(x, NoiseLayout(axis, "sample", 0.0, 0.0))
    noise_cpu.scale_forward(found, addresses(x, y), (*addresses(theta), theta.stride(0)))
    return y


def scale_backward(dy: Tensor, x: Tensor, theta: Tensor, axis: int, want_dx: bool) -> tuple[Tensor, Tensor]:
    """Return (dx, dθ); dx is an empty tensor if it is not wanted."""
    dy, x, dx, found = _planned_backward(dy, x, NoiseLayout(axis, "sample", 0.0, 0.0), want_dx)
    d_theta = x.new_empty(theta.shape)
    noise_cpu.scale_backward(
        found,
        addresses(dy, x, dx),
        (*addresses(theta), theta.stride(0)),
        *addresses(d_theta),
    )
    return dx, d_theta


def _planned_forward(x: Tensor, layout: NoiseLayout) -> tuple[Tensor, Tensor, Traversal]:
    """Return x, y and the plan for them; x is copied only where its axes cannot be merged."""
    x = x.resolve_neg()
    y = torch.empty_like(x)
    found = plan(x.shape, (x.stride(), y.stride()), layout)
    if found is None:
        return _planned_forward(x.contiguous(), layout)
    return x, y, found


def _planned_backward(
    dy: Tensor, x: Tensor, layout: NoiseLayout, want_dx: bool
) -> tuple[Tensor, Tensor, Tensor, Traversal]:
    dy = (dy if dy.layout is torch.strided else dy.to_dense()).resolve_neg()
    x = x.resolve_neg()
    dx = torch.empty_like(x) if want_dx else x.new_empty(0)
    found = plan(x.shape, (dy.stride(), x.stride(), dx.stride() if want_dx else x.stride()), layout)
    if found is None:
        return _planned_backward(dy.contiguous(), x.contiguous(), layout, want_dx)
    return dy, x, dx, found


def raise_unusable(
    mu: Tensor, log_sigma: Tensor, structure: int, layer: str = "", *, wide: bool = False
) -> NoReturn:
    """Raise the ValueError about a structure's parameters that a kernel, in float64 if wide, refused."""
    limit = LOG_SIGMA_LIMIT_FLOAT64 if wide else LOG_SIGMA_LIMIT
    prefix = f"{layer}: " if layer else ""
    raise ValueError(
        f"{prefix}mu and log_sigma must be finite and |log_sigma| at most {limit:g} where the mask "
        f"is not 0, got mu={mu[structure].item():g}, log_sigma={log_sigma[structure].item():g} at structure "
        f"{structure}; the noise is undefined there and training must not go on from it"
    )


def as_arithmetic(dtype: torch.dtype, *parameters: Tensor) -> tuple[Tensor, ...]:
    """Parameters contiguous in the arithmetic of tensors of a dtype."""
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    return tuple(
        p if p.dtype == wanted and p.is_contiguous() else p.resolve_neg().to(wanted).contiguous()
        for p in parameters
    )
