"""Minibatches that can be gone through as often as one likes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

__all__ = ["Batches", "stream"]


class Batches(Protocol):
    """Minibatches to go through as often as one likes, such as a DataLoader."""

    def __iter__(self) -> Iterator[Any]:
        """From the first on."""
        ...

    def __len__(self) -> int:
        """How many there are."""
        ...


def stream(batches: Batches) -> Iterator[Any]:
    """Minibatches, from the first on again where they end."""
    while True:
        none = True
        for batch in batches:
            none = False
            yield batch
        if none:
            raise ValueError("batches holds no minibatch any more, though it did at first")
