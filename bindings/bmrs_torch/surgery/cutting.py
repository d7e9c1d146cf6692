"""Cut channels out of a model's parameters, buffers and the numbers that its modules keep of their sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from bmrs_torch.channels.axes import Axes, Split
from bmrs_torch.channels.computed import computed_tensors
from bmrs_torch.channels.weights import is_weighted, weight_axes
from bmrs_torch.surgery.computed_weights import put
from bmrs_torch.surgery.configs import tell_configs
from bmrs_torch.surgery.plan_compaction import Selection
from bmrs_torch.surgery.telling import own_tensors, tell_norm, tell_reshaping, tell_sizes, told_ends

if TYPE_CHECKING:
    from bmrs_torch.channels.labels import Bools, Ints
    from bmrs_torch.channels.trace import Reshape


class Cut:
    """Which entries of every stored tensor stay.

    Parameters
    ----------
    selection : Selection
        What goes.
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
        if name in self._grouped:
            tensor = self._by_group(name, tensor)
        else:
            for axis, kept in enumerate(self._kept[name]):
                tensor = _select(tensor, axis, kept)
        return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor

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

    def resized(self, *, products: bool) -> dict[str, dict[int, tuple[int, bool]]]:
        """Sizes that a module's forward method uses in its views: old to new, and whether it counts heads."""
        sizes: dict[str, dict[int, tuple[int, bool]]] = {}
        roots = self._selection.network.labels.roots
        for reshape in self._selection.network.reshapes:
            split = reshape.split
            gone = self._selection.goes(roots(split.rows(split.axis.labels)[:, 0]))
            if gone.any():
                found = sizes.setdefault(reshape.module, {})
                for old, new, heads in _sizes(split, int((~gone).sum())):
                    if products or heads:
                        found.setdefault(old, (new, heads))
        return sizes


def _select(tensor: Tensor, axis: int, kept: Bools | None) -> Tensor:
    if kept is None or kept.all():
        return tensor
    return tensor.index_select(axis, torch.as_tensor(np.flatnonzero(kept), device=tensor.device))


def _sizes(split: Split, left: int) -> Iterator[tuple[int, int, bool]]:
    """The number of channels on the axis that keeps them, before and after, and its products with others."""
    table = split.axis.labels.reshape(split.shape)
    # Not where the same channels lie again and again: that is a number of samples.
    again = [i < split.kept and bool((table == table.take([0], i)).all()) for i in range(table.ndim)]
    others = [size for i, size in enumerate(split.shape) if i != split.kept and size > 1 and not again[i]]
    before, is_last = split.shape[split.kept], split.kept == len(split.shape) - 1
    yield before, left, not is_last
    for number in range(1, len(others) + 1):
        for chosen in combinations(others, number):
            yield before * math.prod(chosen), left * math.prod(chosen), False


@torch.no_grad()
def cut_model(model: nn.Module, cut: Cut, *, sizes: bool, products: bool) -> None:
    """Make a model smaller in place.

    Parameters
    ----------
    model : nn.Module
        Of the structure that was followed; tied parameters stay tied.
    cut : Cut
        What stays.
    sizes, products : bool
        Whether the numbers of heads that modules remember follow, and the widths made up of them.
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
    if sizes:
        tell_reshaping(model, cut.resized(products=products))
        tell_configs(model, cut.reshapes, cut.goes)


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
