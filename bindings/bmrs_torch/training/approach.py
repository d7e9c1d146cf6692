"""Come down to a budget over the prunings of a schedule."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from bmrs_torch.channels.calling import TrainingStep, mapped, tensors_of
from bmrs_torch.deciding.budget import Budget
from bmrs_torch.deciding.meet_budget import Layers, survey
from bmrs_torch.deciding.prune_report import PruneReport
from bmrs_torch.deciding.prune_to_budget import prune_to_budget
from bmrs_torch.deciding.scores import scores
from bmrs_torch.deciding.trial import folded
from bmrs_torch.layer import MultiplicativeNoise, noise_layers
from bmrs_torch.training.schedule import Schedule
from bmrs_torch.wrapping import whole

__all__ = ["Approach"]


class Approach:
    """Takes a network's costs down in equal ratios, so that they meet a budget when fine-tuning begins.

    Without a fine-tuning the budget is met at the first pruning.

    Parameters
    ----------
    model : nn.Module
        The network as it is at the beginning, to which the budget refers.
    budget : Budget
    example_inputs : Tensor, tuple, list or dict
    schedule : Schedule
    training_step : callable, optional
        As of :func:`compact`.

    Raises
    ------
    BudgetError
        If the budget is out of reach whatever the evidence. Of latency that shows later.
    """

    def __init__(
        self,
        model: nn.Module,
        budget: Budget,
        example_inputs: Any,
        schedule: Schedule,
        training_step: TrainingStep | None,
    ) -> None:
        self._budget, self._inputs, self._schedule = budget, example_inputs, schedule
        self._step = training_step
        self._before: dict[str, float] | None = None
        self._is_met = False
        self._widths = {name: layer.num_structures for name, layer in noise_layers(model).items()}
        self._refused: set[Layers] | None = None
        if {p.device for p in model.parameters()} >= {t.device for t in tensors_of(example_inputs)}:
            self._refused = survey(model, self._budget, example_inputs, training_step)
        # Another model's time is compared with that of this one, which may have shrunk by then.
        self._first = copy.deepcopy(whole(model)) if self._budget.latency is not None else None

    def prune(self, model: nn.Module, criterion: str, done: int, options: Mapping[str, Any]) -> PruneReport:
        """Prune as much as is due when so many epochs or steps are done; options are those of `prune`."""
        of_scores = {name: options[name] for name in ("p1", "p2", "seed") if name in options}
        device = next(model.parameters()).device  # frameworks move a model when its training begins
        self._inputs = mapped(self._inputs, lambda tensor: tensor.to(device))
        if self._refused is None:
            self._refused = survey(model, self._budget, self._inputs, self._step)
        report = prune_to_budget(
            model,
            scores(model, criterion, example_inputs=self._inputs, **of_scores),
            self._budget,
            self._inputs,
            training_step=self._step,
            before=self._before,
            reference=self._reference(device),
            refused=self._refused,
            widths=self._widths,
            steps=self._steps_left(done),
            tried=not self._is_met,
        )
        assert report.spending is not None
        self._before = report.spending.before
        self._is_met = self._is_met or report.spending.measured
        return report

    def _reference(self, device: torch.device) -> nn.Module | None:
        """The network as it was at first, without noise, where the model is now."""
        if self._first is None:
            return None
        first = self._first.to(device)
        if any(isinstance(module, MultiplicativeNoise) for module in first.modules()):
            first = folded(first, self._inputs, self._step)
        self._first = first
        return first

    def _steps_left(self, done: int) -> int:
        """How many prunings are due from now until fine-tuning begins, the one now counted in."""
        last = self._schedule.finetune_from
        if last is None or done >= last:
            return 1
        return sum(self._schedule.is_due(each) for each in range(done, last + 1))

    def state_dict(self) -> dict[str, Any]:
        """What the network costed at first, and whether the budget is met."""
        return {"before": self._before, "is_met": self._is_met}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state_dict` gave."""
        self._before, self._is_met = state["before"], state["is_met"]
