"""Cut channels out of a model's parameters, buffers and the numbers that its modules keep of their sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from bmrs_torch.channels.computed import computed_tensors
from bmrs_torch.channels.weights import is_weighted, weight_axes
from bmrs_torch.surgery.computed_weights import put
from bmrs_torch.surgery.configs import tell_configs
from bmrs_torch.surgery.plan_compaction import Selection
from bmrs_torch.surgery.remembered_sizes import changed_sizes, remember
from bmrs_torch.surgery.telling import own_tensors, tell_norm, tell_sizes, told_ends

if TYPE_CHECKING:
    from bmrs_torch.channels.axes import Axes
    from bmrs_torch.channels.labels import Bools, Ints
    from bmrs_torch.channels.trace import Reshape


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

    @property
    def reshapes(self) -> list[Reshape]:
        """Views that divide channels among axes."""
        return self._selection.network.reshapes

    def goes(self, labels: Ints) -> Bools:
        """Which of these labels go."""
        return self._selection.goes(self._selection.network.labels.roots(labels))

    def changes(self, name: str) -> bool:
        """Whether a stored tensor loses entries."""
        narrower = any(not kept.all() for kept in self._kept.get(name, []))
        return narrower or (name in self._grouped and not self._grouped[name][0].all())

    def groups(self, name: str) -> int | None:
        """Groups that a grouped convolution's weight has left, None for any other tensor."""
        if name not in self._grouped:
            return None
        channels, groups = self._grouped[name]
        return int(channels.reshape(groups, -1).any(axis=1).sum())

    def apply(self, name: str, tensor: Tensor) -> Tensor:
        """What stays of a stored tensor, or of one of its shape: a gradient, a moment."""
        given = tensor
        if name in self._grouped:
            tensor = self._by_group(name, tensor)
        else:
            for axis, kept in enumerate(self._kept[name]):
                tensor = _select(tensor, axis, kept)
        return laid_out_like(given, tensor)

    def _by_group(self, name: str, weight: Tensor) -> Tensor:
        """Each group of a grouped convolution has its own rows, and its own channels in the columns."""
        channels, groups = self._grouped[name]
        parts = zip(
            weight.chunk(groups),
            np.split(self._kept[name][0], groups),
            channels.reshape(groups, -1),
            strict=True,
        )
        left = [(part, rows, columns) for part, rows, columns in parts if columns.any()]
        if len(left) == groups and self._kept[name][0].all() and channels.all():
            return weight
        return torch.cat([_select(_select(part, 0, rows), 1, columns) for part, rows, columns in left])

    def channels(self) -> dict[str, tuple[int, int]]:
        """Of each module whose input has channels on its second axis, how many it has and keeps."""
        roots = self._selection.network.labels.roots
        found = {}
        for call in self._selection.network.calls:
            axis = call.given[1] if len(call.given) > 1 else None
            if axis is not None:
                found[call.name] = axis.size, int((~self._selection.goes(roots(axis.labels))).sum())
        return found

    def ends(self) -> dict[str, tuple[dict[int, int], dict[int, int]]]:
        """Of each module the sizes of its input's and of its output's axes of channels, before to after."""
        return {
            call.name: (self._sizes_of(call.given), self._sizes_of(call.result))
            for call in self._selection.network.calls
        }

    def _sizes_of(self, axes: Axes) -> dict[int, int]:
        roots = self._selection.network.labels.roots
        kept = [~self._selection.goes(roots(axis.labels)) for axis in axes if axis is not None]
        return {own.size: int(own.sum()) for own in kept}


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
    computed = [
        (tensor, cut.apply(tensor.full_name, getattr(tensor.layer, tensor.name)))
        for tensor in computed_tensors(model)
        if cut.changes(tensor.full_name)
    ]
    ends = told_ends(model, cut.ends())
    _cut_stored(model, cut)
    for found, value in computed:
        put(found.layer, found.name, value)
        tell_sizes(found.layer, {}, cut.groups(found.full_name), weight_axes(found.layer))
    for module, own in ends:
        vars(module).update(own)
    for name, (size, left) in cut.channels().items():
        if left < size:
            tell_norm(model.get_submodule(name), size, left)
    tell_configs(model, cut.reshapes, cut.goes)  # before others meet configurations that are shared
    remember(model, cut.sizes)


def _cut_stored(model: nn.Module, cut: Cut) -> None:
    """Parameters and buffers, and what layers keep of their sizes."""
    stored = [*model.named_parameters(), *model.named_buffers()]
    names = {id(tensor): name for name, tensor in stored}
    done: dict[str, Tensor] = {}
    for module in model.modules():
        before = own_tensors(module)
        axes = weight_axes(module) if is_weighted(module) else None
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
            tell_sizes(module, {key: tuple(tensor.shape) for key, tensor in before.items()}, groups, axes)


def _smaller(tensor: Tensor, name: str, cut: Cut) -> Tensor:
    if not isinstance(tensor, nn.Parameter):
        return cut.apply(name, tensor)
    parameter = nn.Parameter(cut.apply(name, tensor.detach()), requires_grad=tensor.requires_grad)
    if tensor.grad is not None:
        parameter.grad = cut.apply(name, tensor.grad)
    return parameter
