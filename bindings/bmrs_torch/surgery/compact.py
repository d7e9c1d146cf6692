"""Make a network smaller: remove what is masked, and prove that its answers stay the same."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from bmrs_torch.channels.network import follow
from bmrs_torch.layer import noise_layers
from bmrs_torch.surgery.cutting import Cut, cut_model
from bmrs_torch.surgery.optimizer_state import carry_gradients, check_optimizer, with_smaller_state
from bmrs_torch.surgery.plan_compaction import Selection
from bmrs_torch.surgery.verification import Reference, SurgeryError

M = TypeVar("M", bound=nn.Module)

CHANGES_ANSWERS = (
    "without it the model answers differently or not at all (its forward method counts on the width)"
)

_MODES = ((True, True), (True, False), (False, False))
"""Whether the numbers of heads that modules remember follow, and the widths made of them: tried in turn."""

_MOST_ATTEMPTS = 64
"""Of surgery, in search of what can't go; each costs a copy and an evaluation of the model."""


def compact(
    model: M,
    example_inputs: Any,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    others: Sequence[nn.Module] = (),
) -> M:
    """Return a smaller model with the masked structures removed from every layer they reach.

    The noise layers stay, narrower; :func:`fold` removes them. The model given is left untouched, and so are
    the optimizer and the other models unless all went well. Whatever would change the model's answers is
    retained.

    Parameters
    ----------
    model : nn.Module
        A model with noise layers, some of whose structures are masked by :func:`prune`.
    example_inputs : Tensor, tuple, list or dict
        One input, positional inputs, or keyword inputs: to follow the model's channels with, and to compare
        the two models on in evaluation mode. A real minibatch tells more than zeros.
    optimizer : torch.optim.Optimizer, optional
        An optimizer of `model`, made to continue with the new model: its parameters are replaced and its
        state (the moments of Adam, the factors of Adafactor) is cut to match.
    others : sequence of nn.Module
        Models of the same structure, such as an exponential moving average of the weights or an
        ``AveragedModel`` of `model`, made smaller in place and alike.

    Returns
    -------
    nn.Module
        The smaller model, in the training mode and with the `requires_grad` of the one given, and with the
        gradients that were accumulated, cut to match.

    Raises
    ------
    SurgeryError
        If the model's answers can't be compared, or the smaller model's would differ by more than 1e-5
        relative although each removal alone is sound.
    ValueError
        If the model has no noise layers, another model isn't of its structure, or the optimizer is another
        model's or can't go on (LBFGS, whose state is about all parameters at once).
    TypeError
        For example inputs of another kind, or an optimizer that is none.

    Warns
    -----
    UserWarning
        If structures are masked that can't be removed, with the reasons; :func:`plan_compaction` lists them.
        If an optimizer's state can't be cut and begins anew.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import compact, insert_noise
    >>> model = insert_noise(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.ones(2, 4))
    >>> model[0].noise.mask[1] = 0
    >>> compact(model, torch.ones(2, 4))[2]
    Linear(in_features=2, out_features=2, bias=True)
    """
    noise_layers(model)
    _check_alike(model, others)
    if optimizer is not None:
        check_optimizer(optimizer, model)
    surgeon = Surgeon(model, example_inputs, Selection(follow(model, example_inputs), noise_layers(model)))
    smaller, selection, mode = surgeon.operate()
    plan = selection.plan(selection.removable)
    if plan.retained:
        warnings.warn(f"{plan.retained} masked structures are not removable:\n{plan}", stacklevel=2)
    cut = Cut(selection)
    carry_gradients(model, smaller, cut)
    rebind = None if optimizer is None else with_smaller_state(optimizer, model, smaller, cut)
    for other in others:
        cut_model(same_part(model, other), cut, sizes=mode[0], products=mode[1])
    if rebind is not None:
        rebind()
    return smaller


class Surgeon(Generic[M]):
    """Tries surgery on copies of a model."""

    def __init__(self, model: M, example_inputs: Any, selection: Selection) -> None:
        self._model, self._selection = model, selection
        self._reference = Reference(model, example_inputs)
        self._attempts = 0

    def operate(self) -> tuple[M, Selection, tuple[bool, bool]]:
        """The smaller model, what went, and how the numbers that modules remember were treated."""
        whole = self._try(self._selection)
        if whole is not None:
            return whole
        sound = self._sound(sorted(self._selection.families(), key=min), [])
        result = self._try(self._only(sound))
        if result is None:
            names = ", ".join(self._selection.layers_of(set().union(*sound)))
            raise SurgeryError(
                f"removing the masked structures of {names} together would change the model's answer on the "
                f"example inputs by more than {self._reference.tolerance:.2g} relative, so the model was "
                "left as it was"
            )
        return result

    def _sound(self, families: list[set[int]], before: list[set[int]]) -> list[set[int]]:
        """The families that can go after those before, found by halving those that can't."""
        if not families or self._attempts > _MOST_ATTEMPTS:
            return []
        if self._try(self._only(before + families)) is not None:
            return families
        if len(families) == 1:
            return []
        half = len(families) // 2
        first = self._sound(families[:half], before)
        return first + self._sound(families[half:], before + first)

    def _only(self, families: list[set[int]]) -> Selection:
        return self._selection.only(set().union(*families), CHANGES_ANSWERS)

    def _try(self, selection: Selection) -> tuple[M, Selection, tuple[bool, bool]] | None:
        cut = Cut(selection)
        for mode in _MODES if cut.resized(products=True) else _MODES[-1:]:
            self._attempts += 1
            smaller = copy.deepcopy(self._model)
            cut_model(smaller, cut, sizes=mode[0], products=mode[1])
            if self._alike(smaller):
                return smaller, selection, mode
        return None

    def _alike(self, smaller: nn.Module) -> bool:
        return self._reference.difference(smaller) <= self._reference.tolerance


def _check_alike(model: nn.Module, others: Sequence[nn.Module]) -> None:
    for other in others:
        same_part(model, other)


def same_part(model: nn.Module, other: nn.Module) -> nn.Module:
    """The part of another model that has the model's structure: itself, or what an average wraps."""
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for part in (other, getattr(other, "module", None)):
        if isinstance(part, nn.Module):
            found = {name: tensor.shape for name, tensor in part.state_dict().items()}
            if found == shapes:
                return part
    raise ValueError(
        f"others must be models of the same structure as the {type(model).__name__} to compact, so that the "
        f"same channels can be removed from them, got a {type(other).__name__} with other parameters"
    )
