"""Values that take next to no room, for a network that has none: enough to follow its channels on a CPU."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

from bmrs_torch.channels.calling import mapped, tensors_of
from bmrs_torch.layer import MultiplicativeNoise

__all__ = ["is_without_values", "products_in_pieces", "with_values"]


def is_without_values(model: nn.Module) -> bool:
    """Whether something of a model, other than its noise, is on the meta device or fake."""
    noise = {
        tensor
        for module in model.modules()
        if isinstance(module, MultiplicativeNoise)
        for tensor in (*module.parameters(), *module.buffers())
    }
    return any(_lacks(tensor) and tensor not in noise for tensor in (*model.parameters(), *model.buffers()))


def with_values(model: nn.Module, example_inputs: Any) -> tuple[nn.Module, Any]:
    """A copy of a model, and of its example, with values on the CPU where they have none.

    A weight of n×m entries takes n + m numbers: entry (i, j) is the number i + j of a random sequence. So it
    can be run, one layer's weights being laid out at a time, and what is 0 there is 0 because of a gate. Its
    answers mean nothing.

    Parameters
    ----------
    model : nn.Module
        Left as it is.
    example_inputs : Tensor, tuple, list or dict
        Whole numbers without values become 0, others random ones.

    Raises
    ------
    ValueError
        If a mask of noise has no values: what is pruned can't be guessed.
    """
    generator = torch.Generator().manual_seed(0)
    for name, module in model.named_modules():
        if isinstance(module, MultiplicativeNoise) and _lacks(module.mask):
            raise ValueError(
                f"the mask of noise {name or '(the model)'!r} has no values, it is on the meta device or "
                "fake, so nothing says what is pruned: give it some, as by layer.mask = "
                "torch.ones(layer.num_structures)"
            )
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        if _lacks(tensor):
            value = _value(tensor, generator)
            is_parameter = isinstance(tensor, nn.Parameter)
            memo[id(tensor)] = _thin(value, tensor.requires_grad) if is_parameter else value
    inputs = example_inputs
    if any(_lacks(tensor) for tensor in tensors_of(inputs)):
        inputs = mapped(inputs, lambda tensor: _value(tensor, generator) if _lacks(tensor) else tensor)
    return copy.deepcopy(model, memo), inputs


def _lacks(tensor: Tensor) -> bool:
    return tensor.is_meta or isinstance(tensor, FakeTensor)


def _value(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Random numbers of a tensor's shape; of several axes, from a sequence as long as the axes together.

    Vectors, of which some are variances, lie between ½ and 1½. Weights are scaled as for a first training, so
    that nothing overflows on the way through many layers.
    """
    shape = tuple(tensor.shape)
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return torch.zeros(shape, dtype=tensor.dtype)
    sequence = torch.rand(sum(shape) + 1, generator=generator)
    if len(shape) < 2:
        return (sequence[: math.prod(shape)].view(shape) + 0.5).to(tensor.dtype)
    scale = math.sqrt(3 / max(math.prod(shape[1:]), 1))
    return ((2 * sequence - 1) * scale).to(tensor.dtype).as_strided(shape, (1,) * len(shape))


def _thin(value: Tensor, requires_grad: bool) -> nn.Parameter:
    """A parameter whose copies are as thin as it is; torch's own would lay all its entries out."""
    parameter = nn.Parameter(value, requires_grad=requires_grad)
    if value.ndim > 1 and value.is_floating_point():
        parameter.__deepcopy__ = _Again(parameter)  # type: ignore[method-assign]
    return parameter


class _Again:
    """Makes another parameter of the same values."""

    def __init__(self, parameter: nn.Parameter) -> None:
        self._parameter = parameter

    def __call__(self, memo: dict[int, Any]) -> nn.Parameter:
        own = self._parameter
        return memo.setdefault(id(own), _thin(own.data, own.requires_grad))  # type: ignore[no-any-return]


PIECE = 1 << 20
"""Entries of a weight that are laid out at once: 4 MiB, which a processor's cache holds."""


class _InPieces(TorchDispatchMode):
    """Multiplies by thin matrices piece by piece; torch would lay each of them out as a whole."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        multiplies = func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default) and not kwargs
        if not multiplies or args[-1].stride() != (1, 1) or args[-1].numel() <= PIECE:
            return func(*args, **(kwargs or {}))
        *added, x, thin = args
        return sum(added, _product(x, thin))


def _product(x: Tensor, thin: Tensor) -> Tensor:
    """Of two matrices; all pieces of the second are laid out in one place, so that nothing is left behind."""
    size = max(PIECE // thin.shape[0], 1)
    product, room = x.new_empty(x.shape[0], thin.shape[1]), x.new_empty(size, thin.shape[0])
    for first in range(0, thin.shape[1], size):
        piece = thin[:, first : first + size]
        rows = room[: piece.shape[1]]
        rows.copy_(piece.T)
        product[:, first : first + size] = x @ rows.T
    return product


@contextmanager
def products_in_pieces() -> Iterator[None]:
    """While the block runs, weights that :func:`with_values` gave are laid out a piece at a time, on the CPU.

    Also in a block of the user's in which tensors are made on the meta device.
    """
    with torch.device("cpu"), _InPieces():  # type: ignore[no-untyped-call]
        yield
