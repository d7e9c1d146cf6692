"""How the structures that are kept stand to the rule: asked between decisions, and nothing is decided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from bmrs_torch.deciding.criteria import Criterion
from bmrs_torch.deciding.options import taken_by
from bmrs_torch.deciding.rules import make_rule
from bmrs_torch.deciding.scores import scores
from bmrs_torch.deciding.units import Group, make_units
from bmrs_torch.layer import noise_layers

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Standing", "limit_of", "standing"]


@dataclass(frozen=True, eq=False)
class Standing:
    """Kept structures and how far they are from going.

    Attributes
    ----------
    criterion : Criterion
        What the scores mean.
    limit : float or None
        The score at which a structure goes; None where an amount or a budget decides.
    ranks : bool
        Whether structures go in the order of their scores; for a budget, what each of them costs counts too.
    scores : ndarray of float64
        Of all kept structures.
    layers : tuple of str
        Names of the noise layers.
    layer, structure : ndarray of int, shape (candidates,)
        Layer and number of the structures that can go, the least worth keeping first: all that are kept but
        the best of each layer, which has to keep one.
    judged : ndarray of float64, shape (candidates,)
        The score by which each is judged, of those coupled to it together.
    """

    criterion: Criterion
    limit: float | None
    ranks: bool
    scores: NDArray[np.float64]
    layers: tuple[str, ...]
    layer: NDArray[np.int64]
    structure: NDArray[np.int64]
    judged: NDArray[np.float64]

    def distances(self) -> NDArray[np.float64] | None:
        """How far each candidate's score is from the limit, in nats of evidence; 0 or less if it meets it."""
        if self.limit is None:
            return None
        away = self.judged - self.limit
        return -away if self.criterion.is_evidence else away


def limit_of(criterion: str, options: Mapping[str, Any]) -> float | None:
    """The score at which a structure goes by these options of :func:`prune`; None if they set no such one."""
    if any(options.get(name) is not None for name in ("amount", "budget")):
        return None
    return make_rule(criterion, **taken_by(make_rule, options)).limit


def standing(
    model: nn.Module, criterion: Criterion, options: Mapping[str, Any], groups: Iterable[Group] = ()
) -> Standing:
    """Judge every structure that is kept by a criterion of the noise.

    Parameters
    ----------
    model : nn.Module
        With noise layers; it is left as it is.
    criterion : Criterion
        Of the noise.
    options : mapping of str
        Of :func:`prune`.
    groups : iterable of mapping of str to sequence of int
        With `coupling` among the options, what :func:`coupled_gates` found.

    Returns
    -------
    Standing

    Raises
    ------
    ValueError
        As :func:`scores` does.

    Examples
    --------
    >>> from bmrs_torch import MultiplicativeNoise
    >>> from bmrs_torch.deciding.criteria import find_criterion
    >>> from bmrs_torch.deciding.standing import standing
    >>> layer = MultiplicativeNoise(3)
    >>> layer.mu.data[1] = -12.0
    >>> found = standing(layer, find_criterion("mean"), {})
    >>> found.structure.tolist(), found.distances().round(1).tolist()
    ([1, 2], [-0.1, 0.9])
    """
    found = scores(model, criterion.name, **taken_by(scores, options))
    kept = {name: layer.kept().cpu().numpy() for name, layer in noise_layers(model).items()}
    units = make_units(found.worth(), kept, groups, options.get("coupling"))
    best = list(units.best_of_layers().values())
    gates = np.flatnonzero(units.kept & ~np.isin(units.unit, best))
    worth = units.worth[units.unit[gates]]
    order = np.argsort(worth, kind="stable")
    starts = np.searchsorted(units.layer, np.arange(units.num_layers))
    gates, worth = gates[order], worth[order]
    return Standing(
        criterion,
        limit_of(criterion.name, options),
        options.get("budget") is None,
        np.concatenate([values[kept[name]] for name, values in found.items()]),
        tuple(name or "(model)" for name in found),
        units.layer[gates],
        gates - starts[units.layer[gates]],
        -worth if criterion.is_evidence else worth,
    )
