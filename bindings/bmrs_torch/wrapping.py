"""The model inside what runs it otherwise: on several devices, compiled, or as an average of its weights."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from bmrs_torch.distributed.ranks import Ranks
from bmrs_torch.distributed.sharding import gathered, group_of, is_divided
from bmrs_torch.operation.arguments import check_model

__all__ = ["data_parallel_of", "make_anew", "ranks_of", "unwrapped", "whole", "why_not_anew"]

_WRAPPERS = (DistributedDataParallel, nn.DataParallel, AveragedModel)


def unwrapped(model: nn.Module) -> nn.Module:
    """What DistributedDataParallel, DataParallel, ``torch.compile`` or AveragedModel wraps; or the model.

    Raises
    ------
    TypeError
        If it is no module.

    Examples
    --------
    >>> from torch import nn
    >>> from bmrs_torch.wrapping import unwrapped
    >>> unwrapped(nn.DataParallel(nn.Linear(2, 3)))
    Linear(in_features=2, out_features=3, bias=True)
    """
    *_, inner = _from_outside_in(model)
    return inner


def whole(model: nn.Module) -> nn.Module:
    """What is inside, with all its parameters: of a model divided by ``fully_shard`` a plain copy.

    To gather that copy, all processes among which the model is divided have to call this.
    """
    return gathered(unwrapped(model))


def _from_outside_in(model: nn.Module) -> Iterator[nn.Module]:
    check_model(model)
    inner: nn.Module | None = model
    while inner is not None:
        yield inner
        compiled = inner._modules.get("_orig_mod")
        inner = inner._modules["module"] if isinstance(inner, _WRAPPERS) else compiled


def data_parallel_of(model: nn.Module) -> DistributedDataParallel | None:
    """The DistributedDataParallel around a model, itself compiled or not; None if there is none."""
    found = (module for module in _from_outside_in(model) if isinstance(module, DistributedDataParallel))
    return next(found, None)


def ranks_of(model: nn.Module) -> Ranks:
    """The processes that train a model together: told by what wraps it, else this process alone."""
    wrapper = data_parallel_of(model)
    if wrapper is not None:
        return Ranks(wrapper.process_group)
    inner = unwrapped(model)
    return Ranks(group_of(inner)) if is_divided(inner) else Ranks()


def make_anew(wrapper: DistributedDataParallel) -> None:
    """Let a DistributedDataParallel begin anew, in place, with the parameters that its module has now.

    It holds on to those that it was made with, and waits for a gradient of each. All its ranks take the
    weights and buffers of rank 0, as when it was made.

    Parameters
    ----------
    wrapper : DistributedDataParallel
        Of which :func:`why_not_anew` says nothing; its arguments and hooks stay, and what others put on it.
    """
    arguments, hooks, module = _arguments(wrapper), list(wrapper._comm_hooks), wrapper.module
    before = dict(vars(wrapper))
    vars(wrapper).clear()
    DistributedDataParallel.__init__(wrapper, module, **arguments)
    for hook, state in hooks:
        wrapper.register_comm_hook(state, hook)
    own = vars(wrapper)
    own |= {name: value for name, value in before.items() if name not in own and not name.startswith("_")}


def _arguments(wrapper: DistributedDataParallel) -> dict[str, Any]:
    """What a wrapper was made with, of what it keeps under the names of its arguments."""
    own, taken = vars(wrapper), inspect.signature(DistributedDataParallel.__init__).parameters
    arguments = {name: own[name] for name in taken if own.get(name) is not None}
    if "device_mesh" in arguments:  # which says the group, too
        arguments.pop("process_group", None)
    if not own.get("bucket_bytes_cap_default", True):
        arguments["bucket_cap_mb"] = wrapper.bucket_bytes_cap / 2**20
    return arguments


def why_not_anew(wrapper: DistributedDataParallel) -> str | None:
    """Why :func:`make_anew` can't be used, None if it can."""
    if type(wrapper) is not DistributedDataParallel:
        return f"it is a {type(wrapper).__name__}, whose arguments aren't known"
    if wrapper.mixed_precision is not None:
        return "it was made with mixed_precision, whose hooks are on the module already"
    if wrapper._delay_all_reduce_params:
        return "it was made with delay_all_reduce_named_params, parameters that may be replaced"
    for hook, state in wrapper._comm_hooks:
        if state is not None and not isinstance(state, distributed.ProcessGroup):
            return f"its hook {getattr(hook, '__name__', hook)} keeps state of parameters that are replaced"
    return None
