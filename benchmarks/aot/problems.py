"""What is compiled ahead of time: the launches of typical layers, forward and backward."""

from __future__ import annotations

from typing import NamedTuple

import torch

from bmrs_kernels.contract import NoiseLayout
from bmrs_kernels.gpu import noise as noise_gpu
from bmrs_kernels.gpu import parameters as parameters_gpu
from bmrs_kernels.gpu.launch import Launch, recorded
from bmrs_kernels.gpu.walk import walk

__all__ = ["DTYPES", "PROBLEMS", "LaunchProblem", "launches", "parameter_launches"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class LaunchProblem(NamedTuple):
    """A layer: the shape of x, and how its noise is shared.

    `wide` says whether 16 bytes are due at a time: lengths and strides of tensors are multiples of it.
    """

    title: str
    shape: tuple[int, ...]
    axis: int
    share: str
    channels_last: bool = False
    wide: bool = True


PROBLEMS = {
    "maps": LaunchProblem("maps, a θ per sample", (64, 256, 56, 56), 1, "sample"),
    "channels-last": LaunchProblem("maps, channels last", (64, 256, 56, 56), 1, "sample", channels_last=True),
    "tokens": LaunchProblem("tokens, a θ per sample", (64, 197, 768), 2, "sample"),
    "odd-maps": LaunchProblem("maps of 7×7", (64, 2048, 7, 7), 1, "sample", wide=False),
    "neurons": LaunchProblem("neurons", (4096, 4096), 1, "sample"),
    "map-elements": LaunchProblem("maps, a θ per element", (64, 256, 56, 56), 1, "element"),
    "odd-elements": LaunchProblem("maps of 7×7, a θ per element", (64, 2048, 7, 7), 1, "element", wide=False),
}


def launches(problem: LaunchProblem, dtype: str) -> list[Launch]:
    """The launches of a forward and a backward pass, on tensors without memory."""
    x = torch.empty(problem.shape, dtype=DTYPES[dtype], device="meta")
    if problem.channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    structures = problem.shape[problem.axis]
    mu, log_sigma, mask, d_mu, d_log_sigma = torch.empty((5, structures), device="meta")
    seed = torch.empty(1, dtype=torch.int64, device="meta")
    layout = NoiseLayout(problem.axis, problem.share, -20.0, 0.0)
    forward, backward = (walk(problem.shape, (x.stride(),) * number, layout) for number in (2, 3))
    assert forward is not None
    assert backward is not None
    gradients = torch.stack([d_mu, d_log_sigma])
    with recorded() as found:
        noise_gpu.noise_forward(x, torch.empty_like(x), (mu, log_sigma, mask), seed, forward, layout)
        tensors = (torch.empty_like(x), x, torch.empty_like(x))
        noise_gpu.noise_backward(tensors, (mu, log_sigma, mask), gradients, seed, backward, layout)
    return found


def parameter_launches() -> list[Launch]:
    """The launches of the divergence of fifty layers, and of E[θ] and its gradient."""
    layers, structures = 50, 512
    parameters = torch.empty((3, layers * structures), device="meta")
    starts = torch.empty(layers + 1, dtype=torch.int32, device="meta")
    bounds = torch.empty((2, layers), device="meta")
    sums = torch.empty((2, layers, parameters_gpu.divergence_blocks(structures)), device="meta")
    gradients = torch.empty_like(parameters[:2])
    layout = NoiseLayout(0, "batch", -20.0, 0.0)
    mu, log_sigma, mask = parameters
    with recorded() as found:
        parameters_gpu.divergence((mu, log_sigma, mask), (starts, bounds), sums, gradients)
        parameters_gpu.noise_mean(mu, log_sigma, layout, gradients[0])
        parameters_gpu.noise_mean(mu, log_sigma, layout, gradients)
    return found
