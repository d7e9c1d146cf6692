"""From scores to what should go: a criterion's own rule, or an amount of the lowest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from bmrs_torch.deciding.criteria import Criterion, find_criterion
from bmrs_torch.operation.arguments import check_real, check_switch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bmrs_torch.deciding.units import Units

Scope = Literal["layer", "global"]


@dataclass(frozen=True)
class Rule:
    """Which units of structures should go.

    Attributes
    ----------
    criterion : Criterion
        By which they were scored.
    limit : float or None
        The score at which a structure goes: ΔF ≥ limit, every other score < limit. None with an amount.
    amount : float or None
        Fraction to have gone in the end.
    scope : {"layer", "global"}
        Whether the amount is counted layer by layer or over all.
    """

    criterion: Criterion
    limit: float | None = None
    amount: float | None = None
    scope: Scope = "layer"

    def __str__(self) -> str:
        if self.limit is not None:
            sign = "≥" if self.criterion.is_evidence else "<"
            return f"prune where {self.criterion.symbol} {sign} {self.limit:.4g}"
        extreme = "largest" if self.criterion.is_evidence else "smallest"
        of = "each layer's structures" if self.scope == "layer" else "all structures"
        return f"prune the {self.amount:.4g} of {of} with the {extreme} {self.criterion.symbol}"

    def choose(self, units: Units) -> tuple[NDArray[np.bool_], dict[int, int]]:
        """Choose the units to prune, never all of a layer.

        Parameters
        ----------
        units : Units
            The structures, those that go together taken as one.

        Returns
        -------
        chosen : ndarray of bool, shape (units,)
            True where to prune.
        spared : dict of int to int
            For each layer of which all should go, the unit kept nevertheless: its best.
        """
        best = units.best_of_layers()
        if self.amount is None:
            wanted = units.live & self._meets_limit(units.worth)
            spared = {layer: unit for layer, unit in best.items() if wanted[units.of_layer(layer)].all()}
            chosen = wanted.copy()
            chosen[list(spared.values())] = False
            return chosen, spared
        wanted = self._lowest(units, units.live)
        candidates = units.live.copy()
        candidates[list(best.values())] = False
        chosen = self._lowest(units, candidates)
        return chosen, {layer: unit for layer, unit in best.items() if wanted[unit]}

    def _meets_limit(self, worth: NDArray[np.float64]) -> NDArray[np.bool_]:
        assert self.limit is not None
        return worth <= -self.limit if self.criterion.is_evidence else worth < self.limit

    def _lowest(self, units: Units, candidates: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The candidates of the lowest worth, as many as are missing to the amount."""
        assert self.amount is not None
        chosen = np.zeros(len(units.worth), dtype=bool)
        scopes = (
            [np.arange(len(units.worth))]
            if self.scope == "global"
            else [units.of_layer(layer, live_only=False) for layer in range(units.num_layers)]
        )
        for members in scopes:
            gone = ~units.live[members] | chosen[members]
            missing = max(math.floor(self.amount * members.size + 0.5) - int(gone.sum()), 0)
            open_ones = members[candidates[members] & ~chosen[members]]
            order = np.argsort(units.worth[open_ones], kind="stable")
            chosen[open_ones[order[:missing]]] = True
        return chosen


def make_rule(
    criterion: str,
    *,
    tolerance: float | None = None,
    strict: bool = False,
    threshold: float | None = None,
    amount: float | None = None,
    scope: Scope = "layer",
) -> Rule:
    """Make the rule of a criterion; see :func:`bmrs_torch.prune` for what the options mean.

    Parameters
    ----------
    criterion : str
        Name of the criterion.
    tolerance, strict, threshold, amount, scope
        Options; each rule takes some of them.

    Returns
    -------
    Rule

    Raises
    ------
    ValueError
        For an unknown criterion, an option that would have no effect, a value out of range, or a criterion
        without a rule of its own and neither threshold nor amount.
    TypeError
        For an option of another kind.

    Examples
    --------
    >>> from bmrs_torch.deciding.rules import make_rule
    >>> print(make_rule("bmrs_n"))
    prune where ΔF_N ≥ -0.9189
    >>> print(make_rule("l2", amount=0.5, scope="global"))
    prune the 0.5 of all structures with the smallest ‖w‖₂
    """
    chosen = find_criterion(criterion)
    check_switch("strict", strict)
    for name, value in (("tolerance", tolerance), ("threshold", threshold), ("amount", amount)):
        if value is not None:
            check_real(name, value)
    given = {"tolerance": tolerance is not None, "strict": strict, "threshold": threshold is not None}
    _refuse_foreign(chosen, given)
    if scope not in get_args(Scope):
        raise ValueError(
            f"scope must be 'layer' (the amount of each layer) or 'global' (of all), got {scope!r}"
        )
    if amount is not None:
        return _amount_rule(chosen, amount, scope, given)
    if scope != "layer":
        raise ValueError(f"scope={scope!r} says over what an amount is counted; give amount too")
    if chosen.is_evidence:
        return Rule(chosen, limit=0.0 - _checked_tolerance(chosen, tolerance, strict))
    return Rule(chosen, limit=_checked_threshold(chosen, threshold))


def _refuse_foreign(criterion: Criterion, given: dict[str, bool]) -> None:
    foreign = [
        option for option, is_given in given.items() if is_given and option not in criterion.rule_options
    ]
    if foreign:
        raise ValueError(
            f"criterion {criterion.name!r} takes {', '.join(criterion.rule_options)} or an amount, got "
            f"{', '.join(foreign)}, which would have no effect"
        )


def _amount_rule(criterion: Criterion, amount: float, scope: Scope, given: dict[str, bool]) -> Rule:
    if not 0 <= amount < 1:
        raise ValueError(
            f"amount is the fraction of structures to have pruned in the end, in [0, 1), got {amount}"
        )
    both = [option for option, is_given in given.items() if is_given]
    if both:
        raise ValueError(f"an amount takes the place of the rule; give it or {', '.join(both)}, not both")
    return Rule(criterion, amount=float(amount), scope=scope)


def _checked_tolerance(criterion: Criterion, tolerance: float | None, strict: bool) -> float:
    if strict and tolerance is not None:
        raise ValueError(f"strict=True is tolerance=0; give one of them, got tolerance={tolerance} too")
    assert criterion.limit is not None
    chosen = 0.0 if strict else criterion.limit if tolerance is None else tolerance
    if not (math.isfinite(chosen) and chosen >= 0):
        raise ValueError(f"tolerance is in nats, finite and at least 0, got {chosen}")
    return chosen


def _checked_threshold(criterion: Criterion, threshold: float | None) -> float:
    chosen = criterion.limit if threshold is None else threshold
    if chosen is None:
        raise ValueError(
            f"criterion {criterion.name!r} ranks structures but has no rule of its own; give amount, the "
            "fraction of structures to have pruned in the end, or a threshold"
        )
    if not (math.isfinite(chosen) and chosen > 0):
        raise ValueError(f"threshold must be positive and finite, got {chosen}")
    return chosen
