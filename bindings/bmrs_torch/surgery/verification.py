"""Check that two models answer alike, as they must after surgery."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from bmrs_torch.channels.calling import answers

RELATIVE_TOLERANCE = 1e-5
"""Of ‖difference‖ to ‖answer‖. float32 sums over other lengths differ by some 1e-7; a wrong channel by more
than 1e-3."""

_EPSILONS = 8.0
"""Tolerance in units of the answers' own eps where that is coarser (float16, bfloat16)."""


class SurgeryError(RuntimeError):
    """Surgery would have changed what the model computes; the model was left as it was."""


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
    return difference(answers(model, example_inputs), answers(other, example_inputs))


class Reference:
    """What a model answers on the example inputs, to compare smaller ones with.

    Parameters
    ----------
    model : nn.Module
        It is left as it is.
    example_inputs : Tensor, tuple, list or dict
        What to compare on; a real minibatch tells more than zeros.

    Raises
    ------
    SurgeryError
        If it answers with NaN or infinity or with something else each time, so that nothing can be compared.
    """

    def __init__(self, model: nn.Module, example_inputs: Any) -> None:
        self._model, self._inputs = model, example_inputs
        self._answers = answers(model, example_inputs)
        if not self._answers:
            raise SurgeryError(
                f"surgery on {type(model).__name__} can't be checked: what it answers on the example inputs "
                "holds no tensor of floating-point numbers to compare; the model was left as it was"
            )
        coarsest = max(torch.finfo(t.dtype).eps for t in self._answers)
        self.tolerance = max(RELATIVE_TOLERANCE, _EPSILONS * coarsest)
        again = difference(self._answers, answers(model, example_inputs))
        if not again <= self.tolerance:
            raise SurgeryError(
                f"surgery on {type(model).__name__} can't be checked: the model's own answers on the example "
                f"inputs differ by {again:.2g} from one evaluation to the next (NaN: they aren't finite), so "
                "the model was left as it was"
            )

    def difference(self, other: nn.Module) -> float:
        """Relative difference of another model's answers; of those in float64 if rounding may be the cause.

        Deep networks with arbitrary weights can magnify float32's rounding beyond the tolerance; in float64
        what is left of the difference is the surgery's. Infinite, if the other can't answer at all.
        """
        try:
            answered = answers(other, self._inputs)
        except Exception:  # noqa: BLE001 - the user's forward method; with another width it may raise anything
            return float("inf")
        found = difference(self._answers, answered)
        if self.tolerance < found < _ROUNDING:
            mine, theirs = doubled(self._model, self._inputs), doubled(other, self._inputs)
            return difference(answers(*mine), answers(*theirs))
        return found

    def verify(self, other: nn.Module, what: str) -> None:
        """Raise SurgeryError unless the other model answers alike.

        Parameters
        ----------
        other : nn.Module
            The model after surgery.
        what : str
            What was done, for the message.

        Raises
        ------
        SurgeryError
            If the answers differ by more than :data:`RELATIVE_TOLERANCE` (8 eps of the answers' dtype if that
            is more).
        """
        difference = self.difference(other)
        if not difference <= self.tolerance:
            raise SurgeryError(
                f"{what} would change the model's answer on the example inputs by {difference:.2g} relative "
                f"(allowed: {self.tolerance:.2g}), so the model was left as it was"
            )


_ROUNDING = 0.05
"""Differences beyond this are not worth a second look in float64."""


def doubled(model: nn.Module, example_inputs: Any) -> tuple[nn.Module, Any]:
    """A copy of a model in float64, and its inputs; as they are where it was made for one dtype only."""
    inputs = tree_map(
        lambda x: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x, example_inputs
    )
    other = copy.deepcopy(model).double()
    try:
        answers(other, inputs)
    except (RuntimeError, TypeError, ValueError):
        return copy.deepcopy(model), example_inputs
    return other, inputs


class _Dtypes(TorchDispatchMode):
    """Notes in which floating dtypes something is computed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.seen |= {t.dtype for t in tree_leaves(result) if isinstance(t, Tensor) and t.is_floating_point()}
        return result


def rounds_to_float32(model: nn.Module, example_inputs: Any) -> bool:
    """Whether something in a model is computed more coarsely than in float64, as norms of some are."""
    with _Dtypes() as dtypes:
        answers(model, example_inputs)
    return bool(dtypes.seen - {torch.float64})


def difference(first: list[Tensor], second: list[Tensor]) -> float:
    """‖second − first‖ / ‖first‖ over all tensors; inf if their shapes differ, NaN if one isn't finite."""
    if [t.shape for t in first] != [t.shape for t in second]:
        return float("inf")
    if not first:
        return 0.0
    a, b = (torch.cat([t.double().flatten() for t in ts]) for ts in (first, second))
    # The same infinity in both is no difference: masked scores are −∞.
    difference = torch.where(a == b, 0.0, b - a).norm()
    return 0.0 if difference == 0 else float(difference / a[a.isfinite()].norm())
