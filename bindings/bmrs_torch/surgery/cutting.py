"""Cut channels out of a model's parameters, buffers and the numbers that its modules keep of their sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from bmrs_torch.channels.weights import is_transposed_linear
from bmrs_torch.surgery.plan_compaction import Selection
from bmrs_torch.surgery.remembered_sizes import changed_sizes, remember

if TYPE_CHECKING:
    from bmrs_torch.channels.labels import Bools


class Cut:
    """Which entries of every stored tensor stay.

    Parameters
    ----------
    selection : Selection
        What goes.

    Attributes
    ----------
    sizes : dict of Source to tuple of int
        Numbers that modules remember and that change, before and after.
    """

    def __init__(self, selection: Selection) -> None:
        network, roots = selection.network, selection.network.labels.roots
        self._selection = selection
        self._kept: dict[str, list[Bools]] = {
            name: [~selection.goes(roots(axis.labels)) for axis in axes]
            for name, axes in network.parameters.items()
        }
        self._grouped: dict[str, tuple[Bools, int]] = {
            name: (~selection.goes(roots(grouped.labels)), grouped.groups)
            for name, grouped in network.grouped.items()
        }
        self.sizes = changed_sizes(network, lambda labels: selection.goes(roots(labels)))

    def changes(self, name: str) -> bool:
        """Whether a stored tensor loses entries."""
        narrower = any(not kept.all() for kept in self._kept.get(name, []))
        return narrower or (name in self._grouped and not self._grouped[name][0].all())

    def groups(self, name: str) -> int | None:
        """Groups that a grouped convolution's weight has left, None for any other tensor."""
        if name not in self._grouped:
            return None
        channels, groups = self._grouped[name]
        return int(channels.sum()) if channels.size == groups else groups

    def apply(self, name: str, tensor: Tensor) -> Tensor:
        """What stays of a stored tensor, or of one of its shape: a gradient, a moment."""
        given, rows = tensor, self._kept[name][0] if self._kept[name] else None
        if name in self._grouped and self._grouped[name][0].size != self._grouped[name][1]:
            assert rows is not None
            tensor = self._columns(name, tensor, rows)
        else:
            tensor = _select(tensor, 0, rows)
        for axis, kept in enumerate(self._kept[name][1:], start=1):
            tensor = tensor if name in self._grouped else _select(tensor, axis, kept)
        return laid_out_like(given, tensor)

    def _columns(self, name: str, weight: Tensor, rows: Bools) -> Tensor:
        """Each group of a grouped convolution has its own rows, and columns for its own input channels."""
        channels, groups = self._grouped[name]
        parts = zip(weight.chunk(groups), np.split(rows, groups), np.split(channels, groups), strict=True)
        return torch.cat([_select(_select(part, 0, row), 1, column) for part, row, column in parts])


def laid_out_like(given: Tensor, tensor: Tensor) -> Tensor:
    """A tensor in memory of its own, its axes in the order in which those of another lie there."""
    if tensor.layout != torch.strided or given.is_contiguous():
        is_part = (
            tensor.untyped_storage().nbytes() > tensor.nbytes if tensor.layout == torch.strided else False
        )
        return tensor.clone() if is_part else tensor.contiguous()
    strides = given.stride()
    order = sorted(range(given.ndim), key=lambda axis: -strides[axis])
    return (
        tensor.permute(order)
        .clone(memory_format=torch.contiguous_format)
        .permute([order.index(axis) for axis in range(given.ndim)])
    )


def _select(tensor: Tensor, axis: int, kept: Bools | None) -> Tensor:
    if kept is None or kept.all():
        return tensor
    return tensor.index_select(axis, torch.as_tensor(np.flatnonzero(kept), device=tensor.device))


@torch.no_grad()
def cut_model(model: nn.Module, cut: Cut) -> None:
    """Make a model smaller in place.

    Parameters
    ----------
    model : nn.Module
        Of the structure that was followed; tied parameters stay tied.
    cut : Cut
        What stays.
    """
    stored = [*model.named_parameters(), *model.named_buffers()]
    names = {id(tensor): name for name, tensor in stored}
    done: dict[str, Tensor] = {}
    for module in model.modules():
        before = _own(module)
        for key, tensor in before.items():
            name = names[id(tensor)]
            if cut.changes(name):
                if name not in done:
                    done[name] = _smaller(tensor, name, cut)
                store = module._parameters if key in module._parameters else module._buffers
                store[key] = done[name]  # type: ignore[assignment]
        if any(names[id(tensor)] in done for tensor in before.values()):
            weight = before.get("weight")
            groups = None if weight is None else cut.groups(names[id(weight)])
            _tell_sizes(module, {key: tuple(tensor.shape) for key, tensor in before.items()}, groups)
    remember(model, cut.sizes)


def _own(module: nn.Module) -> dict[str, Tensor]:
    own = {**module._parameters, **module._buffers}
    return {key: tensor for key, tensor in own.items() if tensor is not None}


def _smaller(tensor: Tensor, name: str, cut: Cut) -> Tensor:
    if not isinstance(tensor, nn.Parameter):
        return cut.apply(name, tensor)
    parameter = nn.Parameter(cut.apply(name, tensor.detach()), requires_grad=tensor.requires_grad)
    if tensor.grad is not None:
        parameter.grad = cut.apply(name, tensor.grad)
    return parameter


def _tell_sizes(module: nn.Module, before: Mapping[str, tuple[int, ...]], groups: int | None) -> None:
    """Set the sizes that a module keeps beside its weights."""
    weight = getattr(module, "weight", None)
    shape = tuple(weight.shape) if isinstance(weight, Tensor) else ()
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = shape
    elif isinstance(module, nn.modules.conv._ConvNd):
        module.groups = module.groups if groups is None else groups
        first, second = (shape[1], shape[0]) if module.transposed else shape[:2]
        module.out_channels = first * (module.groups if module.transposed else 1)
        module.in_channels = second * (1 if module.transposed else module.groups)
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = shape
    elif is_transposed_linear(module):
        vars(module).update(nx=shape[0], nf=shape[1])
    else:
        _tell_others(module, before)


def _tell_others(module: nn.Module, before: Mapping[str, tuple[int, ...]]) -> None:
    """Any module whose sizes are numbers under one of the names in use: norms, PReLU."""
    now = {key: tuple(tensor.shape) for key, tensor in _own(module).items()}
    changed = {a: b for key in before for a, b in zip(before[key], now[key], strict=True) if a != b}
    for key, value in list(vars(module).items()):
        if type(value) is int and value in changed and key in _SIZE_NAMES:
            setattr(module, key, changed[value])


_SIZE_NAMES = frozenset(
    "num_features num_channels num_parameters in_features out_features in_channels out_channels".split()
)
