"""What a network costs as a sum of terms, each in proportion to how many channels stay on some axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from bmrs_torch.channels.network import FollowedNetwork
from bmrs_torch.channels.work import Count
from bmrs_torch.costs.counting import stored_tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bmrs_torch.channels.labels import Bools, Ints

__all__ = ["Formula", "Term", "byte_terms", "mac_terms", "parameter_terms"]


@dataclass(frozen=True)
class Term:
    """A part of a cost.

    Attributes
    ----------
    cost : float
        With all channels.
    counts : tuple of Count
        What it is proportional to, each of them.
    """

    cost: float
    counts: tuple[Count, ...]


def mac_terms(network: FollowedNetwork) -> list[Term]:
    """Multiply-adds, operation by operation."""
    return [Term(work.macs, work.counts) for work in network.work]


def parameter_terms(model: nn.Module, network: FollowedNetwork) -> list[Term]:
    """Entries of parameters, those of noise layers aside."""
    stored = stored_tensors(model)
    return [
        Term(tensor.numel(), _counts(network, name))
        for name, tensor in stored.items()
        if isinstance(tensor, nn.Parameter)
    ]


def byte_terms(model: nn.Module, network: FollowedNetwork) -> list[Term]:
    """Bytes of parameters and buffers, those of noise layers aside."""
    return [Term(tensor.nbytes, _counts(network, name)) for name, tensor in stored_tensors(model).items()]


def _counts(network: FollowedNetwork, name: str) -> tuple[Count, ...]:
    axes = network.parameters.get(name, ())
    grouped = network.grouped.get(name)
    if grouped is None:
        return tuple(Count(axis.labels) for axis in axes)
    # The second axis holds places within a group, one in a depthwise convolution.
    within = () if grouped.labels.size == grouped.groups else (Count(grouped.labels, grouped.groups),)
    return (Count(axes[0].labels), *within, *(Count(axis.labels) for axis in axes[2:]))


class Formula:
    """Costs as functions of which channels are gone.

    Parameters
    ----------
    network : FollowedNetwork
    terms : dict of str to sequence of Term
        Of each cost.

    Attributes
    ----------
    names : tuple of str
        Of the costs.
    axes : list of ndarray of int64
        Representatives of the channels' classes on each axis that plays a part; after them a single channel.
    groups : list of int
        0 where the axis counts its channels, else it counts its groups, so many, and costs are divided by it.
    cost : ndarray of float64, shape (terms, costs)
        Of each term for one channel on each axis.
    factors : ndarray of int64, shape (terms, factors)
        Numbers of the axes by which it is multiplied, filled up with the last one.
    fixed : ndarray of float64, shape (costs,)
        What nothing is proportional to.
    """

    def __init__(self, network: FollowedNetwork, terms: Mapping[str, Sequence[Term]]) -> None:
        self.names = tuple(terms)
        self._roots = network.labels.roots
        self.axes: list[Ints] = []
        self.groups: list[int] = []
        self._numbers: dict[tuple[bytes, int], int] = {}
        self.fixed = np.zeros(len(self.names))
        found: dict[tuple[int, ...], NDArray[np.float64]] = {}
        for number, each in enumerate(terms.values()):
            for term in each:
                factors = tuple(sorted(f for count in term.counts for f in self._factors(count)))
                total = found.setdefault(factors, np.zeros(len(self.names)))
                total[number] += term.cost
        self.fixed += found.pop((), 0.0)
        self.axes.append(np.full(1, network.labels.number))  # of a class that never goes
        self.groups.append(0)
        width = max(map(len, found), default=0)
        last = len(self.axes) - 1
        self.factors = np.full((len(found), width), last, dtype=np.int64)
        for row, factors in zip(self.factors, found, strict=True):
            row[: len(factors)] = factors
        whole = self.values(self.counts(np.zeros(network.labels.number, dtype=np.bool_)))
        self.cost = np.array(list(found.values())).reshape(len(found), len(self.names))
        self.cost /= whole[self.factors].prod(axis=1)[:, None]

    def add_axis(self, roots: Ints, groups: int = 0) -> int:
        """The number of an axis, a new one if there is none like it."""
        key = roots.tobytes(), groups
        if key not in self._numbers:
            self._numbers[key] = len(self.axes)
            self.axes.append(roots)
            self.groups.append(groups)
        return self._numbers[key]

    def _factors(self, count: Count) -> list[int]:
        roots = self._roots(count.labels)
        if count.groups == 1:
            return [self.add_axis(roots)]
        return [self.add_axis(roots), self.add_axis(roots, count.groups)]

    def counts(self, gone: Bools, axes: Ints | None = None) -> NDArray[np.float64]:
        """How many channels, or groups of them, each axis, or each of some, has left."""
        stays = np.append(~gone, True)
        numbers = []
        for axis in range(len(self.axes)) if axes is None else axes.tolist():
            left, groups = stays[self.axes[axis]], self.groups[axis]
            numbers.append(left.reshape(groups, -1).any(axis=1).sum() if groups else left.sum())
        return np.array(numbers, dtype=np.float64)

    def values(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """What terms are multiplied by."""
        is_divisor = np.array(self.groups) > 0
        return np.where(is_divisor, 1.0 / np.maximum(counts, 1.0), counts)

    def costs(self, gone: Bools) -> NDArray[np.float64]:
        """Each cost when these classes of channels, by representative, are gone."""
        values = self.values(self.counts(gone))
        total: NDArray[np.float64] = self.fixed + values[self.factors].prod(axis=1) @ self.cost
        return total
