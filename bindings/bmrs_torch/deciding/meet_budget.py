"""Choose what goes so that a network costs no more than it may, and see that it really doesn't."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from bmrs_torch.channels.calling import TrainingStep
from bmrs_torch.channels.network import trained
from bmrs_torch.costs.terms import Formula
from bmrs_torch.deciding.budget import Budget, BudgetError
from bmrs_torch.deciding.greedy import Choice, take_away
from bmrs_torch.deciding.out_of_reach import out_of_reach, why_structures_stay
from bmrs_torch.deciding.removals import class_losses, find_removals
from bmrs_torch.deciding.spending import Spending
from bmrs_torch.deciding.trial import Meter, folded, made_smaller
from bmrs_torch.layer import noise_layers
from bmrs_torch.surgery.plan_compaction import Selection, select
from bmrs_torch.surgery.surgeon import CHANGES_ANSWERS
from bmrs_torch.surgery.verification import SurgeryError
from bmrs_torch.wrapping import whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bmrs_torch.channels.labels import Bools

    Floats = NDArray[np.float64]

__all__ = ["Layers", "all_that_may_go", "meet_budget", "survey"]

Layers = tuple[str, ...]
"""Names of noise layers that are coupled."""

_TRIALS = 5
"""After so many a network that costs little enough is taken, however much less than was meant."""

_CLOSE = 0.97
"""Of the latency asked for; timing again gives other figures by a few per cent."""


def meet_budget(
    model: nn.Module,
    worth: Mapping[str, Floats],
    budget: Budget,
    example_inputs: Any,
    *,
    training_step: TrainingStep | None = None,
    before: Mapping[str, float] | None = None,
    reference: nn.Module | None = None,
    refused: Collection[Layers] = (),
    widths: Mapping[str, int] | None = None,
    steps: int = 1,
    tried: bool = True,
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
    reference : nn.Module, optional
        That network without its noise, if the budget is one of latency.
    refused : collection of tuple of str
        What :func:`survey` found.
    widths : mapping of str to int, optional
        How many structures each noise layer had with nothing pruned, if it has been made smaller since.
    steps : int
        In how many calls, this one counted, it is to be met: each takes its costs down by an equal ratio. All
        but the last go by what is predicted.
    tried : bool
        Whether to try on a copy that it is met.

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
    search = _Search(
        whole(model), worth, budget, example_inputs, training_step, before, reference, refused, widths
    )
    found = search.predicted(steps) if steps > 1 or not tried else None
    gone, reached = search.run() if found is None else found
    kept = search.kept_without(gone)
    lost = sum(float(worth[name][search.kept[name] & ~kept[name]].sum()) for name in kept)
    return kept, Spending(budget, search.before, reached, lost, measured=found is None)


def survey(
    model: nn.Module, budget: Budget, example_inputs: Any, training_step: TrainingStep | None = None
) -> set[Layers]:
    """Which sets of coupled noise layers surgery can't make narrower, found by trying all of them.

    Raises
    ------
    BudgetError
        If the budget is out of reach, whatever the evidence. Latencies are not looked at.
    """
    counted = {name: amount for name, amount in vars(budget).items() if name != "latency" and amount}
    worth = {name: np.zeros(layer.num_structures) for name, layer in noise_layers(model).items()}
    costs = Budget(**counted) if counted else Budget(macs=0.5)
    search = _Search(whole(model), worth, costs, example_inputs, training_step)
    try:
        return search.survey(checked=bool(counted))
    except SurgeryError:
        # With so little left it may answer with NaN, which says nothing of the budget.
        return set()


class _Search:
    """Removals chosen by what they are predicted to save, tried on a copy, corrected, chosen anew."""

    def __init__(
        self,
        model: nn.Module,
        worth: Mapping[str, Floats],
        budget: Budget,
        example_inputs: Any,
        training_step: TrainingStep | None = None,
        before: Mapping[str, float] | None = None,
        reference: nn.Module | None = None,
        refused: Collection[Layers] = (),
        widths: Mapping[str, int] | None = None,
    ) -> None:
        self._model, self._inputs, self._step, self._budget = model, example_inputs, training_step, budget
        self.kept = {name: layer.kept().cpu().numpy() for name, layer in noise_layers(model).items()}
        now = {name: each.size for name, each in self.kept.items()}
        self._widths = now if widths is None else widths
        self._selection = all_that_may_go(model, example_inputs, training_step)
        self._losses = class_losses(self._selection, worth, self.kept)
        self._layers_of = _layers_of_classes(self._selection)
        stay = [root for root, layers in self._layers_of.items() if layers in refused]
        self._reasons: dict[int, str] = dict.fromkeys(stay, CHANGES_ANSWERS)
        self._nothing = np.zeros(self._selection.network.labels.number, dtype=np.bool_)
        whole = model if budget.latency is None else folded(model, example_inputs, training_step)
        self._meter = Meter(
            budget, example_inputs, whole if reference is None else reference, (before or {}).get("latency")
        )
        self._whole = self._meter.measure(whole)
        self.before = dict(self._whole if before is None else before)
        self._limits = {name: limit.of(self.before[name]) for name, limit in budget.limits().items()}
        self._fit(whole, self._nothing, self._whole)

    def predicted(self, steps: int) -> tuple[Bools, dict[str, float]] | None:
        """Which classes are gone after the first of so many steps, and what is left costs by the formula.

        None if that is out of reach.
        """
        now = self._formula.costs(self._masked(self._dead(self._possible())))
        limits = np.array(list(self._limits.values()))
        choice = self._choose(np.where(now > limits, now * (limits / now) ** (1 / steps), limits))
        return (choice.gone, self._named(choice.costs)) if choice.met else None

    def survey(self, *, checked: bool) -> set[Layers]:
        """The layers of which nothing goes when all is tried; see whether the rest is within the budget."""
        refused: dict[int, str] = {0: ""}
        while refused:
            choice = self._choose(np.zeros(len(self._limits)))
            small, refused = self._try(choice.gone)
            self._refuse(refused)
        reached = self._meter.measure(small)
        if checked and any(reached[name] > limit for name, limit in self._limits.items()):
            raise self._out_of_reach(reached)
        return {self._layers_of[root] for root, why in self._reasons.items() if why == CHANGES_ANSWERS}

    def run(self) -> tuple[Bools, dict[str, float]]:
        """Which classes are gone in the end, by representative, and what is left then costs, measured."""
        limits = np.array(list(self._limits.values()))
        aims = limits.copy()
        if self._meter.timed:  # times are predicted best from near by, so it goes there in two steps
            number = list(self._limits).index("latency")
            aims[number] = (limits[number] * max(self._whole["latency"], limits[number])) ** 0.5
        best: tuple[float, Bools, dict[str, float]] | None = None
        trials = misses = 0
        while True:
            choice = self._choose(aims)
            small, refused = self._try(choice.gone)
            if refused:
                self._refuse(refused)
                continue
            trials += 1
            reached = self._meter.measure(small)
            if all(reached[name] <= limit for name, limit in self._limits.items()):
                loss = float(self._losses[choice.gone].sum())
                again = best is not None and np.array_equal(best[1], choice.gone)
                best = min(filter(None, (best, (loss, choice.gone, reached))), key=lambda each: each[0])
                if again or self._is_enough(choice, reached) or trials >= _TRIALS:
                    return best[1:]
            elif not choice.met or (best is not None and trials >= _TRIALS):
                if best is not None:
                    return best[1:]
                raise self._out_of_reach(reached)
            else:
                misses += trials > 1
            self._fit(small, choice.gone, reached)
            wrong = np.array(list(reached.values())) - self._formula.costs(choice.gone)
            aims = limits - wrong
            if self._meter.timed:
                aims[number] *= _CLOSE**misses

    def kept_without(self, gone: Bools) -> dict[str, Bools]:
        """What of each layer is kept when these classes are gone."""
        network = self._selection.network
        kept = {name: each.copy() for name, each in self.kept.items()}
        for name, labels in network.gates.items():
            kept[name] &= ~gone[network.labels.roots(labels)]
        return kept

    def _is_enough(self, choice: Choice, reached: dict[str, float]) -> bool:
        """Whether what is low enough isn't lower than was meant: times hardly, numbers not at all."""
        if not choice.taken:
            return True
        expected = self._named(choice.costs)
        exact = all(abs(expected[n] - reached[n]) < 0.5 for n in reached if n != "latency")
        return exact and not (self._meter.timed and reached["latency"] < _CLOSE * self._limits["latency"])

    def _fit(self, small: nn.Module, gone: Bools, reached: Mapping[str, float]) -> None:
        """Make the formula anew: times from what is left without `gone`, numbers as they are of the whole."""
        network = self._selection.network
        terms = self._meter.terms(self._model, network, small, gone, reached)
        self._formula = Formula(network, terms)
        counted = np.array([name != "latency" for name in self._whole])
        whole = np.array(list(self._whole.values()))
        self._formula.fixed += np.where(counted, whole - self._formula.costs(self._nothing), 0.0)

    def _choose(self, limits: Floats) -> Choice:
        """The removals by the formula, but for those that are refused."""
        network = self._selection.network
        roots = network.labels.roots
        while True:
            possible = self._possible()
            dead = self._dead(possible)
            removals = find_removals(self._selection, possible - dead, self._losses)
            layers = [
                (roots(labels[self.kept[name]]), self._widths[name]) for name, labels in network.gates.items()
            ]
            choice = take_away(self._formula, limits, removals, self._losses, self._masked(dead), layers)
            chosen = set(np.flatnonzero(choice.gone).tolist())
            settled = self._selection.only(chosen, {})
            uneven = chosen - settled.removable
            if not uneven:
                return choice
            self._reasons.update({root: settled.reasons[root] for root in uneven})

    def _possible(self) -> set[int]:
        return self._selection.possible - self._reasons.keys()

    def _masked(self, classes: set[int]) -> Bools:
        gone = self._nothing.copy()
        gone[list(classes)] = True
        return gone

    def _dead(self, possible: set[int]) -> set[int]:
        """Classes all of whose structures are masked already and that go."""
        network = self._selection.network
        alive: set[int] = set()
        for name, labels in network.gates.items():
            alive.update(network.labels.roots(labels[self.kept[name]]).tolist())
        return self._selection.only(possible - alive, {}).removable

    def _named(self, costs: Floats) -> dict[str, float]:
        return dict(zip(self._formula.names, costs.tolist(), strict=True))

    def _try(self, gone: Bools) -> tuple[nn.Module, dict[int, str]]:
        """A copy without these classes, plain if it can be, and why some of them had to stay."""
        if not gone.any():
            return self._meter.plain(self._model, self._step), {}
        small, plan = made_smaller(self._model, self.kept_without(gone), self._inputs, self._step)
        network = self._selection.network
        refused: dict[int, str] = {}
        for layer in plan.layers:
            if layer.name in network.gates:
                roots = network.labels.roots(network.gates[layer.name])
                refused.update({int(roots[i]): why for i, why in layer.retained if gone[roots[i]]})
        return (small if refused else self._meter.plain(small, self._step)), refused

    def _refuse(self, refused: dict[int, str]) -> None:
        """Let these stay, and the others of layers whose width the model counts on."""
        self._reasons.update(refused)
        counted_on = {self._layers_of[root] for root, why in refused.items() if why == CHANGES_ANSWERS}
        alike = [root for root in self._possible() if self._layers_of[root] in counted_on]
        self._reasons.update(dict.fromkeys(alike, CHANGES_ANSWERS))

    def _out_of_reach(self, reached: dict[str, float]) -> BudgetError:
        stuck = {**self._selection.reasons, **self._reasons}
        for root in self._possible():
            stuck.pop(root, None)
        return out_of_reach(
            self._budget, self._limits, self.before, reached, why_structures_stay(self._selection, stuck)
        )


def all_that_may_go(model: nn.Module, inputs: Any, step: TrainingStep | None) -> Selection:
    """What could go of a network after some training, if it were masked."""
    other = trained(model)
    with torch.no_grad():
        for layer in noise_layers(other).values():
            layer.mask.zero_()
    return select(other, inputs, training_step=step)


def _layers_of_classes(selection: Selection) -> dict[int, Layers]:
    """Names of the noise layers that have structures of each class, by its representative."""
    layers: dict[int, list[str]] = {}
    for name, labels in selection.network.gates.items():
        for root in np.unique(selection.network.labels.roots(labels)).tolist():
            layers.setdefault(root, []).append(name)
    return {root: tuple(names) for root, names in layers.items()}
