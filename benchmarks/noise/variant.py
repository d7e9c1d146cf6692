"""A rival, ready to run: both halves of a pass, bound to inputs; or the reason why it is left out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

COPY, OURS, REFERENCE, NAIVE, HOISTED, COMPILED, DROPOUT = (
    "copy",
    "bmrs_torch",
    "reference",
    "naive",
    "naive, hoisted",
    "compiled",
    "F.dropout",
)


class UnavailableError(RuntimeError):
    """A rival cannot run here; says why."""


class WrongResultError(RuntimeError):
    """A rival's result differs from the reference, so that its time would say nothing; says by how much."""


@dataclass(frozen=True)
class Variant:
    """Both halves of a pass; `backward` takes what `forward` returned."""

    name: str
    forward: Callable[[], Any]
    backward: Callable[[Any], Any]


def differentiate(
    name: str, forward: Callable[[], Tensor], leaves: tuple[Tensor, ...], dy: Tensor | None
) -> Variant:
    """Make a variant of a differentiable function, with the gradients of `leaves` as its backward half."""
    return Variant(name, forward, lambda y: torch.autograd.grad(y, leaves, dy))


def copy_variant(elements: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Variant:
    """Copy as many elements as each half must read and write, into outputs that are there already."""
    sources = [torch.ones(count // 2, dtype=dtype, device=device) for count in elements]
    targets = [torch.zeros_like(source) for source in sources]
    return Variant(COPY, lambda: targets[0].copy_(sources[0]), lambda _: targets[1].copy_(sources[1]))


def clone_variant(elements: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Variant:
    """Copy as many elements as each half must read and write, into new outputs."""
    sources = [torch.ones(count // 2, dtype=dtype, device=device) for count in elements]
    return Variant(COPY, sources[0].clone, lambda _: sources[1].clone())


def compiled(function: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    """``torch.compile`` for fixed shapes, where there is a compiler."""
    compilers = (os.environ.get("CXX"), "g++", "clang++", "c++", "cl")
    if device.type == "cpu" and not any(name and shutil.which(name) for name in compilers):
        raise UnavailableError("torch.compile needs a C++ compiler on the CPU, and there is none on the path")
    torch._dynamo.reset()
    result: Callable[..., Tensor] = torch.compile(function, dynamic=False, fullgraph=True)
    return result
