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
from bmrs_torch.channels.computed import computed_tensors
from bmrs_torch.channels.recurrent import RECURRENT, tell_recurrent_sizes
from bmrs_torch.channels.weights import NORMS, is_weighted, weight_axes
from bmrs_torch.layer import MultiplicativeNoise
from bmrs_torch.surgery.computed_weights import put
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
    computed = [
        (tensor, cut.apply(tensor.full_name, getattr(tensor.layer, tensor.name)))
        for tensor in computed_tensors(model)
        if cut.changes(tensor.full_name)
    ]
    stored = [*model.named_parameters(), *model.named_buffers()]
    names = {id(tensor): name for name, tensor in stored}
    done: dict[str, Tensor] = {}
    for module in model.modules():
        before = _own(module)
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
            _tell_sizes(module, {key: tuple(tensor.shape) for key, tensor in before.items()}, groups, axes)
    for found, value in computed:
        put(found.layer, found.name, value)
        _tell_sizes(found.layer, {}, cut.groups(found.full_name), weight_axes(found.layer))
    for name, (size, left) in cut.channels().items():
        if left < size:
            _tell_norm(model.get_submodule(name), size, left)
    if sizes:
        _tell_reshaping(model, cut.resized(products=products))
        tell_configs(model, cut.reshapes, cut.goes)


def _tell_reshaping(model: nn.Module, resized: Mapping[str, Mapping[int, tuple[int, bool]]]) -> None:
    """All modules but layers and norms, whose widths are told."""
    for name, found in resized.items():
        module = model.get_submodule(name)
        # Their widths are told; what is reshaped in a layer with weights is noise on blocks.
        if not (is_weighted(module) or isinstance(module, (*NORMS, *RECURRENT, MultiplicativeNoise))):
            _tell_heads(module, found)


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


def _tell_sizes(
    module: nn.Module,
    before: Mapping[str, tuple[int, ...]],
    groups: int | None,
    axes: tuple[int, int | None] | None,
) -> None:
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
    elif axes is not None and len(shape) == 2:
        for names, axis in zip(_LINEAR_NAMES, axes, strict=True):
            for key in names & vars(module).keys():
                setattr(module, key, shape[axis])  # type: ignore[index]
    else:
        _tell_others(module, before)


def _tell_norm(module: nn.Module, before: int, left: int) -> None:
    """Those without weights, too, and how many groups are left of a GroupNorm."""
    if isinstance(module, nn.GroupNorm) and module.num_groups > 1:
        module.num_groups, module.num_channels = left * module.num_groups // before, left
    elif isinstance(module, NORMS) and hasattr(module, "num_features"):
        module.num_features = left


def _tell_others(module: nn.Module, before: Mapping[str, tuple[int, ...]]) -> None:
    """Any module whose sizes are numbers under one of the names in use: norms, PReLU."""
    now = {key: tuple(tensor.shape) for key, tensor in _own(module).items()}
    changed = {a: b for key in before for a, b in zip(before[key], now[key], strict=True) if a != b}
    for key, value in list(vars(module).items()):
        if type(value) is int and value in changed and key in _SIZE_NAMES:
            setattr(module, key, changed[value])


_LINEAR_NAMES = ({"out_features", "nf"}, {"in_features", "nx"})
"""What linear layers, and GPT-2's ``Conv1D``, call their numbers of outputs and of inputs."""

_SIZE_NAMES = frozenset(
    "num_features num_channels num_parameters in_features out_features in_channels out_channels dim".split()
)


def _tell_heads(module: nn.Module, found: Mapping[int, tuple[int, bool]]) -> None:
    for key, value in list(vars(module).items()):
        if type(value) is not int or value not in found or any(word in key for word in _SIZE_OF_A_HEAD):
            continue
        new, heads = found[value]
        if not heads or key in ("h", "heads", "nhead") or "head" in key or "groups" in key:
            setattr(module, key, new)
