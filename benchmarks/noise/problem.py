"""What is measured: an operation, a shape, a dtype, a device; and its inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bmrs_kernels.contract import Share

LOG_A, LOG_B = -20.0, 0.0
DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class ProblemError(ValueError):
    """What was asked for cannot be measured; says why."""


@dataclass(frozen=True)
class Op:
    """An operation, and the shapes it is measured at unless others are asked for."""

    title: str
    shapes: tuple[tuple[int, ...], ...]
    axes: range
    share: Share | None = None
    gpu_shapes: tuple[tuple[int, ...], ...] = ()

    def shapes_on(self, device: str) -> tuple[tuple[int, ...], ...]:
        """The shapes for a device: a GPU takes larger ones to be busy."""
        return self.gpu_shapes if device == "cuda" and self.gpu_shapes else self.shapes


OPS = {
    "rows": Op(
        "one θ per sample and structure",
        ((32, 64, 56, 56), (128, 150), (64, 197, 768)),
        range(2, 6),
        "sample",
        ((64, 256, 56, 56), (64, 197, 768), (4096, 4096)),
    ),
    "elements": Op("one θ per element", ((32, 64, 56, 56),), range(2, 6), "element", ((64, 256, 56, 56),)),
    "batch": Op(
        "one θ per structure, for the whole batch",
        ((32, 64, 56, 56),),
        range(2, 6),
        "batch",
        ((64, 256, 56, 56),),
    ),
    "kl": Op("KL divergence of a model, layers × structures", ((50, 512),), range(2, 3)),
    "arrays": Op("bmrs_core on arrays, elements", ((200_000,),), range(1, 2)),
}


@dataclass(frozen=True)
class Ranges:
    """Where μ and log σ are drawn from, uniformly."""

    mu: tuple[float, float]
    log_sigma: tuple[float, float]


TRAINING = Ranges((-6.0, 0.5), (-5.0, 1.0))
"""What the parameters are while a network trains: they start at μ = 0, log σ = −5."""
MILD = Ranges((-3.0, -1.0), (-0.7, 0.0))
"""Where the naive formula is right: the support lies in no tail of the normal."""


@dataclass(frozen=True)
class Problem:
    """One operation on one shape."""

    op: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seed: int = 0

    def __post_init__(self) -> None:
        if self.op not in OPS:
            raise ProblemError(f"op must be one of {', '.join(OPS)}, got {self.op!r}")
        if len(self.shape) not in OPS[self.op].axes or min(self.shape) < 1:
            axes = OPS[self.op].axes
            number = f"{axes.start}" if len(axes) == 1 else f"{axes.start} to {axes.stop - 1}"
            raise ProblemError(
                f"op {self.op!r} ({OPS[self.op].title}) takes {number} positive length(s), "
                f"got {self.shape_text}"
            )

    @property
    def shape_text(self) -> str:
        """The shape as one writes it."""
        return "×".join(map(str, self.shape))

    @property
    def title(self) -> str:
        """One line that says what is measured."""
        structures = "" if self.share is None else f", structures on axis {self.axis}"
        return f"{self.op} {self.shape_text} {self.dtype}: {OPS[self.op].title}{structures}"

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of the activations; for kl, of the parameters."""
        return DTYPES[self.dtype]

    @property
    def share(self) -> Share | None:
        """What one θ is shared over; None where there is no noise."""
        return OPS[self.op].share

    @property
    def axis(self) -> int:
        """Axis of the structures: the last of three (tokens), else the second."""
        return 2 if len(self.shape) == 3 else 1

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of θ."""
        if self.share == "element":
            return self.shape
        samples = self.shape[0] if self.share == "sample" else 1
        return tuple(
            size if i == self.axis else samples if i == 0 else 1 for i, size in enumerate(self.shape)
        )

    @property
    def elements_read_and_written(self) -> tuple[int, int]:
        """How many elements the forward and the backward pass must move.

        Noise: x in, y out; x and dy in, dx out. KL: μ and log σ in (the one number out is nothing); both in
        again, their gradients out.
        """
        numel = math.prod(self.shape)
        return (2 * numel, 4 * numel) if self.op == "kl" else (2 * numel, 3 * numel)

    @property
    def output_bytes(self) -> tuple[int, int]:
        """Bytes of the outputs: y and dx, or what the KL and its gradients take."""
        size = math.prod(self.shape) * self.torch_dtype.itemsize
        return (0, 2 * size) if self.op == "kl" else (size, size)


@dataclass(frozen=True)
class Inputs:
    """Tensors that every rival gets; x, mu and log_sigma are leaves of the graph."""

    x: Tensor
    dy: Tensor
    mu: Tensor
    log_sigma: Tensor

    @property
    def leaves(self) -> tuple[Tensor, Tensor, Tensor]:
        """What gradients are taken for."""
        return self.x, self.mu, self.log_sigma


def draw_inputs(problem: Problem, ranges: Ranges) -> Inputs:
    """Draw the inputs of a noise problem: x and dy normal, never 0, the parameters uniform in `ranges`."""
    generator = torch.Generator().manual_seed(problem.seed)
    x, dy = (_normal(problem.shape, generator).to(problem.torch_dtype) for _ in range(2))
    mu, log_sigma = draw_parameters((problem.shape[problem.axis],), ranges, generator)
    on = problem.device
    leaves = (one.to(on).requires_grad_() for one in (x, mu, log_sigma))
    x, mu, log_sigma = leaves
    return Inputs(x, dy.to(on), mu, log_sigma)


def draw_parameters(
    shape: tuple[int, ...], ranges: Ranges, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw μ and log σ, float32."""
    low_and_high = (ranges.mu, ranges.log_sigma)
    mu, log_sigma = (
        torch.empty(shape).uniform_(low, high, generator=generator) for low, high in low_and_high
    )
    return mu, log_sigma


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Normal numbers away from 0, so that θ can be read off as y/x."""
    drawn = torch.randn(shape, generator=generator)
    return drawn.sign().add(0.5).sign() * drawn.abs().clamp_min(0.1)
