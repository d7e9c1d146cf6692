"""Where gates might be for the structures of a layer: after norms and layers, before layers, on several."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from torch import nn

from bmrs_torch.channels.network import FollowedNetwork, ModuleCall
from bmrs_torch.channels.weights import NORMS, activation_axis, is_plain, is_weighted
from bmrs_torch.insertion.placement import Placement, axis_of_structures

if TYPE_CHECKING:
    from bmrs_torch.channels.axes import Axis
    from bmrs_torch.channels.labels import Ints

Channels = tuple[int, ...]
"""The classes of channels on an axis, by their representatives, each once."""


@dataclass(frozen=True)
class Option:
    """Places whose gates, closed together, may let the structures of a layer go."""

    places: tuple[Placement, ...]
    on_stream: bool = False

    def __str__(self) -> str:
        return ", ".join(f"{'before' if p.before else 'after'} {p.name!r}" for p in self.places)


class Places:
    """The places of a network that was followed.

    Parameters
    ----------
    network : FollowedNetwork
    modules : dict of str to nn.Module
        All of the model's.

    Attributes
    ----------
    calls : dict of str to ModuleCall
        The first call of each module.
    weighted : list of ModuleCall
        Of these those of layers with weights.
    """

    def __init__(self, network: FollowedNetwork, modules: dict[str, nn.Module]) -> None:
        self._network, self._modules = network, modules
        self.calls = first_calls(network)
        self.weighted = [call for name, call in self.calls.items() if is_weighted(modules[name])]
        roots = network.labels.roots
        self._streams = {root for labels in network.sums for root in roots(labels).tolist()}
        self._giving = self._by_channels(before=False)
        self._taking = self._by_channels(before=True)

    def _by_channels(self, *, before: bool) -> dict[frozenset[int], list[tuple[ModuleCall, Axis]]]:
        """The calls that give (or take) some channels and no others, the last first: each is asked once."""
        found: dict[frozenset[int], list[tuple[ModuleCall, Axis]]] = {}
        for call in reversed(self.calls.values()):
            if (axis := self.axis(call, before=before)) is not None:
                found.setdefault(frozenset(self.channels(axis)), []).append((call, axis))
        return found

    def is_norm(self, call: ModuleCall) -> bool:
        """Whether it is a normalisation of each channel or group."""
        return isinstance(self._modules[call.name], NORMS)

    def axis(self, call: ModuleCall, *, before: bool = False) -> Axis | None:
        """The channels that a layer gives (or takes); None where what it gives has none."""
        axis, axes = activation_axis(self._modules[call.name]), call.given if before else call.result
        return axes[axis] if axis is not None and len(axes) > 1 else None

    def channels(self, axis: Axis | None) -> Channels:
        """The classes of the channels on an axis."""
        return () if axis is None else tuple(dict.fromkeys(self._network.labels.roots(axis.labels).tolist()))

    def options(self, channels: Channels) -> Iterator[Option]:
        """Where gates might be: after norms, after layers, before layers, the last first; then on several."""
        after, others = self._after_layers(channels)
        inputs = self._before_layers(channels)
        on_stream = not self._streams.isdisjoint(channels)
        side_by_side = len(after) > 1 and on_stream and self._side_by_side(channels)
        if side_by_side:
            yield Option(_shared(after))
        taken = {place.block for place in inputs}
        norms = any(self.is_norm(self.calls[place.name]) for place in after)
        plain = {place.name: is_plain(self._modules[place.name]) for place in others}
        # Several of a layer's channels for one of those that take them, as before a PixelShuffle.
        singly = [p for p, block in others.items() if plain[p.name] and not norms and block not in taken]
        # Last layers that do more than their class: their noise goes only into what follows them.
        own = [place for place in others if not plain[place.name]]
        yield from (Option((place,)) for place in (*after, *singly, *inputs, *own))
        together = []
        if len(after) > 1 and not side_by_side:
            together.append(Option(_shared(after), on_stream=True))
        if len(inputs) > 1 and len({(place.axis, place.block) for place in inputs}) == 1:
            together.append(Option(_shared(inputs), on_stream))
        yield from sorted(together, key=lambda option: option.on_stream)

    def _after_layers(self, channels: Channels) -> tuple[list[Placement], dict[Placement, int]]:
        """After norms and bare layers; and after others, with how many of its channels make one of these.

        Of what a norm takes in blocks, a group goes at a time; what a layer gives is its own otherwise.
        """
        norms: list[tuple[ModuleCall, int]] = []
        bare: list[tuple[ModuleCall, int]] = []
        others: dict[Placement, int] = {}
        for call, axis in self._giving.get(frozenset(channels), ()):
            module, block = self._modules[call.name], self._block(axis, channels)
            if block and self.is_norm(call) and is_plain(module):
                norms.append((call, block))
            elif block == 1 and is_plain(module):
                bare.append((call, block))
            elif block == 1 or (block and is_plain(module) and activation_axis(module) == 1):
                others[self.after(call)] = block
        normed = {call.source for call, _ in norms}
        return [self.after(*each) for each in (*norms, *bare) if each[0].name not in normed], others

    def _before_layers(self, channels: Channels) -> list[Placement]:
        inputs = []
        for call, given in self._taking.get(frozenset(channels), ()):
            takes = is_plain(self._modules[call.name]) and not self.is_norm(call)
            if takes and not self._is_depthwise(call) and (block := self._block(given, channels)):
                inputs.append(self._before(call, given.size, block))
        return inputs

    def _side_by_side(self, channels: Channels) -> bool:
        """Whether several layers add to these structures, none of which builds on these as residuals do."""
        ends = self._ends
        reached = [given for given, result in ends if not result.isdisjoint(channels)]
        if len(reached) < 2:
            return False
        before: set[int] = set().union(*reached)
        while before.isdisjoint(channels):
            further = before.union(*(given for given, result in ends if result & before))
            if further == before:
                return True
            before = further
        return False

    @cached_property
    def _ends(self) -> list[tuple[set[int], set[int]]]:
        """What each layer with weights takes and gives."""
        calls = [call for call in self.weighted if not self._is_depthwise(call)]
        return [
            (set(self.channels(self.axis(c, before=True))), set(self.channels(self.axis(c)))) for c in calls
        ]

    def _is_depthwise(self, call: ModuleCall) -> bool:
        layer = self._modules[call.name]
        return 1 < getattr(layer, "groups", 1) == getattr(layer, "in_channels", 0)

    def after(self, call: ModuleCall, block: int = 1) -> Placement:
        """Noise on what a layer gives, so many entries to a structure."""
        axis, channels = activation_axis(self._modules[call.name]), self.axis(call)
        assert axis is not None
        assert channels is not None
        return Placement(call.name, channels.size // block, axis_of_structures(axis, block), block=block)

    def _before(self, call: ModuleCall, size: int, block: int) -> Placement:
        axis = activation_axis(self._modules[call.name])
        assert axis is not None
        counted = axis_of_structures(axis, block)
        return Placement(call.name, size // block, counted, before=True, block=block)

    def _block(self, axis: Axis, channels: Channels) -> int:
        """Entries that each of these channels has, side by side, on an axis of no others; else 0."""
        if axis.size % len(channels):
            return 0
        block = axis.size // len(channels)
        table: Ints = self._network.labels.roots(axis.labels).reshape(-1, block)
        return block if (table == table[:, :1]).all() and block < axis.size else 0


def first_calls(network: FollowedNetwork) -> dict[str, ModuleCall]:
    """The first call of each module, in the order in which these ended."""
    calls: dict[str, ModuleCall] = {}
    for call in network.calls:
        calls.setdefault(call.name, call)
    return calls


def _shared(places: list[Placement]) -> tuple[Placement, ...]:
    """The same noise layer at several places."""
    first = places[-1].name
    return tuple(replace(place, stream=first) for place in places)
