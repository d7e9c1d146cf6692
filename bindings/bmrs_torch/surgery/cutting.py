"""Cut channels out of a model's parameters, buffers and the numbers that its modules keep of their sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from bmrs_torch.channels.axes import Split
from bmrs_torch.channels.recurrent import RECURRENT, tell_recurrent_sizes
from bmrs_torch.channels.weights import is_transposed_linear, is_weighted
from bmrs_torch.surgery.configs import tell_configs
from bmrs_torch.surgery.plan_compaction import Selection

if TYPE_CHECKING:
    from bmrs_torch.channels.labels import Bools, Ints
    from bmrs_torch.channels.trace import Reshape

_SIZE_OF_A_HEAD = ("head_dim", "head_size", "dim_head", "dim_per_head", "per_head", "head_channels", "d_head")


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
        return int(channels.sum()) if channels.size == groups else groups

    def apply(self, name: str, tensor: Tensor) -> Tensor:
        """What stays of a stored tensor, or of one of its shape: a gradient, a moment."""
        rows = self._kept[name][0] if self._kept[name] else None
        if name in self._grouped and self._grouped[name][0].size != self._grouped[name][1]:
            assert rows is not None
            tensor = self._columns(name, tensor, rows)
        else:
            tensor = _select(tensor, 0, rows)
        for axis, kept in enumerate(self._kept[name][1:], start=1):
            tensor = tensor if name in self._grouped else _select(tensor, axis, kept)
        return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor

    def _columns(self, name: str, weight: Tensor, rows: Bools) -> Tensor:
        """Each group of a grouped convolution has its own rows, and columns for its own input channels."""
        channels, groups = self._grouped[name]
        parts = zip(weight.chunk(groups), np.split(rows, groups), np.split(channels, groups), strict=True)
        return torch.cat([_select(_select(part, 0, row), 1, column) for part, row, column in parts])

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
    others = [size for i, size in enumerate(split.shape) if i != split.kept and size > 1]
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
    for name, found in cut.resized(products=products).items() if sizes else ():
        module = model.get_submodule(name)
        # Their widths are told; what is reshaped in a layer with weights is noise on blocks.
        if not is_weighted(module) and not isinstance(module, RECURRENT):
            _tell_heads(module, found)
    if sizes:
        tell_configs(model, cut.reshapes, cut.goes)


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
    elif isinstance(module, RECURRENT):
        tell_recurrent_sizes(module)
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
    "num_features num_channels num_parameters in_features out_features in_channels out_channels dim".split()
)


def _tell_heads(module: nn.Module, found: Mapping[int, tuple[int, bool]]) -> None:
    for key, value in list(vars(module).items()):
        if type(value) is not int or value not in found or any(word in key for word in _SIZE_OF_A_HEAD):
            continue
        new, heads = found[value]
        if not heads or key in ("h", "heads", "nhead", "groups") or "head" in key:
            setattr(module, key, new)
