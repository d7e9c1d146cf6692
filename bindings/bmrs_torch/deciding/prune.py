"""Apply a rule to a model: masks are set for good, and a report says what happened to each layer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from torch import nn

from bmrs_torch.channels.calling import TrainingStep
from bmrs_torch.deciding.budget import Budget, as_budget
from bmrs_torch.deciding.coupled_gates import coupled_gates
from bmrs_torch.deciding.criteria import P1, P2, Criterion, find_criterion
from bmrs_torch.deciding.meet_budget import meet_budget
from bmrs_torch.deciding.rules import Rule, Scope, make_rule
from bmrs_torch.deciding.scores import Scores, scores
from bmrs_torch.deciding.spending import Spending
from bmrs_torch.deciding.units import Coupling, Units, make_units
from bmrs_torch.layer import noise_layers

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class LayerPruning:
    """What pruning did to one noise layer.

    Attributes
    ----------
    name : str
        Name of the noise layer.
    scores : ndarray of float64, shape (num_structures,)
        Score of every structure, of those pruned earlier too.
    kept : ndarray of bool, shape (num_structures,)
        What is kept now.
    pruned_now : int
        How many structures this call pruned.
    spared : int or None
        A structure kept only because a layer must keep one, or None.
    """

    name: str
    scores: NDArray[np.float64]
    kept: NDArray[np.bool_]
    pruned_now: int
    spared: int | None

    @property
    def num_kept(self) -> int:
        """How many structures are kept now."""
        return int(self.kept.sum())

    def __str__(self) -> str:
        spared = (
            "" if self.spared is None else f" (structure {self.spared} spared: a layer keeps at least one)"
        )
        return f"{self.name}: {self.num_kept} of {self.kept.size} kept, {self.pruned_now} pruned now{spared}"


@dataclass(frozen=True)
class PruneReport:
    """What :func:`prune` did: the rule in words, and each layer. Print it to read it.

    Attributes
    ----------
    rule : str
        In words and numbers.
    layers : tuple of LayerPruning
        In the order of the model.
    criterion : Criterion
        What the scores mean.
    limit : float or None
        The score at which a structure goes, None where an amount decided.
    nearest : tuple of str and float, or None
        Of the structures that a rule keeps, the score nearest to it, and its layer; that of those coupled to
        it as they are judged together. None where an amount decided.
    spending : Spending or None
        Where a budget decided, what it came to.
    """

    rule: str
    layers: tuple[LayerPruning, ...]
    criterion: Criterion
    limit: float | None
    nearest: tuple[str, float] | None = None
    spending: Spending | None = None

    @property
    def pruned_now(self) -> int:
        """How many structures this call pruned."""
        return sum(layer.pruned_now for layer in self.layers)

    @property
    def num_kept(self) -> int:
        """How many structures are kept now."""
        return sum(layer.num_kept for layer in self.layers)

    def __str__(self) -> str:
        told = f"{self.rule}: {self.pruned_now} pruned"
        if self.spending is not None:
            told += f", {self._lost(self.spending.lost)}; {self.spending}"
        if not self.pruned_now and self.nearest is not None:
            told += (
                f"; the nearest is {self.criterion.symbol} = {self.nearest[1]:.4g}, in {self.nearest[0]!r}"
            )
        return "\n".join([told, *map(str, self.layers)])

    def _lost(self, lost: float) -> str:
        if self.criterion.is_evidence:
            return f"{lost:.4g} nats of evidence given up"
        return f"Σ {self.criterion.symbol} = {lost:.4g} given up"


def prune(
    model: nn.Module,
    criterion: str = "bmrs_n",
    *,
    tolerance: float | None = None,
    strict: bool = False,
    p1: int = P1,
    p2: int | None = P2,
    threshold: float | None = None,
    amount: float | None = None,
    scope: Scope = "layer",
    coupling: Coupling | None = None,
    budget: Budget | Mapping[str, Any] | None = None,
    example_inputs: Any = None,
    training_step: TrainingStep | None = None,
    seed: int = 0,
) -> PruneReport:
    """Set the mask of every structure that a criterion finds superfluous, for good (paper, Algorithm 1).

    Masks only: :func:`compact` makes the network smaller. A structure pruned before stays pruned, and the
    best of a layer is kept where all of it would go. Nothing is changed if any layer is in error.

    Parameters
    ----------
    model : nn.Module
        A model with noise layers.
    criterion : str
        The rules, on the scores that :func:`scores` describes:

        - ``"bmrs_n"``: ΔF_N ≥ −tolerance (Eq. 8), tolerance ½·log 2π (:data:`HALF_LOG_2PI`, which says why);
        - ``"bmrs_u"``: ΔF_U ≥ −tolerance (Eq. 10 to 13), tolerance 0;
        - ``"snr"``: E[θ]/√Var[θ] < threshold, 1;
        - ``"mean"``: E[θ] < threshold, 0.1;
        - ``"l2"``, ``"gradient"``, ``"l2_gradient"``, ``"taylor"``, ``"random"``: none of their own; they
          need a threshold or an amount.
    tolerance : float, optional
        Of the two BMRS criteria, in nats, at least 0.
    strict : bool
        Prune only where ΔF ≥ 0: short for ``tolerance=0``.
    p1, p2 : int
        ΔF_U's reduced support is θ in [2⁻ᵖ², 2⁻ᵖ¹]; ``p2=None`` reaches down to the layer's lower bound.
    threshold : float, optional
        Of the other criteria.
    amount : float, optional
        Instead of a rule: the fraction of structures to have pruned in the end, in [0, 1), those pruned
        before counted in; they go in the order of their scores.
    scope : {"layer", "global"}
        Whether that is a fraction of each layer or of all. Norms and gradients of different layers have
        different scales, which ``"global"`` compares as they are.
    coupling : {"all", "joint"}, optional
        What to do about structures that can only go together, such as the channels of a residual stream. By
        default each gate is judged by itself. ``"all"``: they go where each gate that is still kept meets the
        rule. ``"joint"``: they go where their summed evidence, Σ ΔF over the n gates that are still kept, is
        at least −tolerance for each of these, Σ ΔF ≥ −n · tolerance; for ``"bmrs_n"`` and ``"bmrs_u"``. The
        evidence adds up because the posterior factorises, the tolerance because each gate's ΔF has its own
        (that of ``"bmrs_n"`` is the 2π missing in each). An amount ranks them by Σ ΔF / n.
    budget : Budget or mapping, optional
        Instead of a rule: what the network may cost, ``Budget(macs=0.5)`` or ``{"macs": 0.5}``. Structures go
        in the order of evidence lost (Σ −ΔF, or Σ of another score) per cost saved, which is computed anew as
        the network shrinks, until the budget is just met. What can only go together goes together, so that
        it takes no `coupling`. That it is met is tried on a copy that is really made smaller.
    example_inputs : Tensor, tuple, list or dict, optional
        With `budget`, `coupling`, or a criterion of weights where noise was put by hand: inputs to follow the
        model on.
    training_step : callable, optional
        With `budget`: as of :func:`compact`.
    seed : int
        Of ``"random"``.

    Returns
    -------
    PruneReport

    Raises
    ------
    ValueError
        For an unknown criterion, an option it doesn't take, a value out of range, a model without noise
        layers, or a layer with parameters that are not finite (it is named).
    BudgetError
        A ValueError: if the budget is out of reach, with what is within it.
    SurgeryError
        With a budget, if the model's answers can't be compared, so that nothing can be removed from it.
    TypeError
        For a model or an option of another kind.

    Examples
    --------
    >>> import torch
    >>> from bmrs_torch import MultiplicativeNoise, prune
    >>> layer = MultiplicativeNoise(3)
    >>> layer.mu.data[1], layer.log_sigma.data[1] = -18.0, 2.0
    >>> print(prune(layer))
    prune where ΔF_N ≥ -0.9189: 1 pruned
    (model): 2 of 3 kept, 1 pruned now
    """
    options: dict[str, Any] = {
        "tolerance": tolerance,
        "strict": strict,
        "threshold": threshold,
        "amount": amount,
        "scope": scope,
    }
    if budget is not None:
        limits = check_budget(budget, {**options, "coupling": coupling})
        _check_followable(example_inputs)
        model_scores = scores(model, criterion, example_inputs=example_inputs, p1=p1, p2=p2, seed=seed)
        return prune_to_budget(model, model_scores, limits, example_inputs, training_step=training_step)
    rule = make_rule(criterion, **options)
    _check_coupling(rule.criterion, coupling, example_inputs)
    model_scores = scores(model, criterion, example_inputs=example_inputs, p1=p1, p2=p2, seed=seed)
    groups = [] if coupling is None else coupled_gates(model, example_inputs)
    kept = {name: layer.kept().cpu().numpy() for name, layer in noise_layers(model).items()}
    units = make_units(model_scores.worth(), kept, groups, coupling)
    reports = _decide(model_scores, units, rule)
    _mask(model, reports)
    nearest = None if rule.limit is None else _nearest(rule, units, reports)
    return PruneReport(_in_words(rule, coupling), reports, rule.criterion, rule.limit, nearest)


def _mask(model: nn.Module, reports: Iterable[LayerPruning]) -> None:
    for layer, report in zip(noise_layers(model).values(), reports, strict=True):
        layer.mask.mul_(torch.as_tensor(report.kept, device=layer.mask.device))


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
    _mask(model, reports)
    symbol = model_scores.criterion.symbol
    lost = f"−{symbol}" if model_scores.criterion.is_evidence else symbol
    rule = f"prune by the smallest {lost} per cost saved"
    return PruneReport(rule, reports, model_scores.criterion, None, spending=spending)


def check_budget(budget: Any, options: Mapping[str, Any]) -> Budget:
    """The budget, if it is one and nothing is given beside it that has no effect with it."""
    found = as_budget(budget)
    defaults = inspect.signature(prune).parameters
    foreign = [
        name
        for name in ("tolerance", "strict", "threshold", "amount", "scope", "coupling")
        if name in options and options[name] != defaults[name].default
    ]
    if foreign:
        raise ValueError(
            f"a budget takes the place of {', '.join(foreign)}: it goes down the order of evidence lost per "
            "cost saved until it is met, and takes coupled structures together by itself; give one or the "
            "other"
        )
    return found


def _check_followable(example_inputs: Any) -> None:
    if example_inputs is None:
        raise ValueError(
            "a budget needs example_inputs: what a structure costs, and what can only go with it, is found "
            "by following the model on them"
        )


def check_rule(
    criterion: str, options: Mapping[str, Any], model: nn.Module | None = None, example_inputs: Any = None
) -> None:
    """Raise now what :func:`prune` would raise about its options after hours of training.

    Parameters
    ----------
    criterion : str
        Name of the criterion.
    options : mapping of str
        Options for :func:`prune`, without `example_inputs`.
    model : nn.Module, optional
        What is to be pruned, if it has its noise already: some options depend on its bounds.
    example_inputs : Tensor, tuple, list or dict, optional
        What :func:`prune` will be given.

    Raises
    ------
    TypeError
        For an option that it doesn't have, or of another kind.
    ValueError
        For one that the criterion doesn't take or that is out of range.
    """
    known = inspect.signature(prune).parameters.keys() - _NOT_OF_A_RULE
    unknown = options.keys() - known
    if unknown:
        raise TypeError(
            f"the options of a rule are those of prune() ({', '.join(sorted(known))}), got "
            f"{', '.join(sorted(unknown))}"
        )
    if options.get("budget") is not None:
        check_budget(options["budget"], options)
        chosen = find_criterion(criterion)
    else:
        chosen = make_rule(criterion, **_of(make_rule, options)).criterion
    if model is None:
        return
    if options.get("budget") is not None:
        _check_followable(example_inputs)
    _check_coupling(chosen, options.get("coupling"), example_inputs)
    if chosen.source in ("noise", "nothing"):
        scores(model, criterion, **_of(scores, options))


_NOT_OF_A_RULE = {"model", "criterion", "example_inputs", "training_step"}


def _of(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a function takes."""
    known = inspect.signature(function).parameters.keys()
    return {name: value for name, value in options.items() if name in known}


def _in_words(rule: Rule, coupling: Coupling | None) -> str:
    """The rule, and what it means for structures that can only go together."""
    symbol = rule.criterion.symbol
    if coupling is None:
        return str(rule)
    if coupling == "joint":
        how = "by Σ {0} / n" if rule.limit is None else "where Σ {0} ≥ n · {1:.4g}"
        return f"{rule}, coupled ones together {how.format(symbol, rule.limit)} over their n kept gates"
    if rule.limit is None:
        return f"{rule}, coupled ones together by the {symbol} of their best kept gate"
    return f"{rule}, coupled ones together where each kept gate meets it"


def _check_coupling(criterion: Criterion, coupling: Coupling | None, example_inputs: Any) -> None:
    if coupling is None:
        return
    if coupling not in get_args(Coupling):
        raise ValueError(
            "coupling must be 'all' (coupled structures go where each gate kept meets the rule), 'joint' "
            "(where their summed evidence is at least -tolerance for each gate kept) or None (each gate is "
            f"judged by itself), got {coupling!r}"
        )
    if coupling == "joint" and not criterion.is_evidence:
        raise ValueError(
            "coupling='joint' adds up evidence over the gates kept, which 'bmrs_n' and 'bmrs_u' give; the "
            f"sum of {criterion.name!r} scores means nothing, so use coupling='all'"
        )
    if example_inputs is None:
        raise ValueError(
            f"coupling={coupling!r} needs example_inputs: what is coupled is found by tracing the model"
        )


def _nearest(rule: Rule, units: Units, reports: tuple[LayerPruning, ...]) -> tuple[str, float] | None:
    """Layer and score of the unit that is kept and least worth keeping."""
    kept = np.flatnonzero(np.concatenate([report.kept for report in reports]))
    if not kept.size:
        return None
    gate = kept[np.argmin(units.worth[units.unit[kept]])]
    worth = float(units.worth[units.unit[gate]])
    return reports[units.layer[gate]].name, -worth if rule.criterion.is_evidence else worth


def _decide(model_scores: Scores, units: Units, rule: Rule) -> tuple[LayerPruning, ...]:
    chosen, spared = rule.choose(units)
    after = units.kept & ~chosen[units.unit]
    reports = []
    for number, (name, values) in enumerate(model_scores.items()):
        here = units.layer == number
        spared_here = np.flatnonzero(units.kept[here] & (units.unit[here] == spared.get(number, -1)))
        reports.append(
            LayerPruning(
                name or "(model)",
                values,
                after[here],
                int(units.kept[here].sum() - after[here].sum()),
                int(spared_here[0]) if spared_here.size else None,
            )
        )
    return tuple(reports)
