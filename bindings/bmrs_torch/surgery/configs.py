"""Numbers of heads that a module reads from a configuration which it shares with others."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import nn

from bmrs_torch.surgery.remembered_sizes import COUNTS_OF_HEADS

if TYPE_CHECKING:
    from collections.abc import Callable

    from bmrs_torch.channels.labels import Bools, Ints
    from bmrs_torch.channels.trace import Reshape

__all__ = ["own_config", "tell_configs"]


def tell_configs(model: nn.Module, reshapes: Iterable[Reshape], goes: Callable[[Ints], Bools]) -> None:
    """Give modules that divide channels into heads configurations of their own, with how many are left.

    Parameters
    ----------
    model : nn.Module
        Changed in place. Only ``module.config`` is looked at, as in the networks of transformers.
    reshapes : iterable of Reshape
        Views that divide channels among axes.
    goes : callable
        Which of given labels go.
    """
    changed: dict[tuple[str, str], int] = {}
    for reshape in reshapes:
        split = reshape.split
        gone = goes(split.rows(split.axis.labels)[:, 0])
        config = vars(model.get_submodule(reshape.module)).get("config")
        if config is None or not gone.any() or split.kept == len(split.shape) - 1:
            continue
        for name in COUNTS_OF_HEADS:
            value = getattr(config, name, None)
            if type(value) is int and value == split.shape[split.kept]:
                changed.setdefault((reshape.module, name), int((~gone).sum()))
    for (module, name), left in changed.items():
        setattr(own_config(model, module), name, left)


def own_config(model: nn.Module, name: str) -> object:
    """The configuration of a module; where others have the same, it gets a copy that is its own."""
    module = model.get_submodule(name)
    config = vars(module)["config"]
    if any(other is not module and vars(other).get("config") is config for other in model.modules()):
        config = vars(module)["config"] = copy.copy(config)
    return config
