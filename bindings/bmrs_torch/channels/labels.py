"""Labels of channels, united as the network couples them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]


class Labels:
    """A partition of channels into classes that can only be removed together (union-find on arrays).

    Examples
    --------
    >>> from bmrs_torch.channels.labels import Labels
    >>> labels = Labels()
    >>> rows, columns = labels.new(3), labels.new(3)
    >>> labels.unite(rows, columns)
    >>> labels.roots(columns).tolist()
    [0, 1, 2]
    """

    def __init__(self) -> None:
        self._parents: Ints = np.empty(64, dtype=np.int64)
        self._number = 0
        self._pins: list[tuple[Ints, str]] = []
        self._bonds: list[tuple[Ints, str]] = []

    @property
    def number(self) -> int:
        """How many labels there are."""
        return self._number

    def new(self, number: int) -> Ints:
        """Make that many labels, each a class of its own."""
        end = self._number + number
        if end > self._parents.size:
            self._parents = np.resize(self._parents, max(end, 2 * self._parents.size))
        fresh = np.arange(self._number, end, dtype=np.int64)
        self._parents[self._number : end] = fresh
        self._number = end
        return fresh

    def roots(self, labels: Ints) -> Ints:
        """Representative of the class of each label."""
        return self._parents[labels]

    def unite(self, first: Ints, second: Ints) -> None:
        """Unite the classes of `first` and `second`, entry by entry."""
        parents = self._parents[: self._number]
        while True:
            a, b = parents[first], parents[second]
            apart = a != b
            if not apart.any():
                return
            low, high = np.minimum(a, b)[apart], np.maximum(a, b)[apart]
            # A root that meets several others takes the lowest now, the rest in the next round.
            np.minimum.at(parents, high, low)
            while not np.array_equal(parents[parents], parents):
                parents[:] = parents[parents]

    def unite_rows(self, table: Ints, reason: str) -> None:
        """Unite the labels in each row of a table, and say why."""
        self.unite(table, np.broadcast_to(table[:, :1], table.shape))
        if table.shape[1] > 1:
            self._bonds.append((table[:, 0], reason))

    def bound(self) -> dict[int, str]:
        """The first reason why the channels of a class can only go together, where one was given."""
        return self._first(self._bonds)

    def pin(self, labels: Ints, reason: str) -> None:
        """Say that these can't be removed, and why."""
        self._pins.append((labels, reason))

    def pinned(self) -> dict[int, str]:
        """The first reason why each class that can't be removed can't, by its representative."""
        return self._first(self._pins)

    def _first(self, given: list[tuple[Ints, str]]) -> dict[int, str]:
        reasons: dict[int, str] = {}
        for labels, reason in given:
            for root in np.unique(self.roots(labels)).tolist():
                reasons.setdefault(root, reason)
        return reasons
