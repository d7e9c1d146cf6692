"""Networks whose parameters ``fully_shard`` divided among processes: gathered, or each part by itself."""

from __future__ import annotations

import copy
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor
    from typing_extensions import TypeIs

__all__ = ["gathered", "group_of", "is_divided", "is_sharded", "own_part", "put_back", "summed_over_parts"]


def is_sharded(tensor: Tensor) -> TypeIs[DTensor]:
    """Whether a tensor is a DTensor; without importing what only those need who have one."""
    loaded = sys.modules.get("torch.distributed.tensor")
    return loaded is not None and isinstance(tensor, loaded.DTensor)


def is_divided(model: nn.Module) -> bool:
    """Whether a model was given to ``fully_shard``, or other parts of it are DTensors."""
    loaded = sys.modules.get("torch.distributed.fsdp")
    kind: type | None = getattr(loaded, "FSDPModule", None)
    fully = kind is not None and any(isinstance(module, kind) for module in model.modules())
    return fully or any(is_sharded(parameter) for parameter in model.parameters())


def group_of(model: nn.Module) -> Any:
    """The group of all processes among which a model is divided."""
    put_back(model)
    mesh = next(p.device_mesh for p in model.parameters() if is_sharded(p))
    if mesh.ndim == 1:
        return mesh.get_group()
    if mesh.size() != distributed.get_world_size():
        raise ValueError(
            f"the parameters are divided over a mesh of {mesh.ndim} dimensions with {mesh.size()} of "
            f"{distributed.get_world_size()} processes, which no group joins: divide the model over all "
            "processes, or over a mesh of one dimension"
        )
    return distributed.group.WORLD


def own_part(tensor: Tensor, like: DTensor) -> Tensor:
    """Of a whole vector that every process has, what belongs to this process's part of another."""
    from torch.distributed.tensor import distribute_tensor

    parts = distribute_tensor(tensor.detach(), like.device_mesh, like.placements, src_data_rank=None)
    return parts.to_local()


def summed_over_parts(values: Tensor, like: DTensor) -> Tensor:
    """The sum of what each process computed of its part of `like`, whose gradient stays with the part."""
    from torch.distributed.tensor import DTensor, Partial, Replicate

    placements = [Replicate() if each.is_replicate() else Partial() for each in like.placements]
    return DTensor.from_local(values, like.device_mesh, placements).full_tensor()


@torch.no_grad()
def gathered(model: nn.Module) -> nn.Module:
    """A plain copy of a model with its parameters whole, and their gradients; a model that is whole as it is.

    A collective of all processes among which the model is divided; each of them needs room for all of it.

    Parameters
    ----------
    model : nn.Module
        Without what wraps it; left as it is.

    Returns
    -------
    nn.Module
        Of the class that it had before ``fully_shard``.
    """
    if not is_divided(model):
        return model
    put_back(model)
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        if is_sharded(parameter):
            whole = nn.Parameter(parameter.full_tensor().clone(), requires_grad=parameter.requires_grad)
            if is_sharded(parameter.grad):  # type: ignore[arg-type]
                whole.grad = parameter.grad.full_tensor().clone()
            memo[id(parameter)] = whole
    return _plain_copy(model, memo)


def put_back(model: nn.Module) -> None:
    """Let parameters that were gathered for a forward pass go back to their parts."""
    loaded = sys.modules.get("torch.distributed.fsdp")
    kind: Any = getattr(loaded, "FSDPModule", None)
    for module in model.modules() if kind is not None else ():
        if isinstance(module, kind):
            module.reshard()


def _plain_copy(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """A deep copy, with what `memo` says in the place of parameters, that knows nothing of FSDP.

    ``fully_shard`` gives modules a class of its own, FSDPModule before the class that they had, that refuses
    to be copied, and adds hooks and attributes.
    """
    from torch.distributed.fsdp import FSDPModule

    divided = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in divided:
        kind: Any = type(module).__mro__[2]
        memo[id(module)] = kind.__new__(kind)
    for module in divided:
        own = {name: value for name, value in vars(module).items() if not name.startswith(_OF_FSDP)}
        hooks = {name: _without_fsdp(value) for name, value in own.items() if name.endswith(_HOOKS)}
        vars(memo[id(module)]).update(copy.deepcopy({**own, **hooks}, memo))
    copied: nn.Module = memo[id(model)] if id(model) in memo else copy.deepcopy(model, memo)
    for part in copied.modules():
        own = vars(part)
        for name in [name for name in own if name.startswith(_OF_FSDP)]:
            del own[name]
        own |= {name: _without_fsdp(value) for name, value in own.items() if name.endswith(_HOOKS)}
    return copied


_OF_FSDP = ("__composable_api", "_is_fsdp_managed_module", "_fsdp_use_orig_params")
_HOOKS = "_hooks"


def _without_fsdp(hooks: Any) -> Any:
    """Hooks of a module, by number, without those of FSDP."""
    if not isinstance(hooks, dict):
        return hooks
    return type(hooks)({number: hook for number, hook in hooks.items() if not _is_of_fsdp(hook)})


def _is_of_fsdp(hook: Any) -> bool:
    home = getattr(getattr(hook, "hook", hook), "__module__", None)
    return isinstance(home, str) and home.startswith("torch.distributed.fsdp")
