"""Say that a budget is out of reach, what is within it, and why no more can go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from bmrs_torch.deciding.budget import Budget, BudgetError, shown
from bmrs_torch.surgery.plan_compaction import Selection

__all__ = ["out_of_reach", "why_structures_stay"]

_MOST_REASONS = 3

_STAYS = (
    "At least one structure stays in every layer, and all that has no noise (plan_insertion tells what "
    "and why)"
)


def why_structures_stay(selection: Selection, reasons: Mapping[int, str]) -> Counter[str]:
    """How many structures stay for each reason, given by the representatives of their classes."""
    number: Counter[str] = Counter()
    for labels in selection.network.gates.values():
        roots = selection.network.labels.roots(labels).tolist()
        number.update(reasons[root] for root in roots if root in reasons)
    return number


def out_of_reach(
    budget: Budget,
    limits: Mapping[str, float],
    before: Mapping[str, float],
    reached: Mapping[str, float],
    reasons: Counter[str],
) -> BudgetError:
    """The error.

    Parameters
    ----------
    budget : Budget
    limits, before, reached : mapping of str to float
        Costs: the figures asked for, those of the network with nothing pruned, the least that can be had.
    reasons : Counter of str
        Why structures stay, with how many.
    """
    told = "; ".join(
        f"{shown(name, limit)} asked for, {shown(name, reached[name])} is the least that can be reached "
        f"({reached[name] / before[name]:.4g} of what it was)"
        for name, limit in limits.items()
        if reached[name] > limit
    )
    stays = [f"{times} structures stay: {why}" for why, times in reasons.most_common(_MOST_REASONS)]
    why = ". ".join([_STAYS, *stays])
    return BudgetError(f"the budget of {budget} is out of reach: {told}. {why}. Nothing was masked")
