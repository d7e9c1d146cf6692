"""What can go from a network, each with what has to go with it, and the evidence that is lost by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bmrs_torch.surgery.plan_compaction import Selection

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bmrs_torch.channels.labels import Bools, Ints

__all__ = ["Removals", "class_losses", "find_removals"]


@dataclass(frozen=True)
class Removals:
    """Sets of classes of channels; each can go by itself.

    Attributes
    ----------
    classes : list of ndarray of int64
        Representatives of the classes of each.
    overlapping : frozenset of int
        Numbers of those that have a class in common with others.
    """

    classes: list[Ints]
    overlapping: frozenset[int]


def class_losses(
    selection: Selection, worth: Mapping[str, NDArray[np.float64]], kept: Mapping[str, Bools]
) -> NDArray[np.float64]:
    """What is lost by each class, by its representative: the sum over its structures that are kept."""
    network = selection.network
    losses = np.zeros(network.labels.number)
    for name, labels in network.gates.items():
        np.add.at(losses, network.labels.roots(labels), np.where(kept[name], worth[name], 0.0))
    return losses


def find_removals(selection: Selection, candidates: set[int], losses: NDArray[np.float64]) -> Removals:
    """Join the classes that groups of equal size only let go together.

    Of groups of which equally many channels have to stay, the one least worth keeping of every group goes
    with that of each other, and then the next; and a group may go as a whole, where that is possible.

    Parameters
    ----------
    selection : Selection
        What is coupled.
    candidates : set of int
        Representatives of the classes that can go.
    losses : ndarray of float64
        What is lost by each class, by its representative.
    """
    roots = selection.network.labels.roots
    ranks: list[frozenset[int]] = []
    wholes: list[frozenset[int]] = []
    bound: set[int] = set()
    for balance in selection.network.balances:
        rows = [[roots(piece) for piece in row] for row in balance.rows]
        bound |= {root for row in rows for piece in row for root in piece.tolist()}
        ranks += [each for row in rows for each in _by_rank(row, candidates, losses)]
        if balance.whole:
            groups = [frozenset(np.concatenate(group).tolist()) for group in zip(*rows, strict=True)]
            wholes += [group for group in groups if group <= candidates]
    joined = {frozenset((root,)) for root in candidates - bound} | _merged(ranks) | _merged(wholes)
    sets = sorted(joined, key=lambda each: (min(each), len(each)))
    times = np.zeros(losses.size, dtype=np.int64)
    for each in sets:
        times[list(each)] += 1
    overlapping = frozenset(i for i, each in enumerate(sets) if (times[list(each)] > 1).any())
    return Removals([np.fromiter(each, dtype=np.int64) for each in sets], overlapping)


def _by_rank(
    pieces: Sequence[Ints], candidates: set[int], losses: NDArray[np.float64]
) -> list[frozenset[int]]:
    """The class of each piece that loses least, then the next, as far as all pieces have one."""
    columns = []
    for piece in pieces:
        here = [root for root in dict.fromkeys(piece.tolist()) if root in candidates]
        columns.append(sorted(here, key=lambda root: (losses[root], root)))
    return [frozenset(row) for row in zip(*columns)]  # noqa: B905 - as many as the shortest has


def _merged(sets: Sequence[frozenset[int]]) -> set[frozenset[int]]:
    """Unite those that have an element in common."""
    holder: dict[int, set[int]] = {}
    for each in sets:
        united = set(each).union(*(holder[root] for root in each if root in holder))
        for root in united:
            holder[root] = united
    return {frozenset(each) for each in holder.values()}
