"""Let the user's own model object, and an optimizer made for it, go on as another network."""

from __future__ import annotations

import torch
from torch import nn


def become(model: nn.Module, other: nn.Module) -> None:
    """Let a model hold everything that another of its class holds, so that every reference to it stays good.

    Parameters
    ----------
    model : nn.Module
        Changed in place; its submodules and parameters are those of `other` afterwards.
    other : nn.Module
        Not to be used afterwards.

    Raises
    ------
    TypeError
        If the two are of different classes.
    """
    if type(model) is not type(other):
        raise TypeError(f"a {type(model).__name__} can't become a {type(other).__name__}")
    vars(model).clear()
    vars(model).update(vars(other))


def hand_over(optimizer: torch.optim.Optimizer, old: dict[str, nn.Parameter], model: nn.Module) -> None:
    """Put a model's parameters into an optimizer in the place of those that were there by the same names.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Changed in place. The state of parameters that are replaced is dropped.
    old : dict of str to Parameter
        What the model's parameters were.
    model : nn.Module
        The model now.
    """
    names = {parameter: name for name, parameter in old.items()}
    now = dict(model.named_parameters())
    for group in optimizer.param_groups:
        for i, parameter in enumerate(group["params"]):
            name = names.get(parameter)
            if name is not None and now[name] is not parameter:
                group["params"][i] = now[name]
                optimizer.state.pop(parameter, None)
