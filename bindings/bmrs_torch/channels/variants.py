"""Inputs other than the example, of its kind: other values, another batch size, another length or image size.

What depends on values (an order, a routing) or on a size that a module remembers shows there. On an
accelerator no input is made by which an index could leave its table: that would end the process's use of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bmrs_torch.channels.calling import mapped, tensors_of

__all__ = ["Variant", "another_batch", "other_values", "variants"]


@dataclass(frozen=True)
class Variant:
    """Inputs for a model.

    Attributes
    ----------
    text : str
        What is other than in the example, to follow the name of what was computed.
    inputs : Tensor, tuple, list or dict
        In the containers of the example.
    """

    text: str
    inputs: Any


def variants(example_inputs: Any) -> list[list[Variant]]:
    """Groups of inputs; of each the first that the model can run on is as good as all.

    Parameters
    ----------
    example_inputs : Tensor, tuple, list or dict
        Left as they are.
    """
    permuted, *scaled = other_values(example_inputs)
    fewer = another_batch(permuted)
    groups = [
        [Variant("on other values, at another batch size", fewer), Variant("on other values", permuted)],
        [
            *(Variant("on other values, at another batch size", another_batch(x)) for x in scaled),
            *(Variant("on other values", x) for x in scaled),
        ],
        [
            *(Variant("at another length or image size", x) for x in _other_sizes(fewer)),
            *(Variant("at another length or image size", x) for x in _other_sizes(permuted)),
        ],
    ]
    return [group for group in groups if group]


def other_values(example_inputs: Any) -> Iterator[Any]:
    """Inputs of other values: permuted, multiplied by numbers of both signs, multiplied by some below 1."""
    generator = torch.Generator().manual_seed(0)
    yield mapped(example_inputs, lambda x: _permuted(x, generator))
    if not _on_accelerator(example_inputs):
        yield mapped(example_inputs, lambda x: _scaled(x, generator, -1.5, 1.5))
    yield mapped(example_inputs, lambda x: _scaled(x, generator, 0.5, 1.0))


_MOST_SAMPLES, _MOST_IMAGES = 16, 3
"""Of a variant, so that all of them together cost about as much as a minibatch: rows of a table, and samples
of many values each."""


def another_batch(inputs: Any) -> Any:
    """The inputs with one more sample where there are fewer than four, with about half or less otherwise."""
    main = _main(inputs)
    if main is None:
        return inputs
    number = main.shape[0]
    rows = main.ndim == 2 and main.is_floating_point()
    other = number + 1 if number < 4 else min(number // 2 + 1, _MOST_SAMPLES if rows else _MOST_IMAGES)
    return mapped(inputs, lambda x: _resized(x, 0, other) if x.ndim and x.shape[0] == number else x)


def _main(inputs: Any) -> Tensor | None:
    """The first tensor with samples and something of each."""
    return next((x for x in tensors_of(inputs) if x.ndim > 1 and x.numel()), None)


def _on_accelerator(inputs: Any) -> bool:
    return any(x.device.type != "cpu" for x in tensors_of(inputs))


def _usable(x: Tensor) -> bool:
    """Whether other numbers may stand in its place: it has several, and isn't a mask of infinities."""
    return x.numel() > 1 and x.layout == torch.strided and not x.is_nested and bool(x.isfinite().all())


def _permuted(x: Tensor, generator: torch.Generator) -> Tensor:
    """Numbers in other places: whole ones, which may index something by their column, in other samples."""
    if x.dtype == torch.bool or not _usable(x):
        return x
    if (x.is_floating_point() or x.is_complex()) and x.device.type == "cpu":
        order = torch.randperm(x.numel(), generator=generator)
        return torch.empty_like(x).copy_(x.flatten()[order].view(x.shape))
    # One sample on a CPU is permuted along itself; what an index there meets, the model tries first.
    axis = x.ndim - 1 if x.shape[0] == 1 and x.device.type == "cpu" else 0
    order = torch.rand(x.shape, generator=generator).argsort(axis).to(x.device)
    return torch.empty_like(x).copy_(x.gather(axis, order))


def _scaled(x: Tensor, generator: torch.Generator, low: float, high: float) -> Tensor:
    """Floating-point numbers, each multiplied by one between these bounds."""
    if not (x.is_floating_point() or x.is_complex()) or not _usable(x):
        return _permuted(x, generator)
    factor = low + (high - low) * torch.rand(x.shape, generator=generator, dtype=torch.float64)
    return x * factor.to(device=x.device, dtype=x.dtype if x.is_floating_point() else torch.float64)


def _other_sizes(inputs: Any) -> Iterator[Any]:
    """With other sizes of what isn't the batch: of pixels first, then of what lies on the axis after it."""
    main = _main(inputs)
    if main is None:
        return
    pixels = [tuple(range(2, main.ndim))] if main.ndim > 2 else []
    for axes in [*pixels, (1,)]:
        sizes = [main.shape[axis] for axis in axes]
        for change in _changes(inputs, max(sizes), len(axes)):
            resized = dict(zip(axes, map(change, sizes), strict=True))
            if all(resized.values()):
                yield mapped(inputs, lambda x, to=resized: _of_sizes(x, main, to))  # type: ignore[misc]


_SHORT = 128
"""Lengths up to this are made larger first: that shows a limit that is no longer reached."""


def _changes(inputs: Any, size: int, number: int) -> list[Callable[[int], int]]:
    if _on_accelerator(inputs):
        return [_half]
    return [_half_more, _half] if number == 1 and size <= _SHORT else [_half, _half_more]


def _half_more(size: int) -> int:
    return size + (size + 1) // 2


def _half(size: int) -> int:
    return size // 2


def _of_sizes(x: Tensor, main: Tensor, sizes: dict[int, int]) -> Tensor:
    """Axes that are as long as the main input's, at the same places, changed with them."""
    for axis, size in sizes.items():
        if x.ndim > axis and x.shape[axis] == main.shape[axis]:
            x = _resized(x, axis, size)
    return x


def _resized(x: Tensor, axis: int, size: int) -> Tensor:
    if x.shape[axis] == size or x.layout != torch.strided or x.is_nested:
        return x
    return x.index_select(axis, torch.arange(size, device=x.device) % x.shape[axis])
