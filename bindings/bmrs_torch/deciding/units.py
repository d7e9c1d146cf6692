"""Structures that live or die together, taken as one: what a rule decides on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Coupling = Literal["all", "joint"]
Group = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Units:
    """Gates (the structures of all noise layers, one layer after the other) and the units they form.

    Attributes
    ----------
    layer : ndarray of int, shape (gates,)
        Number of the layer of each gate, ascending.
    unit : ndarray of int, shape (gates,)
        Number of the unit of each gate.
    kept : ndarray of bool, shape (gates,)
        Which gates are not pruned yet.
    worth : ndarray of float64, shape (units,)
        What speaks for keeping each unit; +inf where no gate is kept.
    live : ndarray of bool, shape (units,)
        Which units have a gate that is kept.
    """

    layer: NDArray[np.int64]
    unit: NDArray[np.int64]
    kept: NDArray[np.bool_]
    worth: NDArray[np.float64]
    live: NDArray[np.bool_]

    @property
    def num_layers(self) -> int:
        """How many layers there are."""
        return int(self.layer[-1]) + 1

    def of_layer(self, layer: int, *, live_only: bool = True) -> NDArray[np.int64]:
        """Units with a gate in this layer, with one that is kept if `live_only`."""
        here = self.gates_of(layer)
        units = self.unit[here][self.kept[here]] if live_only else self.unit[here]
        if (units[1:] > units[:-1]).all():
            return units
        units = np.sort(units)
        # np.unique may hash them, which takes 50 times as long where nearly all are different.
        first: NDArray[np.bool_] = np.diff(units, prepend=-1) != 0
        return np.asarray(units[first])

    def gates_of(self, layer: int) -> slice:
        """Where the gates of this layer lie among all."""
        first, last = np.searchsorted(self.layer, (layer, layer + 1))
        return slice(int(first), int(last))

    def best_of_layers(self) -> dict[int, int]:
        """For each layer with a kept gate, the unit that is most worth keeping."""
        members = {layer: self.of_layer(layer) for layer in range(self.num_layers)}
        return {
            layer: int(units[np.argmax(self.worth[units])]) for layer, units in members.items() if units.size
        }


def make_units(
    worth: Mapping[str, NDArray[np.float64]],
    kept: Mapping[str, NDArray[np.bool_]],
    groups: Iterable[Group] = (),
    coupling: Coupling | None = None,
) -> Units:
    """Join coupled gates to units; every gate in no group is a unit of its own.

    Parameters
    ----------
    worth : mapping of str to ndarray of float64
        What speaks for keeping each structure, by noise layer.
    kept : mapping of str to ndarray of bool
        What is not pruned yet, likewise.
    groups : iterable of mappings of str to sequences of int
        Structures, by noise layer, that live or die together.
    coupling : {"all", "joint"}, optional
        The worth of a unit: with ``"all"`` the largest of its kept gates, so that it goes only where each of
        them meets the rule; with ``"joint"`` their mean, which is at most the tolerance just where the summed
        evidence is at least −tolerance for each of these gates. By default no gates are joined.

    Returns
    -------
    Units
    """
    sizes = [values.size for values in worth.values()]
    starts = dict(zip(worth, np.concatenate([[0], np.cumsum(sizes)[:-1]]).tolist(), strict=True))
    unit = np.arange(sum(sizes))
    if coupling is not None:
        for group in groups:
            gates = [starts[name] + index for name, indices in group.items() for index in indices]
            unit[gates] = min(gates)
    _, unit = np.unique(unit, return_inverse=True)
    flat_worth = np.concatenate(list(worth.values()))
    flat_kept = np.concatenate([kept[name] for name in worth])
    number_kept = np.bincount(unit, weights=flat_kept).astype(np.float64)
    return Units(
        np.repeat(np.arange(len(sizes)), sizes),
        unit,
        flat_kept,
        _unit_worth(flat_worth, flat_kept, unit, number_kept, coupling),
        number_kept > 0,
    )


def _unit_worth(
    worth: NDArray[np.float64],
    kept: NDArray[np.bool_],
    unit: NDArray[np.int64],
    number_kept: NDArray[np.float64],
    coupling: Coupling | None,
) -> NDArray[np.float64]:
    if coupling == "joint":
        sums = np.bincount(unit, weights=np.where(kept, worth, 0.0))
        return np.where(number_kept > 0, sums / np.maximum(number_kept, 1), np.inf)
    largest = np.full(number_kept.size, -np.inf)
    np.maximum.at(largest, unit[kept], worth[kept])
    return np.where(number_kept > 0, largest, np.inf)
