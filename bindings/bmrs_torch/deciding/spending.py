"""What a budget came to."""

from __future__ import annotations

from dataclasses import dataclass

from bmrs_torch.deciding.budget import Budget, shown

__all__ = ["Spending"]


@dataclass(frozen=True)
class Spending:
    """What a budget came to.

    Attributes
    ----------
    budget : Budget
    before : dict of str to float
        The costs that it limits, of the network with nothing pruned: numbers of each, seconds.
    reached : dict of str to float
        Those of the network without what is pruned now.
    lost : float
        Sum of the evidence against the removal of what was pruned by this call, in nats; of criteria that
        aren't evidence, of the scores.
    measured : bool
        Whether `reached` was measured on a network that was really made smaller; else it is predicted, as
        on the way to a budget that is met in several steps.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import Budget, insert_noise, prune
    >>> x = torch.ones(2, 4)
    >>> model = insert_noise(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), x)
    >>> spending = prune(model, budget=Budget(parameters=20), example_inputs=x).spending
    >>> spending.before, spending.reached
    ({'parameters': 23.0}, {'parameters': 16.0})
    """

    budget: Budget
    before: dict[str, float]
    reached: dict[str, float]
    lost: float
    measured: bool = True

    @property
    def fractions(self) -> dict[str, float]:
        """What is left of each cost."""
        before = self.before
        return {name: value / before[name] if before[name] else 1.0 for name, value in self.reached.items()}

    def __str__(self) -> str:
        told = [f"{shown(name, self.reached[name])} ({left:.4g})" for name, left in self.fractions.items()]
        return f"{'reached' if self.measured else 'predicted'} {', '.join(told)} for {self.budget}"
