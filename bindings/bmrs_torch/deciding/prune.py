"""Apply a rule to a model: masks are set for good, and a report says what happened to each layer."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
from torch import nn

from bmrs_torch.channels.calling import TrainingStep
from bmrs_torch.deciding.budget import Budget
from bmrs_torch.deciding.coupled_gates import coupled_gates
from bmrs_torch.deciding.criteria import P1, P2, Criterion, find_criterion
from bmrs_torch.deciding.decided_once import decided_once
from bmrs_torch.deciding.options import taken_by
from bmrs_torch.deciding.prune_report import LayerPruning, PruneReport, mask
from bmrs_torch.deciding.prune_to_budget import check_budget, check_followable, prune_to_budget
from bmrs_torch.deciding.rules import Rule, Scope, make_rule
from bmrs_torch.deciding.scores import Scores, scores
from bmrs_torch.deciding.units import Coupling, Units, make_units
from bmrs_torch.layer import noise_layers
from bmrs_torch.wrapping import ranks_of, unwrapped

__all__ = ["LayerPruning", "PruneReport", "check_rule", "prune"]


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
        A model with noise layers. Of one in DistributedDataParallel, or divided by ``fully_shard``, all ranks
        have to call this: it is decided on rank 0, once it was checked that all have the same noise, and
        masked on all.
    criterion : str
        The rules, on the scores that :func:`scores` describes:

        - ``"bmrs_n"``: ΔF_N ≥ −tolerance (Eq. 8), tolerance ½·log 2π (:data:`HALF_LOG_2PI`, which says why);
        - ``"bmrs_u"``: ΔF_U ≥ −tolerance (Eq. 10 to 13), tolerance 0;
        - ``"snr"``: E[θ]/√Var[θ] < threshold, 1;
        - ``"mean"``: E[θ] < threshold, 0.1;
        - ``"l2"``, ``"gradient"``, ``"l2_gradient"``, ``"taylor"``, ``"random"``: none of their own; they
          need a threshold or an amount.

        The first is the default because it has nothing to tune, neither a threshold nor p1 (paper, §6).
    tolerance : float, optional
        Of the two BMRS criteria, in nats, at least 0; by default the one named there.
    strict : bool
        Prune only where ΔF ≥ 0: short for ``tolerance=0``.
    p1, p2 : int
        ΔF_U's reduced support is θ in [2⁻ᵖ², 2⁻ᵖ¹]; ``p2=None`` reaches down to the layer's lower bound. The
        defaults are the paper's (§5): 23 bits are the precision of a float32, and for p1 it tries 8 and 4.
    threshold : float, optional
        Of the other criteria; by default as above, 1 after Neklyudov et al. (2017) and 0.1 after the paper.
    amount : float, optional
        Instead of a rule: the fraction of structures to have pruned in the end, in [0, 1), those pruned
        before counted in; they go in the order of their scores.
    scope : {"layer", "global"}
        Whether that is a fraction of each layer or of all. Norms and gradients of different layers have
        different scales, which ``"global"`` compares as they are.
    coupling : {"all", "joint"}, optional
        What to do about structures that can only go together, such as the channels of a residual stream. By
        default each gate is judged by itself, as in the paper. ``"all"``: they go where each gate that is
        still kept meets the rule. ``"joint"``: they go where their summed evidence, Σ ΔF over the n gates
        still kept, is at least −tolerance for each of these, Σ ΔF ≥ −n · tolerance; for ``"bmrs_n"`` and
        ``"bmrs_u"``. The evidence adds up because the posterior factorises, the tolerance because each gate's
        ΔF has its own (that of ``"bmrs_n"`` is the 2π missing in each). An amount ranks them by Σ ΔF / n.
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
    RanksDisagreeError
        A ValueError: if the ranks that train the model have different noise, on all of them.
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

    To a size, whatever the evidence:

    >>> from torch import nn
    >>> from bmrs_torch import insert_noise
    >>> x = torch.ones(2, 4)
    >>> model = insert_noise(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), x)
    >>> report = prune(model, budget={"macs": 0.5}, example_inputs=x)
    >>> report.spending.reached, report.layers[0].num_kept
    ({'macs': 48.0}, 4)
    """
    options: dict[str, Any] = {
        "tolerance": tolerance,
        "strict": strict,
        "threshold": threshold,
        "amount": amount,
        "scope": scope,
    }
    of_scores: dict[str, Any] = {"example_inputs": example_inputs, "p1": p1, "p2": p2, "seed": seed}
    ranks, model = ranks_of(model), unwrapped(model)
    if budget is not None:
        limits = check_budget(budget, {**options, "coupling": coupling})
        check_followable(example_inputs)

        def to_budget(model: nn.Module) -> PruneReport:
            found = scores(model, criterion, **of_scores)
            return prune_to_budget(model, found, limits, example_inputs, training_step=training_step)

        return decided_once(model, ranks, to_budget)
    rule = make_rule(criterion, **options)
    _check_coupling(rule.criterion, coupling, example_inputs)

    def by_rule(model: nn.Module) -> PruneReport:
        return _by_rule(model, scores(model, criterion, **of_scores), rule, coupling, example_inputs)

    by_noise = rule.criterion.source in ("noise", "nothing") and coupling is None
    return decided_once(model, ranks, by_rule, by_noise=by_noise)


def _by_rule(
    model: nn.Module, model_scores: Scores, rule: Rule, coupling: Coupling | None, example_inputs: Any
) -> PruneReport:
    groups = [] if coupling is None else coupled_gates(model, example_inputs)
    kept = {name: layer.kept().cpu().numpy() for name, layer in noise_layers(model).items()}
    units = make_units(model_scores.worth(), kept, groups, coupling)
    reports = _decide(model_scores, units, rule)
    mask(model, reports)
    nearest = None if rule.limit is None else _nearest(rule, units, reports)
    return PruneReport(_in_words(rule, coupling), reports, rule.criterion, rule.limit, nearest)


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
        chosen = make_rule(criterion, **taken_by(make_rule, options)).criterion
    if model is None:
        return
    if options.get("budget") is not None:
        check_followable(example_inputs)
    _check_coupling(chosen, options.get("coupling"), example_inputs)
    if chosen.source in ("noise", "nothing"):
        scores(model, criterion, **taken_by(scores, options))


_NOT_OF_A_RULE = {"model", "criterion", "example_inputs", "training_step"}


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
        here = units.gates_of(number)
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
