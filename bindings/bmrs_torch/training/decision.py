"""Several prunings told as one, and one kept as plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bmrs_torch.deciding.budget import as_budget
from bmrs_torch.deciding.criteria import find_criterion
from bmrs_torch.deciding.prune_report import LayerPruning, PruneReport
from bmrs_torch.deciding.spending import Spending

__all__ = ["altogether", "from_numbers", "to_numbers"]


def altogether(reports: Sequence[PruneReport]) -> PruneReport:
    """What several prunings of one model did, with the scores of the last."""
    last = reports[-1]
    numbers = [sum(each) for each in zip(*([p.pruned_now for p in r.layers] for r in reports), strict=True)]
    layers = tuple(
        replace(layer, pruned_now=number) for layer, number in zip(last.layers, numbers, strict=True)
    )
    if last.spending is None:
        return replace(last, layers=layers)
    lost = sum(report.spending.lost for report in reports if report.spending is not None)
    return replace(last, layers=layers, spending=replace(last.spending, lost=lost))


def to_numbers(report: PruneReport) -> dict[str, Any]:
    """A report as lists, numbers and text."""
    spending = report.spending
    return {
        "rule": report.rule,
        "criterion": report.criterion.name,
        "limit": report.limit,
        "nearest": report.nearest,
        "layers": [
            (layer.name, layer.scores.tolist(), layer.kept.tolist(), layer.pruned_now, layer.spared)
            for layer in report.layers
        ],
        "spending": None
        if spending is None
        else (dict(spending.before), dict(spending.reached), spending.lost, spending.measured),
    }


def from_numbers(numbers: Mapping[str, Any], budget: Any) -> PruneReport:
    """The report again; the budget is the one that it was made with."""
    layers = tuple(
        LayerPruning(name, np.array(scores, dtype=np.float64), np.array(kept, dtype=np.bool_), number, spared)
        for name, scores, kept, number, spared in numbers["layers"]
    )
    told = numbers["spending"]
    spending = None if told is None else Spending(as_budget(budget), *told)
    nearest = None if numbers["nearest"] is None else tuple(numbers["nearest"])
    criterion = find_criterion(numbers["criterion"])
    return PruneReport(numbers["rule"], layers, criterion, numbers["limit"], nearest, spending)
