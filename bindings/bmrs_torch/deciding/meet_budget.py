"""Choose what goes so that a network costs no more than it may, and see that it really doesn't."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from bmrs_torch.channels.calling import TrainingStep, in_mode
from bmrs_torch.channels.network import trained
from bmrs_torch.costs.counting import count_bytes, count_macs, count_plain_parameters
from bmrs_torch.costs.terms import Formula, byte_terms, mac_terms, parameter_terms
from bmrs_torch.deciding.budget import Budget, BudgetError, shown
from bmrs_torch.deciding.greedy import Course, take_away
from bmrs_torch.deciding.removals import class_losses, find_removals
from bmrs_torch.layer import noise_layers
from bmrs_torch.surgery.fold import NotFoldableError, fold
from bmrs_torch.surgery.plan_compaction import CompactionPlan, Selection, select
from bmrs_torch.surgery.surgeon import Surgeon
from bmrs_torch.wrapping import unwrapped

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bmrs_torch.channels.labels import Bools

__all__ = ["Spending", "meet_budget"]

_MOST_REASONS = 3
"""Told of why structures stay."""


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
    """

    budget: Budget
    before: dict[str, float]
    reached: dict[str, float]
    lost: float

    def __str__(self) -> str:
        told = [
            f"{shown(name, value)}, {value / self.before[name]:.4g} of what it was"
            for name, value in self.reached.items()
        ]
        return f"{self.budget}: reached {'; '.join(told)}"


def meet_budget(
    model: nn.Module,
    worth: Mapping[str, NDArray[np.float64]],
    budget: Budget,
    example_inputs: Any,
    *,
    training_step: TrainingStep | None = None,
    before: Mapping[str, float] | None = None,
) -> tuple[dict[str, Bools], Spending]:
    """Choose the structures that lose least for what they save until a budget is met.

    Parameters
    ----------
    model : nn.Module
        With noise layers; it is left as it is.
    worth : mapping of str to ndarray of float64
        What speaks for keeping each structure, by noise layer.
    budget : Budget
    example_inputs, training_step
        As of :func:`compact`.
    before : mapping of str to float, optional
        What the network costed with nothing pruned, if it has been made smaller since.

    Returns
    -------
    kept : dict of str to ndarray of bool
        What is to be kept of each noise layer.
    Spending

    Raises
    ------
    BudgetError
        If it is out of reach.
    SurgeryError
        If the model's answers can't be compared, so that nothing can be removed from it.
    """
    search = _Search(unwrapped(model), worth, budget, example_inputs, training_step, before)
    gone = search.run()
    kept = search.kept_without(gone)
    lost = sum(float(worth[name][search.kept[name] & ~kept[name]].sum()) for name in kept)
    return kept, Spending(budget, search.before, search.reached, lost)


class _Search:
    """Removals chosen by what they are predicted to save, tried on a copy, corrected, chosen anew."""

    def __init__(
        self,
        model: nn.Module,
        worth: Mapping[str, NDArray[np.float64]],
        budget: Budget,
        example_inputs: Any,
        training_step: TrainingStep | None,
        before: Mapping[str, float] | None,
    ) -> None:
        self._model, self._inputs, self._step, self._budget = model, example_inputs, training_step, budget
        self.kept = {name: layer.kept().cpu().numpy() for name, layer in noise_layers(model).items()}
        self._selection = _all_that_may_go(model, example_inputs, training_step)
        network = self._selection.network
        self._losses = class_losses(self._selection, worth, self.kept)
        names = list(budget.limits())
        makers = {
            "macs": lambda: mac_terms(network),
            "parameters": lambda: parameter_terms(model, network),
            "bytes": lambda: byte_terms(model, network),
        }
        self._formula = Formula(network, {name: makers[name]() for name in names})
        whole = self._measured(model)
        nothing = np.zeros(network.labels.number, dtype=np.bool_)
        self._formula.fixed += list(whole.values()) - self._formula.costs(nothing)
        self.before = whole if before is None else {name: float(before[name]) for name in names}
        self._limits = {name: limit.of(self.before[name]) for name, limit in budget.limits().items()}
        self._reasons: dict[int, str] = {}
        self.reached: dict[str, float] = {}

    def run(self) -> Bools:
        """Which classes are gone in the end, by representative."""
        limits = np.array(list(self._limits.values()))
        corrections = np.zeros(limits.size)
        while True:
            course = self._choose(limits - corrections)
            refused = self._try(course.gone)
            self._reasons.update(refused)
            if refused:
                continue
            if all(self.reached[name] <= limit for name, limit in self._limits.items()):
                return course.gone
            if not course.met:
                raise BudgetError(self._out_of_reach())
            corrections = list(self.reached.values()) - course.costs

    def kept_without(self, gone: Bools) -> dict[str, Bools]:
        """What of each layer is kept when these classes are gone."""
        network = self._selection.network
        kept = {name: each.copy() for name, each in self.kept.items()}
        for name, labels in network.gates.items():
            kept[name] &= ~gone[network.labels.roots(labels)]
        return kept

    def _choose(self, limits: NDArray[np.float64]) -> Course:
        """The removals by the formula, but for those that are refused."""
        network = self._selection.network
        roots = network.labels.roots
        while True:
            possible = self._selection.possible - self._reasons.keys()
            dead = self._dead(possible)
            removals = find_removals(self._selection, possible - dead, self._losses)
            layers = [roots(labels[self.kept[name]]) for name, labels in network.gates.items()]
            gone = np.zeros(network.labels.number, dtype=np.bool_)
            gone[list(dead)] = True
            course = take_away(self._formula, limits, removals, self._losses, gone, layers)
            chosen = set(np.flatnonzero(course.gone).tolist())
            settled = self._selection.only(chosen, {})
            uneven = chosen - settled.removable
            if not uneven:
                return course
            self._reasons.update({root: settled.reasons[root] for root in uneven})

    def _dead(self, possible: set[int]) -> set[int]:
        """Classes all of whose structures are masked already and that go."""
        network = self._selection.network
        alive: set[int] = set()
        for name, labels in network.gates.items():
            alive.update(network.labels.roots(labels[self.kept[name]]).tolist())
        return self._selection.only(possible - alive, {}).removable

    def _try(self, gone: Bools) -> dict[int, str]:
        """Take these classes out of a copy: why some of them stay, and what the rest costs."""
        if not gone.any():
            self.reached = self._measured(self._model)
            return {}
        smaller, plan = _operated(self._model, self.kept_without(gone), self._inputs, self._step)
        network = self._selection.network
        refused: dict[int, str] = {}
        for layer in plan.layers:
            roots = network.labels.roots(network.gates[layer.name]).tolist() if layer.retained else []
            refused.update({roots[i]: why for i, why in layer.retained if gone[roots[i]]})
        if not refused:
            self.reached = self._measured(smaller)
        return refused

    def _measured(self, model: nn.Module) -> dict[str, float]:
        counts = {
            "macs": lambda: _macs(model, self._inputs),
            "parameters": lambda: count_plain_parameters(model),
            "bytes": lambda: count_bytes(model),
        }
        return {name: float(counts[name]()) for name in self._budget.limits()}

    def _out_of_reach(self) -> str:
        missed = [name for name, limit in self._limits.items() if self.reached[name] > limit]
        told = "; ".join(
            f"{shown(name, self._limits[name])} asked for, {shown(name, self.reached[name])} reachable at "
            f"least ({self.reached[name] / self.before[name]:.4g} of what it was)"
            for name in missed
        )
        return (
            f"the budget of {self._budget} is out of reach: {told}. {self._what_stays()} Nothing was masked"
        )

    def _what_stays(self) -> str:
        """Why what is left stays: the reasons that concern most structures."""
        network = self._selection.network
        reasons = {**self._selection.reasons, **self._reasons}
        stuck = reasons.keys() - (self._selection.possible - self._reasons.keys())
        number: Counter[str] = Counter()
        for labels in network.gates.values():
            roots = network.labels.roots(labels).tolist()
            number.update(reasons[root] for root in roots if root in stuck)
        told = [f"{times} structures stay: {why}" for why, times in number.most_common(_MOST_REASONS)]
        return ". ".join(["At least one structure stays in every layer", *told]) + "."


def _all_that_may_go(model: nn.Module, inputs: Any, step: TrainingStep | None) -> Selection:
    """What could go of a network after some training, if it were masked."""
    other = trained(model)
    with torch.no_grad():
        for layer in noise_layers(other).values():
            layer.mask.zero_()
    return select(other, inputs, training_step=step)


def _operated(
    model: nn.Module, kept: Mapping[str, Bools], inputs: Any, step: TrainingStep | None
) -> tuple[nn.Module, CompactionPlan]:
    """A copy of a model that really has no more than these structures, and what of the others stayed."""
    masked = copy.deepcopy(model)
    with torch.no_grad():
        for name, layer in noise_layers(masked).items():
            layer.mask.mul_(torch.as_tensor(kept[name], device=layer.mask.device))
    selection = select(masked, inputs, training_step=step)
    smaller, selection = Surgeon(masked, inputs, selection, training_step=step).operate()
    return _folded(smaller, inputs, step), selection.plan(selection.removable)


def _folded(model: nn.Module, inputs: Any, step: TrainingStep | None) -> nn.Module:
    """Without noise, where that can be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `fold` itself will say it
        try:
            return fold(model, inputs, training_step=step, unreached="warn")
        except NotFoldableError:
            return model


def _macs(model: nn.Module, inputs: Any) -> int:
    with in_mode(model, training=False):
        return count_macs(model, inputs)[""]
