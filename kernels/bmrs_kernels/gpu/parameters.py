"""The divergence and E[theta] of the noise on a GPU: tensors in, results in place, nothing waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton

from bmrs_kernels.gpu.launch import launch
from bmrs_kernels.gpu.parameter_kernels import divergence as divergence_kernel
from bmrs_kernels.gpu.parameter_kernels import noise_mean as noise_mean_kernel

if TYPE_CHECKING:
    from torch import Tensor

    from bmrs_kernels.contract import NoiseLayout

__all__ = ["divergence", "divergence_blocks", "noise_mean"]

BLOCK = 1 << 12 if triton.knobs.runtime.interpret else 128
"""Structures of a program: one a thread; in the interpreter as many as a layer has."""


def divergence_blocks(largest: int) -> int:
    """Into how many blocks layers are cut of which the largest has so many structures."""
    return -(-largest // BLOCK)


def divergence(
    parameters: tuple[Tensor, Tensor, Tensor],
    places: tuple[Tensor, Tensor],
    sums: Tensor,
    gradients: Tensor | None,
) -> None:
    """Write the KL of all layers, block by block, and its gradients, in one launch.

    Parameters
    ----------
    parameters : tuple of Tensor
        mu, log_sigma and mask of all layers end to end: contiguous, float32.
    places : tuple of Tensor
        Where the layers start and, last, where they end, int32; and their bounds, float32, [2, layers].
    sums : Tensor of float32, shape (2, layers, blocks)
        Where the sums over kept structures and their numbers go; blocks as `divergence_blocks` says.
    gradients : Tensor of float32, shape (2, structures), or None
        Where the derivatives by mu and log_sigma go.
    """
    _, layers, blocks = sums.shape
    target = sums if gradients is None else gradients
    launch(
        divergence_kernel,
        (layers, blocks),
        *parameters,
        *places,
        sums,
        target,
        parameters[0].numel(),
        WANT_GRADIENTS=gradients is not None,
        BLOCK=BLOCK,
    )


def noise_mean(mu: Tensor, log_sigma: Tensor, layout: NoiseLayout, out: Tensor) -> None:
    """Write E[theta], or its derivatives where `out` has room for two numbers a structure.

    Parameters
    ----------
    mu, log_sigma : Tensor of float32, shape (structures,)
        Contiguous.
    layout : NoiseLayout
        Of which the bounds are used.
    out : Tensor of float32, shape (structures,) or (2, structures)
        Contiguous.
    """
    structures = mu.numel()
    programs = (divergence_blocks(structures),)
    bounds = layout.log_a, layout.log_b
    launch(
        noise_mean_kernel,
        programs,
        mu,
        log_sigma,
        out,
        structures,
        *bounds,
        GRADIENTS=out.ndim == 2,
        BLOCK=BLOCK,
    )
