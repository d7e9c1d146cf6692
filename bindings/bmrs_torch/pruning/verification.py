"""Check that two models answer alike, as they must after surgery."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bmrs_torch.pruning.dependency import call

RELATIVE_TOLERANCE = 1e-5
"""Of ‖difference‖ to ‖answer‖. float32 sums over other lengths differ by some 1e-7; a wrong channel by more
than 1e-3."""

_EPSILONS = 8.0
"""Tolerance in units of the answers' own eps where that is coarser (float16, bfloat16)."""


class SurgeryError(RuntimeError):
    """Surgery would have changed what the model computes; the model was left as it was."""


@torch.no_grad()
def relative_difference(model: nn.Module, other: nn.Module, example_inputs: Any) -> float:
    """‖other(x) − model(x)‖ / ‖model(x)‖ in evaluation mode, over all tensors the models return.

    Parameters
    ----------
    model, other : nn.Module
        Their training mode is restored afterwards.
    example_inputs : Tensor, tuple, list or dict
        One input, positional inputs, or keyword inputs.

    Returns
    -------
    float
        0 if both are equal, NaN if an answer isn't finite, inf if the answers' shapes differ.
    """
    first, second = (_tensors(_evaluate(m, example_inputs)) for m in (model, other))
    if [t.shape for t in first] != [t.shape for t in second]:
        return float("inf")
    flat_first, flat_second = (torch.cat([t.double().flatten() for t in ts]) for ts in (first, second))
    difference = (flat_second - flat_first).norm()
    return 0.0 if difference == 0 else float(difference / flat_first.norm())


def verify(model: nn.Module, other: nn.Module, example_inputs: Any, what: str) -> None:
    """Raise SurgeryError unless both models answer alike on the example inputs.

    Parameters
    ----------
    model, other : nn.Module
        The model before and after.
    example_inputs : Tensor, tuple, list or dict
        What to compare them on; a real minibatch tells more than zeros.
    what : str
        What was done, for the message.

    Raises
    ------
    SurgeryError
        If the answers differ by more than :data:`RELATIVE_TOLERANCE` (8 eps of the answers' dtype if that is
        more).
    """
    difference = relative_difference(model, other, example_inputs)
    coarsest = max(torch.finfo(t.dtype).eps for t in _tensors(_evaluate(other, example_inputs)))
    tolerance = max(RELATIVE_TOLERANCE, _EPSILONS * coarsest)
    if not difference <= tolerance:
        raise SurgeryError(
            f"{what} would change the model's answer on the example inputs by {difference:.2g} relative "
            f"(allowed: {tolerance:.2g}), so the model was left as it was. A masked structure must be worth "
            "0 to what follows: an activation with f(0) ≠ 0 or a normalisation after the noise breaks this; "
            "place the noise after it"
        )


@torch.no_grad()
def _evaluate(model: nn.Module, example_inputs: Any) -> Any:
    modes = {module: module.training for module in model.modules()}
    try:
        return call(model.eval(), example_inputs)
    finally:
        for module, training in modes.items():
            module.training = training


def _tensors(answer: Any) -> list[Tensor]:
    if isinstance(answer, Tensor):
        return [answer] if answer.is_floating_point() else []
    parts = (
        answer.values() if isinstance(answer, dict) else answer if isinstance(answer, (tuple, list)) else ()
    )
    return [tensor for part in parts for tensor in _tensors(part)]
