"""What the noise operation accepts, and the errors that say so."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bmrs_kernels.contract import SHARES
from bmrs_torch.operation.arguments import check_real

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def check_share(share: str) -> None:
    """Raise ValueError unless `share` is one of the three ways of sharing the noise."""
    if share not in SHARES:
        raise ValueError(
            "share must be 'sample' (one θ per sample and structure), 'batch' (one per structure) or "
            f"'element' (one per activation), got {share!r}"
        )


def check_bounds(log_a: float, log_b: float) -> None:
    """Raise unless log_a < log_b are finite numbers."""
    for name, value in (("log_a", log_a), ("log_b", log_b)):
        check_real(name, value)
    if not (math.isfinite(log_a) and math.isfinite(log_b) and log_a < log_b):
        raise ValueError(
            f"log_a and log_b must be finite with log_a < log_b (they bound log θ), got log_a={log_a}, "
            f"log_b={log_b}"
        )


def structure_axis(x: Tensor, axis: int, share: str) -> int:
    """Return `axis` counted from the front, or say why it can't be the structures' axis of `x`."""
    if not -x.ndim <= axis < x.ndim:
        hint = " (for one unbatched sample of shape (structures,) give axis=-1)" if x.ndim == 1 else ""
        raise ValueError(
            f"axis must lie in [{-x.ndim}, {x.ndim - 1}] for x of shape {tuple(x.shape)}, got {axis}{hint}"
        )
    front = axis % x.ndim
    if share == "sample" and front == 0 and x.ndim > 1:
        raise ValueError(
            "with share='sample' axis 0 of x counts the samples and can't be the structures' axis too: x of "
            f"shape {tuple(x.shape)}, axis={axis}; choose another axis, share='batch' or share='element'"
        )
    return front


def check_dense(x: Tensor) -> None:
    """Raise TypeError unless `x` is a dense tensor, whose entries lie at regular distances."""
    if x.is_nested or x.layout is not torch.strided:
        kind = "nested" if x.is_nested else str(x.layout)
        raise TypeError(
            f"x must be a dense tensor (torch.strided), got a {kind} one: give x.to_dense(), or, where "
            "samples are of different lengths, one padded to the longest"
        )


def check_device(x: Tensor, **others: Tensor) -> None:
    """Raise ValueError unless the parameters of the noise are where `x` is."""
    for name, value in others.items():
        if value.device != x.device:
            raise ValueError(
                f"x and the parameters of the noise must be on one device, got x on {x.device} and {name} on "
                f"{value.device}: move the layer by .to({str(x.device)!r})"
                + (", after giving it values: on meta it has none" if value.is_meta else "")
            )


def check_input(x: Tensor, mu: Tensor, front: int) -> None:
    """Raise unless `x` is floating, with as many structures on axis `front` as `mu` has."""
    if x.dtype not in _DTYPES:
        raise TypeError(f"x must be float32, float64, bfloat16 or float16, got {x.dtype}")
    if x.shape[front] != mu.numel():
        raise ValueError(
            f"x has {x.shape[front]} structures on axis {front} (shape {tuple(x.shape)}), but there are "
            f"noise parameters for {mu.numel()}; the axis of x that counts the structures must have one "
            "entry per parameter"
        )


def check_parameter_shapes(mu: Tensor, log_sigma: Tensor) -> None:
    """Raise unless the parameters are floating vectors of one length; kernels look at their values."""
    for name, value in (("mu", mu), ("log_sigma", log_sigma)):
        if not value.is_floating_point():
            raise TypeError(f"{name} must be a floating-point tensor, got {value.dtype}")
        if value.layout is not torch.strided:
            raise TypeError(f"{name} must be a dense tensor (torch.strided), got {value.layout}")
        if value.ndim != 1 or value.shape != mu.shape:
            raise ValueError(
                "mu and log_sigma must be vectors of one length, an entry per structure, got mu "
                f"{tuple(mu.shape)} and log_sigma {tuple(log_sigma.shape)}"
            )


def check_parameters(mu: Tensor, log_sigma: Tensor) -> None:
    """Raise unless the parameters are finite vectors of one length and σ is a positive float64."""
    check_parameter_shapes(mu, log_sigma)
    if mu.is_meta or log_sigma.is_meta:
        raise ValueError("mu and log_sigma are on the meta device, where they have no values")
    check_finite("mu", mu)
    check_finite("log_sigma", log_sigma)
    sigma = log_sigma.detach().double().exp()
    if not bool(((sigma > 0) & sigma.isfinite()).all()):
        raise ValueError(
            "exp(log_sigma) must be positive and finite in float64, got log_sigma from "
            f"{log_sigma.min().item():g} to {log_sigma.max().item():g}"
        )


def check_finite(name: str, value: Tensor) -> None:
    """Raise ValueError naming the first entry of `value` that is not finite."""
    bad = ~value.detach().isfinite()
    if bool(bad.any()):
        first = int(bad.nonzero()[0, 0])
        raise ValueError(
            f"{name} has {int(bad.sum())} non-finite of {value.numel()} values (first: {value[first].item()} "
            f"at structure {first}); the noise is undefined there and training must not go on from it"
        )


def check_mask(mask: Tensor, mu: Tensor) -> None:
    """Raise unless `mask` is a boolean or floating vector of the shape of `mu`."""
    if mask.shape != mu.shape:
        raise ValueError(
            f"mask must hold one entry per structure, shape {tuple(mu.shape)}, got shape {tuple(mask.shape)}"
        )
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise TypeError(f"mask must be boolean or floating-point, got {mask.dtype}")
    if mask.layout is not torch.strided:
        raise TypeError(f"mask must be a dense tensor (torch.strided), got {mask.layout}")


def check_seed(seed: Tensor) -> None:
    """Raise TypeError unless `seed` is an int64 tensor of one element."""
    if not isinstance(seed, Tensor) or seed.dtype != torch.int64 or seed.numel() != 1:
        came = (
            f"{seed.dtype} of shape {tuple(seed.shape)}" if isinstance(seed, Tensor) else type(seed).__name__
        )
        raise TypeError(f"seed must be an int64 tensor of one element, as torch.randint gives, got {came}")
