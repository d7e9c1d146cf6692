"""Tell modules that became smaller the numbers that they keep of their sizes."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from bmrs_torch.channels.recurrent import RECURRENT, tell_recurrent_sizes
from bmrs_torch.channels.weights import NORMS, is_weighted

__all__ = ["own_tensors", "tell_norm", "tell_sizes", "told_ends"]

_LINEAR_NAMES = ({"out_features", "nf"}, {"in_features", "nx"})
"""What linear layers, and GPT-2's ``Conv1D``, call their numbers of outputs and of inputs."""

_SIZE_NAMES = frozenset(
    "num_features num_channels num_parameters in_features out_features in_channels out_channels dim".split()
)

_END_NAMES = (
    ("in_features", "in_channels", "in_dim", "input_dim"),
    ("out_features", "out_channels", "out_dim", "output_dim"),
)


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a module itself, by its own names for them."""
    own = {**module._parameters, **module._buffers}
    return {key: tensor for key, tensor in own.items() if tensor is not None}


def tell_sizes(
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


def tell_norm(module: nn.Module, before: int, left: int) -> None:
    """Those without weights, too, and how many groups are left of a GroupNorm."""
    if isinstance(module, nn.GroupNorm) and module.num_groups > 1:
        module.num_groups, module.num_channels = left * module.num_groups // before, left
    elif isinstance(module, NORMS) and hasattr(module, "num_features"):
        module.num_features = left


def _tell_others(module: nn.Module, before: Mapping[str, tuple[int, ...]]) -> None:
    """Any module whose sizes are numbers under one of the names in use: norms, PReLU."""
    now = {key: tuple(tensor.shape) for key, tensor in own_tensors(module).items()}
    changed = {a: b for key in before for a, b in zip(before[key], now[key], strict=True) if a != b}
    for key, value in list(vars(module).items()):
        if type(value) is int and value in changed and key in _SIZE_NAMES:
            setattr(module, key, changed[value])


def told_ends(
    model: nn.Module, ends: Mapping[str, tuple[dict[int, int], dict[int, int]]]
) -> list[tuple[nn.Module, dict[str, int]]]:
    """What modules of one's own that keep their numbers of inputs and outputs are to have as these."""
    told = []
    for name, sizes in ends.items():
        module = model.get_submodule(name)
        if not (is_weighted(module) or isinstance(module, (*NORMS, nn.Embedding))):
            pairs = zip(_END_NAMES, sizes, strict=True)
            found = [(key, vars(module).get(key), end) for keys, end in pairs for key in keys]
            told.append(
                (module, {key: end[old] for key, old, end in found if type(old) is int and old in end})
            )
    return told
