"""Prune until a budget is met, in the order of what is lost for what is saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from bmrs_torch.deciding.budget import Budget, as_budget
from bmrs_torch.deciding.meet_budget import meet_budget
from bmrs_torch.deciding.prune_report import LayerPruning, PruneReport, mask
from bmrs_torch.deciding.scores import Scores
from bmrs_torch.layer import noise_layers

__all__ = ["check_budget", "check_followable", "prune_to_budget"]

_WITHOUT_BUDGET: dict[str, Any] = {
    "tolerance": None,
    "strict": False,
    "threshold": None,
    "amount": None,
    "scope": "layer",
    "coupling": None,
}
"""Options of :func:`prune` whose place a budget takes, as they are when they aren't given."""


def prune_to_budget(
    model: nn.Module, model_scores: Scores, budget: Budget, example_inputs: Any, **options: Any
) -> PruneReport:
    """Mask what loses least for what it saves until a budget is met; options are those of `meet_budget`."""
    kept, spending = meet_budget(model, model_scores.worth(), budget, example_inputs, **options)
    before = {name: layer.kept().cpu().numpy() for name, layer in noise_layers(model).items()}
    reports = tuple(
        LayerPruning(
            name or "(model)", values, kept[name], int(before[name].sum() - kept[name].sum()), spared=None
        )
        for name, values in model_scores.items()
    )
    mask(model, reports)
    symbol = model_scores.criterion.symbol
    lost = f"−{symbol}" if model_scores.criterion.is_evidence else symbol
    rule = f"prune by the smallest {lost} per cost saved"
    return PruneReport(rule, reports, model_scores.criterion, None, spending=spending)


def check_budget(budget: Any, options: Mapping[str, Any]) -> Budget:
    """The budget, if it is one and nothing is given beside it that has no effect with it."""
    found = as_budget(budget)
    foreign = [name for name, unset in _WITHOUT_BUDGET.items() if options.get(name, unset) != unset]
    if foreign:
        raise ValueError(
            f"a budget takes the place of {', '.join(foreign)}: it goes down the order of evidence lost per "
            "cost saved until it is met, and takes coupled structures together by itself; give one or the "
            "other"
        )
    return found


def check_followable(example_inputs: Any) -> None:
    """Raise ValueError unless there is something to follow a model on."""
    if example_inputs is None:
        raise ValueError(
            "a budget needs example_inputs: what a structure costs, and what can only go with it, is found "
            "by following the model on them"
        )
