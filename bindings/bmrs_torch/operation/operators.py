"""The noise operation as torch operators, ``torch.ops.bmrs.*``: what torch.compile and torch.export see.

In eager mode on the CPU `apply_noise` takes a shorter way through an autograd.Function with the same two
implementations; small layers feel the dispatcher.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

from bmrs_kernels.contract import SHARES, NoiseLayout
from bmrs_torch.operation import cpu
from bmrs_torch.operation.memory import is_ordinary

__all__ = ["applied", "apply_noise", "differentiable_once", "refuse_transforms", "refuse_twice", "scaled"]

_LAYOUT = "int axis, int share, float log_a, float log_b"
_library = torch.library.Library("bmrs", "DEF")
_library.define(
    f"noise(Tensor x, Tensor mu, Tensor log_sigma, Tensor mask, Tensor seed, {_LAYOUT}) -> Tensor"
)
_library.define(
    "noise_backward(Tensor dy, Tensor x, Tensor mu, Tensor log_sigma, Tensor mask, Tensor seed, "
    f"{_LAYOUT}, bool want_dx) -> (Tensor, Tensor, Tensor)"
)


Backward = Callable[..., tuple[Tensor | None, ...]]


def differentiable_once(function: Backward) -> Backward:
    """Refuse a second differentiation, of whatever the gradients depend on.

    torch's own `once_differentiable` costs ten microseconds a call and looks at the incoming gradients only:
    where those are constants, as in ``y.sum()``, it takes the gradient itself for a constant.
    """

    @functools.wraps(function)
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:
        if not torch.is_grad_enabled():
            return function(ctx, *grad_outputs)
        with torch.no_grad():
            gradients = function(ctx, *grad_outputs)
        found = [gradient for gradient in gradients if gradient is not None]
        sources = (torch.empty(0, requires_grad=True), *grad_outputs, *ctx.saved_tensors)
        refusing = iter(_Once.apply(len(found), *found, *sources))  # type: ignore[no-untyped-call]
        return tuple(None if gradient is None else next(refusing) for gradient in gradients)

    return backward


class _Once(torch.autograd.Function):
    """Gradients that say, when differentiated, that they cannot be; what they depend on comes after them."""

    @staticmethod
    def forward(_ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor.clone() for tensor in tensors[:count])

    @staticmethod
    def backward(_ctx: Any, *_grad_outputs: Tensor) -> None:
        refuse_twice()


def refuse_twice(*_arguments: Any) -> NoReturn:
    """Raise RuntimeError: the derivative of a gradient was asked for."""
    raise RuntimeError(
        "the gradients of multiplicative noise, of its divergence and of TruncatedLogNormal are analytic and "
        "cannot be differentiated again (create_graph=True): take second derivatives and gradient penalties "
        "with the layers in evaluation mode and their parameters frozen, or the distribution's detached"
    )


def apply_noise(
    x: Tensor, mu: Tensor, log_sigma: Tensor, mask: Tensor, seed: Tensor, layout: NoiseLayout
) -> Tensor:
    """Multiply checked `x` by noise and mask, differentiably."""
    refuse_transforms()
    if _are_eager(x, mu, log_sigma, mask):
        result: Tensor = applied(_Noise, x, mu, log_sigma, mask, seed, layout)
        return result
    axis, share, log_a, log_b = layout
    code = SHARES.index(share)
    answer: Tensor = torch.ops.bmrs.noise(x, mu, log_sigma, mask, seed, axis, code, log_a, log_b)
    return answer


def _are_eager(*tensors: Tensor) -> bool:
    """Tell whether nothing looks on: no subclass, no compiler."""
    return all(map(is_ordinary, tensors)) and not torch.compiler.is_compiling()


def refuse_transforms() -> None:
    """Raise RuntimeError inside torch.func.grad, vmap, jvp and the like."""
    # What torch.autograd.Function asks too; an operator without a rule would answer with a tangent of 0.
    if torch._C._are_functorch_transforms_active():
        raise RuntimeError(
            "multiplicative noise does not support the transforms of torch.func (grad, vmap, jvp, ...): take "
            "gradients by torch.autograd.grad or backward(), and loop over samples or models instead of vmap"
        )


class _Noise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mu: Tensor, log_sigma: Tensor, mask: Tensor, seed: Tensor, layout: NoiseLayout
    ) -> Tensor:
        ctx.save_for_backward(x, mu, log_sigma, mask, seed)
        ctx.layout = layout
        return cpu.noise_forward(x, mu, log_sigma, mask, seed, layout)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, mu, log_sigma, mask, seed = ctx.saved_tensors
        want_dx = ctx.needs_input_grad[0]
        dx, d_mu, d_log_sigma = cpu.noise_backward(
            grad_outputs[0], x, mu, log_sigma, mask, seed, ctx.layout, want_dx
        )
        return dx if want_dx else None, d_mu, d_log_sigma, None, None, None


def applied(function: type[torch.autograd.Function], *arguments: Any) -> Any:
    """Apply an autograd.Function outside the transforms of torch.func.

    Its own `apply` first goes through the arguments for what such transforms left, which small layers feel.
    """
    return super(torch.autograd.Function, function).apply(*arguments)  # type: ignore[misc]


def scaled(x: Tensor, theta: Tensor, axis: int) -> Tensor:
    """Multiply float32 `x` on the CPU by noise per sample, drawn already: (samples, structures)."""
    result: Tensor = applied(_Scaled, x, theta, axis)
    return result


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, theta: Tensor, axis: int) -> Tensor:
        ctx.save_for_backward(x, theta)
        ctx.axis = axis
        return cpu.scale_forward(x, theta, axis)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, theta = ctx.saved_tensors
        want_dx = ctx.needs_input_grad[0]
        dx, d_theta = cpu.scale_backward(grad_outputs[0], x, theta, ctx.axis, want_dx)
        return dx if want_dx else None, d_theta, None


def _layout(axis: int, share: int, log_a: float, log_b: float) -> NoiseLayout:
    return NoiseLayout(axis, SHARES[share], log_a, log_b)


def _noise_cpu(x: Tensor, mu: Tensor, log_sigma: Tensor, mask: Tensor, seed: Tensor, *layout: Any) -> Tensor:
    return cpu.noise_forward(x, mu, log_sigma, mask, seed, _layout(*layout))


def _noise_backward_cpu(
    dy: Tensor, x: Tensor, mu: Tensor, log_sigma: Tensor, mask: Tensor, seed: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    *layout, want_dx = rest
    return cpu.noise_backward(dy, x, mu, log_sigma, mask, seed, _layout(*layout), want_dx)


def _noise_cuda(x: Tensor, mu: Tensor, log_sigma: Tensor, mask: Tensor, seed: Tensor, *layout: Any) -> Tensor:
    from bmrs_torch.operation import cuda

    return cuda.noise_forward(x, mu, log_sigma, mask, seed, _layout(*layout))


def _noise_backward_cuda(
    dy: Tensor, x: Tensor, mu: Tensor, log_sigma: Tensor, mask: Tensor, seed: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    from bmrs_torch.operation import cuda

    *layout, want_dx = rest
    return cuda.noise_backward(dy, x, mu, log_sigma, mask, seed, _layout(*layout), want_dx)


def _noise_fake(x: Tensor, *_rest: Any) -> Tensor:
    return torch.empty_like(x)


def _noise_backward_fake(
    _dy: Tensor, x: Tensor, mu: Tensor, log_sigma: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    dx = torch.empty_like(x) if rest[-1] else x.new_empty(0)
    return dx, torch.empty_like(mu), torch.empty_like(log_sigma)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    ctx.save_for_backward(*inputs[:5])
    ctx.layout = inputs[5:]


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    want_dx = ctx.needs_input_grad[0]
    dx, d_mu, d_log_sigma = torch.ops.bmrs.noise_backward(dy, *ctx.saved_tensors, *ctx.layout, want_dx)
    return dx if want_dx else None, d_mu, d_log_sigma, *(None,) * (2 + len(ctx.layout))


_library.impl("noise", _noise_cpu, "CPU")
_library.impl("noise_backward", _noise_backward_cpu, "CPU")
_library.impl("noise", _noise_cuda, "CUDA")
_library.impl("noise_backward", _noise_backward_cuda, "CUDA")
torch.library.register_fake("bmrs::noise", _noise_fake, lib=_library)
torch.library.register_fake("bmrs::noise_backward", _noise_backward_fake, lib=_library)
torch.library.register_autograd("bmrs::noise", _differentiate, setup_context=_setup_context, lib=_library)
torch.library.register_autograd("bmrs::noise_backward", refuse_twice, lib=_library)
