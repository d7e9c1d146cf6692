"""The implementations of the noise operation that are held to the contract, each where it can run."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bmrs_kernels.contract import SHARES, NoiseLayout
from bmrs_torch.operation import cuda
from bmrs_torch.operation.operators import apply_noise
from bmrs_torch.operation.reference import ReferenceNoise

__all__ = ["IMPLEMENTATIONS", "INTERPRETED", "TRUTH", "Implementation", "Outcome"]

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether this process runs Triton's kernels in its interpreter: then it runs them and nothing else."""

Operation = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, NoiseLayout], Tensor]


class Outcome(NamedTuple):
    """What a forward and a backward pass give, on the CPU."""

    y: Tensor
    dx: Tensor
    d_mu: Tensor
    d_log_sigma: Tensor


class Implementation(NamedTuple):
    """One implementation: a differentiable function of x, mu, log_sigma, mask, seed and layout.

    It waits for its result, and so raises ValueError for unusable parameters, or does not, and answers NaN.
    """

    name: str
    operation: Operation
    device: str = "cpu"
    waits: bool = True
    interpreted: bool = False

    def missing(self) -> str:
        """Why it cannot run here, or nothing."""
        if self.interpreted != INTERPRETED:
            return f"it runs {'only' if self.interpreted else 'not'} where TRITON_INTERPRET is 1"
        return (
            "" if self.device == "cpu" or torch.cuda.is_available() else f"there is no {self.device} device"
        )

    def run(
        self,
        x: Tensor,
        dy: Tensor,
        parameters: tuple[Tensor, Tensor],
        mask: Tensor,
        seed: Tensor,
        layout: NoiseLayout,
    ) -> Outcome:
        """Run both passes; x and dy keep their strides on the way to the device."""
        leaves = [tensor.to(self.device).detach().requires_grad_() for tensor in (x, *parameters)]
        y = self.operation(leaves[0], leaves[1], leaves[2], mask.to(self.device), seed, layout)
        gradients = torch.autograd.grad(y, leaves, dy.to(self.device))
        return Outcome(*(tensor.detach().cpu() for tensor in (y, *gradients)))


def _reference(
    x: Tensor, mu: Tensor, log_sigma: Tensor, mask: Tensor, seed: Tensor, layout: NoiseLayout
) -> Tensor:
    y: Tensor = ReferenceNoise.apply(x, mu, log_sigma, mask, seed, layout)  # type: ignore[no-untyped-call]
    return y


def _operator(
    x: Tensor, mu: Tensor, log_sigma: Tensor, mask: Tensor, seed: Tensor, layout: NoiseLayout
) -> Tensor:
    axis, share, log_a, log_b = layout
    y: Tensor = torch.ops.bmrs.noise(x, mu, log_sigma, mask, seed, axis, SHARES.index(share), log_a, log_b)
    return y


class _Triton(torch.autograd.Function):
    """The binding for CUDA on CPU tensors, which the interpreter takes."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mu: Tensor, log_sigma: Tensor, mask: Tensor, seed: Tensor, layout: NoiseLayout
    ) -> Tensor:
        ctx.save_for_backward(x, mu, log_sigma, mask, seed)
        ctx.layout = layout
        return cuda.noise_forward(x, mu, log_sigma, mask, seed, layout)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        want_dx = ctx.needs_input_grad[0]
        x, mu, log_sigma, mask, seed = ctx.saved_tensors
        dx, d_mu, d_log_sigma = cuda.noise_backward(
            grad_outputs[0], x, mu, log_sigma, mask, seed, ctx.layout, want_dx
        )
        return dx if want_dx else None, d_mu, d_log_sigma, None, None, None


def _triton(
    x: Tensor, mu: Tensor, log_sigma: Tensor, mask: Tensor, seed: Tensor, layout: NoiseLayout
) -> Tensor:
    y: Tensor = _Triton.apply(x, mu, log_sigma, mask, seed, layout)  # type: ignore[no-untyped-call]
    return y


TRUTH = Implementation("reference", _reference)
"""Computed on float64 copies of the arguments, it is what all others are compared with."""

IMPLEMENTATIONS = (
    TRUTH,
    Implementation("numba", apply_noise),
    Implementation("operator-cpu", _operator),
    Implementation("operator-cuda", _operator, "cuda", waits=False),
    Implementation("triton", _triton, waits=False, interpreted=True),
)
