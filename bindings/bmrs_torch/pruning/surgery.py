"""Make a network smaller: remove what is masked, and prove that its answers stay the same."""

from __future__ import annotations

import copy
import warnings
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bmrs_torch.layer import MultiplicativeNoise
from bmrs_torch.pruning.compaction_plan import CompactionPlan, make_plan
from bmrs_torch.pruning.dependency import DependencyGraph
from bmrs_torch.pruning.optimizer_state import rebind_optimizer
from bmrs_torch.pruning.verification import verify

M = TypeVar("M", bound=nn.Module)


def compact(model: M, example_inputs: Any, *, optimizer: torch.optim.Optimizer | None = None) -> M:
    """Return a smaller model with the masked structures removed from every layer they reach.

    The noise layers stay, narrower; :func:`fold` removes them. The model given is left untouched, and so is
    the optimizer unless all went well.

    Parameters
    ----------
    model : nn.Module
        A model with noise layers, some of whose structures are masked by :func:`prune`.
    example_inputs : Tensor, tuple, list or dict
        One input, positional inputs, or keyword inputs: to trace the model with, and to compare the two
        models on in evaluation mode. A real minibatch tells more than zeros.
    optimizer : torch.optim.Optimizer, optional
        An optimizer of `model`, made to continue with the new model: its parameters are replaced and its
        state (the moments of Adam) is cut to match.

    Returns
    -------
    nn.Module
        The smaller model, in the training mode and with the `requires_grad` of the one given.

    Raises
    ------
    SurgeryError
        If the smaller model's answers would differ by more than 1e-5 relative.
    ValueError
        If the model has no noise layers.
    TypeError
        For example inputs of another kind.

    Warns
    -----
    UserWarning
        If structures are masked that can't be removed, with the reasons; :func:`plan_compaction` lists them.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import compact, insert_noise
    >>> model = insert_noise(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    >>> model[0].noise.mask[1] = 0
    >>> compact(model, torch.ones(2, 4))[2]
    Linear(in_features=2, out_features=2, bias=True)
    """
    smaller, plan = _operate(copy.deepcopy(model), example_inputs)
    _restore(smaller, model)
    verify(model, smaller, example_inputs, "removing the masked structures")
    if plan.retained:
        warnings.warn(f"{plan.retained} masked structures are not removable:\n{plan}", stacklevel=2)
    if optimizer is not None:
        rebind_optimizer(optimizer, model, smaller, _surviving_entries(model, example_inputs))
    return smaller


def _operate(model: M, example_inputs: Any, *, track: bool = False) -> tuple[M, CompactionPlan]:
    """Remove what is masked, in place; with `track`, number the entries of each parameter first."""
    graph = DependencyGraph(model, example_inputs)
    plan = make_plan(model, graph)
    if track:
        for parameter in model.parameters():
            numbers = torch.arange(parameter.numel(), dtype=torch.float64, device=parameter.device)
            parameter.data = numbers.view(parameter.shape)
    for root, structures in plan.cuts:
        noise = model.get_submodule(root)
        assert isinstance(noise, MultiplicativeNoise)
        graph.remove(noise, structures)
    return model, plan


def _surviving_entries(model: nn.Module, example_inputs: Any) -> dict[str, Tensor]:
    """Find, for each parameter, which entries of it (flattened) surgery keeps, in their new shape."""
    numbered, _ = _operate(copy.deepcopy(model), example_inputs, track=True)
    return {name: parameter.detach().long() for name, parameter in numbered.named_parameters()}


def _restore(smaller: nn.Module, model: nn.Module) -> None:
    for module, original in zip(smaller.modules(), model.modules(), strict=True):
        module.training = original.training
    trainable = dict(model.named_parameters())
    for name, parameter in smaller.named_parameters():
        parameter.requires_grad_(trainable[name].requires_grad)
