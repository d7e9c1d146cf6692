"""What becomes of the whole numbers that modules remember where some of the channels go that they count."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from torch import nn

from bmrs_torch.channels.network import FollowedNetwork
from bmrs_torch.channels.noting import Size, Source, held

if TYPE_CHECKING:
    from bmrs_torch.channels.labels import Bools, Ints

__all__ = ["COUNTS_OF_HEADS", "changed_sizes", "remember"]

COUNTS_OF_HEADS = "num_heads num_attention_heads num_key_value_heads n_heads n_head nhead heads".split()
"""Names of numbers of heads that surgery may change where a forward method meets none of them."""


def changed_sizes(network: FollowedNetwork, goes: Callable[[Ints], Bools]) -> dict[Source, tuple[int, int]]:
    """The numbers that change, before and after, by where they are kept.

    A number that torch met as a size of an axis of channels becomes how many of these stay. What torch met as
    anything else stays, and so does what it met as both. Of a product or quotient that torch met, the number
    changes that it met nowhere else.

    Parameters
    ----------
    network : FollowedNetwork
        What was met.
    goes : callable
        Which of given labels go.
    """

    def wanted(size: Size) -> int:
        value = size.given(size.sources)
        return value if size.labels is None else int((~goes(size.labels)).sum()) * (-1 if value < 0 else 1)

    found: dict[Source, set[int]] = {}
    for size in network.sizes:
        if size.source is not None:
            found.setdefault(size.source, set()).add(wanted(size))
    before = {source: value for size in network.sizes for source, value in size.sources.items()}
    after = {source: values.pop() for source, values in found.items() if len(values) == 1}
    values = {**before, **after}
    for size in network.sizes:
        free = [source for source in size.sources if source not in found]
        now, new = size.given(values), wanted(size)
        if len(free) == 1 and now != new and now and new:
            (source,) = free
            for factor in (Fraction(new, now), Fraction(now, new)):  # it multiplies, or it divides
                scaled = values[source] * factor
                if scaled.denominator == 1 and size.given({**values, source: int(scaled)}) == new:
                    found[source], values[source] = {int(scaled)}, int(scaled)
                    break
            else:  # or it is part of a sum
                fitting = [n for n in range(1, values[source]) if size.given({**values, source: n}) == new]
                if len(fitting) == 1:
                    found[source], values[source] = {fitting[0]}, fitting[0]
    changed = {s: (before[s], value) for s, value in values.items() if value != before[s]}
    return {**_heads(network, goes, set(before)), **changed}


def _heads(
    network: FollowedNetwork, goes: Callable[[Ints], Bools], met: set[Source]
) -> dict[Source, tuple[int, int]]:
    """Numbers of heads that nothing met, kept beside views that divide channels into that many."""
    changed: dict[Source, tuple[int, int]] = {}
    for reshape in network.reshapes:
        split = reshape.split
        gone = goes(split.rows(split.axis.labels)[:, 0])
        for name in COUNTS_OF_HEADS if gone.any() and split.kept < len(split.shape) - 1 else ():
            source = Source(reshape.module, name, None)
            if source not in met:
                changed[source] = split.shape[split.kept], int((~gone).sum())
    return changed


def remember(model: nn.Module, sizes: dict[Source, tuple[int, int]]) -> None:
    """Let modules remember these numbers where they remember the ones before."""
    for (name, key, entry), (old, new) in sizes.items():
        kept = vars(model.get_submodule(name))
        value: Any = kept.get(key)
        if entry is None and type(value) is int and value == old:
            kept[key] = new
        elif entry is not None and type(value) in (tuple, list) and value[entry] == old:
            kept[key] = type(value)([*value[:entry], new, *value[entry + 1 :]])
        elif entry is not None and (inner := held(value)) is not None and inner.get(entry) == old:
            inner[entry] = new
