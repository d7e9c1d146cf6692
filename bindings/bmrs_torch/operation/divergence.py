"""KL of the noise of many layers from its prior, in one call with its gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bmrs_kernels.cpu import noise as noise_cpu
from bmrs_torch.operation.checks import check_mask, check_parameter_shapes
from bmrs_torch.operation.cpu import as_arithmetic, raise_unusable
from bmrs_torch.operation.memory import addresses, are_plain, is_ordinary
from bmrs_torch.operation.operators import differentiable_once, refuse_transforms

if TYPE_CHECKING:
    from collections.abc import Sequence
__all__ = ["Divergence", "divergence_of"]

_library = torch.library.Library("bmrs", "FRAGMENT")
_library.define(
    "divergence(Tensor[] mu, Tensor[] log_sigma, Tensor[] mask, float[] log_a, float[] log_b) "
    "-> (Tensor, Tensor, Tensor)"
)
Lists = tuple[
    "Sequence[Tensor]", "Sequence[Tensor]", "Sequence[Tensor]", "Sequence[float]", "Sequence[float]"
]


class Divergence(NamedTuple):
    """KL of the noise of several layers from its prior.

    Parameters
    ----------
    total : Tensor of float64, scalar
        Sum over all layers, in nats.
    values : Tensor of float64, shape (layers,)
        Sum over the kept structures of each.
    kept : Tensor of int64, shape (layers,)
        How many those are.
    """

    total: Tensor
    values: Tensor
    kept: Tensor


def divergence_of(
    names: Sequence[str],
    parameters: Sequence[tuple[Tensor, Tensor, Tensor]],
    bounds: Sequence[tuple[float, float]],
) -> Divergence:
    """KL of the noise of several layers from its prior, differentiable in `mu` and `log_sigma`.

    Parameters
    ----------
    names : sequence of str
        Of the layers, for errors.
    parameters : sequence of tuple of Tensor
        Mu, log sigma and mask of each layer, on one device.
    bounds : sequence of tuple of float
        log_a and log_b of each.

    Returns
    -------
    Divergence

    Raises
    ------
    ValueError
        If a kept structure's parameters are unusable; the layer is named. On a GPU, which nobody waits for,
        the divergence of that layer is NaN instead. If parameters are of different shapes, or some are on the
        meta device and others not.
    TypeError
        If they aren't floating-point numbers.
    """
    mu, log_sigma, mask = (list(tensors) for tensors in zip(*parameters, strict=True))
    log_a, log_b = (list(values) for values in zip(*bounds, strict=True))
    refuse_transforms()
    compiling = torch.compiler.is_compiling()
    if not compiling:
        _check(names, parameters)
    if compiling or not _can_be_read(parameters):
        values, kept, _ = torch.ops.bmrs.divergence(mu, log_sigma, mask, log_a, log_b)
        return Divergence(values.sum(), values, kept)
    try:
        answer = _Divergence.apply(log_a, log_b, mask, *mu, *log_sigma)  # type: ignore[no-untyped-call]
    except UnusableError as error:
        own_mu, own_log_sigma = mu[error.layer], log_sigma[error.layer]
        wide = any(m.dtype == torch.float64 for m in mu)
        raise_unusable(own_mu, own_log_sigma, error.structure, names[error.layer], wide=wide)
    return Divergence(*answer)


def _check(names: Sequence[str], parameters: Sequence[tuple[Tensor, Tensor, Tensor]]) -> None:
    """Raise, naming the layer, what of the parameters' shapes, dtypes and places no kernel can take."""
    on_meta = [any(t.is_meta for t in tensors) for tensors in parameters]
    if any(on_meta) and not all(t.is_meta for tensors in parameters for t in tensors):
        named = names[on_meta.index(True)] or "(the model)"
        raise ValueError(
            f"the noise {named} is on the meta device, where it has no values, and the rest of the noise "
            "is not: give it values first, e.g. by to_empty(device='cpu') and load_state_dict"
        )
    for name, (mu, log_sigma, mask) in zip(names, parameters, strict=True):
        if are_plain(mu, log_sigma, mask) or _are_vectors(mu, log_sigma, mask):
            continue
        try:
            check_parameter_shapes(mu, log_sigma)
            check_mask(mask, mu)
        except (TypeError, ValueError) as error:
            raise type(error)(f"the noise {name or '(the model)'}: {error}") from error


def _are_vectors(mu: Tensor, log_sigma: Tensor, mask: Tensor) -> bool:
    """Whether they are alike on a GPU, asked in less time than all that could be wrong."""
    alike = mu.is_cuda and mu.shape == log_sigma.shape == mask.shape
    return alike and mu.ndim == 1 and mu.dtype == log_sigma.dtype == mask.dtype and mu.is_floating_point()


def _can_be_read(parameters: Sequence[tuple[Tensor, Tensor, Tensor]]) -> bool:
    """Whether all of them lie in memory of their own: of a GPU, or ordinary ones of the CPU."""
    return all(t.is_cuda or is_ordinary(t) for tensors in parameters for t in tensors)


class UnusableError(ValueError):
    """Parameters that a kernel refused, by the places of layer and structure."""

    def __init__(self, layer: int, structure: int) -> None:
        super().__init__(f"the parameters of structure {structure} of noise layer {layer} are unusable")
        self.layer, self.structure = layer, structure


def _evaluate(lists: Lists, want_gradients: bool) -> tuple[Tensor, Tensor, Tensor]:
    """KL and kept structures of each layer, and the gradients of all structures, (2, structures)."""
    on_gpu = lists[0][0].is_cuda and not any(m.dtype == torch.float64 for m in lists[0])
    return _evaluate_cuda(lists, want_gradients) if on_gpu else _evaluate_cpu(lists, want_gradients)


def _evaluate_cuda(lists: Lists, want_gradients: bool) -> tuple[Tensor, Tensor, Tensor]:
    from bmrs_torch.operation import cuda

    *parameters, log_a, log_b = lists
    return cuda.divergence(parameters, (tuple(log_a), tuple(log_b)), want_gradients)


def _evaluate_cpu(lists: Lists, want_gradients: bool) -> tuple[Tensor, Tensor, Tensor]:
    mu, log_sigma, mask, log_a, log_b = lists
    dtype = torch.float64 if any(m.dtype == torch.float64 for m in mu) else torch.float32
    # Held by name: what lies at an address must live until the kernel is done.
    parameters = [as_arithmetic(dtype, *(t.cpu() for t in tensors)) for tensors in (mu, log_sigma, mask)]
    sizes = np.array([m.numel() for m in mu], np.int64)
    gradients = (
        torch.empty((2, int(sizes.sum())), dtype=dtype) if want_gradients else torch.empty(2, 0, dtype=dtype)
    )
    values, kept, bad = noise_cpu.divergence(
        str(dtype).removeprefix("torch."),
        np.array([addresses(*tensors) for tensors in parameters], np.int64),
        sizes,
        np.array([log_a, log_b], np.float64),
        gradients.numpy() if want_gradients else None,
    )
    if bad >= 0:
        ends = np.cumsum(sizes)
        layer = int(np.searchsorted(ends, bad, side="right"))
        raise UnusableError(layer, int(bad - (ends[layer] - sizes[layer])))
    device = mu[0].device
    return torch.from_numpy(values).to(device), torch.from_numpy(kept).to(device), gradients.to(device)


def _weighted(gradients: Tensor, weights: Tensor, mu: Sequence[Tensor], log_sigma: Sequence[Tensor]) -> Any:
    """The gradients of each layer times its weight, as lists for mu and log sigma."""
    sizes = [m.numel() for m in mu]
    parts = _scaled(gradients, weights.detach(), sizes)
    return tuple(
        [
            part if part.dtype == p.dtype else part.to(p.dtype)
            for part, p in zip(row.split(sizes), params, strict=True)
        ]
        for row, params in ((parts[0], mu), (parts[1], log_sigma))
    )


def _scaled(gradients: Tensor, weights: Tensor, sizes: list[int]) -> Tensor:
    if gradients.is_cuda:
        from bmrs_torch.operation import cuda

        return cuda.weighted(gradients, weights, tuple(sizes))
    scaled = noise_cpu.scaled_gradients(
        str(gradients.dtype).removeprefix("torch."),
        np.array(sizes, np.int64),
        np.ascontiguousarray(weights.numpy(), np.float64),
        gradients.numpy(),
    )
    return torch.from_numpy(scaled)


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, log_a: list[float], log_b: list[float], mask: list[Tensor], *parameters: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        layers = len(mask)
        mu, log_sigma = parameters[:layers], parameters[layers:]
        values, kept, gradients = _evaluate(
            (mu, log_sigma, mask, log_a, log_b), any(ctx.needs_input_grad[3:])
        )
        ctx.save_for_backward(gradients)
        ctx.parameters = (mu, log_sigma)
        ctx.mark_non_differentiable(kept)
        return values.sum(), values, kept

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, by_total: Tensor, by_values: Tensor, _kept: Tensor) -> tuple[Tensor | None, ...]:
        (gradients,) = ctx.saved_tensors
        d_mu, d_log_sigma = _weighted(gradients, by_values + by_total, *ctx.parameters)
        return None, None, None, *d_mu, *d_log_sigma


def _divergence(*lists: Any) -> tuple[Tensor, Tensor, Tensor]:
    mu, log_sigma, mask = lists[:3]
    _check([f"layer {number}" for number in range(len(mu))], list(zip(mu, log_sigma, mask, strict=True)))
    return _evaluate(lists, want_gradients=True)


def _divergence_fake(mu: Sequence[Tensor], *_rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    total = sum(m.numel() for m in mu)
    dtype = torch.float64 if any(m.dtype == torch.float64 for m in mu) else torch.float32
    like = mu[0]
    return (
        like.new_empty(len(mu), dtype=torch.float64),
        like.new_empty(len(mu), dtype=torch.int64),
        like.new_empty((2, total), dtype=dtype),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    mu, log_sigma, mask, _, _ = inputs
    ctx.save_for_backward(output[2])
    ctx.dtypes = [m.dtype for m in mu], [s.dtype for s in log_sigma]
    ctx.sizes, ctx.masks = [m.numel() for m in mu], len(mask)


def _differentiate(ctx: Any, d_values: Tensor, *_rest: Tensor) -> tuple[Any, ...]:
    (gradients,) = ctx.saved_tensors
    weights = torch.cat([w.expand(size) for w, size in zip(d_values, ctx.sizes, strict=True)])
    scaled = (gradients * weights).split(ctx.sizes, dim=1)
    d_mu, d_log_sigma = (
        [part[k].to(dtype) for part, dtype in zip(scaled, dtypes, strict=True)]
        for k, dtypes in enumerate(ctx.dtypes)
    )
    return d_mu, d_log_sigma, [None] * ctx.masks, None, None


_library.impl("divergence", _divergence, "CompositeExplicitAutograd")
torch.library.register_fake("bmrs::divergence", _divergence_fake, lib=_library)
torch.library.register_autograd(
    "bmrs::divergence", _differentiate, setup_context=_setup_context, lib=_library
)
