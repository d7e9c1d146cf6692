"""Find places for noise in any model, by running it and trying what closing a gate would let go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from bmrs_torch.attachment import attachments, name_for
from bmrs_torch.channels.network import (
    OUTPUT,
    FollowedNetwork,
    ModuleCall,
    Probe,
    follow,
    none_closed,
    trained,
)
from bmrs_torch.channels.weights import activation_axis, is_weighted
from bmrs_torch.insertion.placement import InsertionPlan, Placement
from bmrs_torch.insertion.places import Channels, Option, Places, first_calls
from bmrs_torch.insertion.states import on_state, why_no_noise

if TYPE_CHECKING:
    from bmrs_torch.channels.labels import Bools

NOT_CALLED = "it isn't called as a module in evaluation mode: call the layer, not a function of its weights"
HAS_NOISE = "it already has noise"
NO_CHANNELS = "its output isn't a tensor with channels on its last axis or its second"
OWN_NOISE = "it has attributes called noise of its own"
NO_PLACE = "no layer that a hook can put noise on gives or takes just these structures"
HELD_BY_ATTENTION = (
    "nn.MultiheadAttention can't hold fewer heads of the same width: their number times their width has to "
    "be the width of what it takes; separate_attention(model) replaces it by an equal module that can"
)


@dataclass
class _Structures:
    """Structures that can only go together, and the search for their gate.

    Attributes
    ----------
    channels : tuple of int
        Their classes, by representatives.
    call, before
        A layer that gives or takes them.
    options : list of Option
        Not tried yet, or found to work with some of the structures.
    works : bool
        Whether the first option is of the latter kind.
    reason : str
        Why there is no gate, if there is none.
    layers : list of str
        Those that give them.
    """

    channels: Channels
    call: ModuleCall
    before: bool
    options: list[Option]
    works: bool = False
    reason: str = NO_PLACE
    layers: list[str] = field(default_factory=list)


class Search:
    """The calls of a model's layers on an example, and what gates there would do.

    Parameters
    ----------
    model : nn.Module
        It is left as it is.
    example_inputs : Tensor, tuple, list or dict
        One input, positional inputs, or keyword inputs.
    """

    def __init__(self, model: nn.Module, example_inputs: Any) -> None:
        self._model, self._inputs = trained(model), example_inputs
        self._modules = dict(model.named_modules())
        self._network = self._follow(())
        self._places = Places(self._network, self._modules)
        self._obstacles = self._network.obstacles()
        self._attached = attachments(model)
        roots = self._network.labels.roots
        self._gated = {r for labels in self._network.gates.values() for r in roots(labels).tolist()}

    def _follow(self, probes: Sequence[Probe]) -> FollowedNetwork:
        return follow(self._model, self._inputs, closed=none_closed, probes=probes)

    def hidden(self) -> InsertionPlan:
        """After every hidden layer, after the BatchNorm that follows it if there is one."""
        passed_over = self._uncalled() + [
            (c.name, why) for c in self._places.weighted if (why := self._why_not(c))
        ]
        norms = {c.source: c for c in reversed(self._places.calls.values()) if self._places.is_norm(c)}
        hidden = [norms.get(call.name, call) for call in self._places.weighted if not self._why_not(call)]
        return InsertionPlan(tuple(map(self._places.after, hidden)), tuple(passed_over))

    def after(self, names: Sequence[str]) -> InsertionPlan:
        """After these layers, wherever their outputs have channels; after what runs last in a Sequential."""
        placements, passed_over = [], []
        for name in dict.fromkeys(map(self._last_of, names)):
            module, call = self._modules[name], self._places.calls.get(name)
            axes, axis = () if call is None else call.result, activation_axis(module)
            if axis is None:  # channels last, as in tokens, or second, as in images
                axis = next((d for d in (-1, 1) if len(axes) > 1 and axes[d] is not None), None)
            channels = axes[axis] if axis is not None and len(axes) > 1 else None
            if call is None:
                passed_over.append((name, NOT_CALLED))
            elif name_for(module, before=False) is None:
                passed_over.append((name, OWN_NOISE))
            elif any(a.layer is module and not a.before for a in self._attached):
                passed_over.append((name, HAS_NOISE))
            elif isinstance(module, nn.RNNBase):
                reason = why_no_noise(module)
                if reason is None:
                    placements.append(on_state(name, module))
                else:
                    passed_over.append((name, reason))
            elif axis is None or channels is None:
                passed_over.append((name, NO_CHANNELS))
            else:
                placements.append(Placement(name, channels.size, axis))
        return InsertionPlan(tuple(placements), tuple(passed_over))

    def removable(self, *, streams: bool = False) -> InsertionPlan:
        """One gate for the structures of each layer, where closing it lets them go from the whole network.

        Parameters
        ----------
        streams : bool
            Where one place isn't enough because several layers add to the same structures, put one noise
            layer, shared, on all of them.
        """
        passed_over, groups = self._uncalled(), dict[Channels, _Structures]()

        def add(call: ModuleCall, channels: Channels, *, before: bool = False) -> _Structures:
            if channels not in groups:
                groups[channels] = _Structures(channels, call, before, list(self._places.options(channels)))
            return groups[channels]

        for call in self._places.weighted:
            channels = self._places.channels(self._places.axis(call))
            reason = self._why_not(call) or self._obstacle(channels)
            if reason is None:
                add(call, channels).layers.append(call.name)
            else:
                passed_over.append((call.name, reason))
        known = self._gated.union(
            *(self._places.channels(self._places.axis(call)) for call in self._places.weighted)
        )
        # What a layer takes may be made by none: of a parameter of the model.
        for call in self._places.weighted:
            channels = self._places.channels(self._places.axis(call, before=True))
            if channels and known.isdisjoint(channels) and self._obstacle(channels) is None:
                add(call, channels, before=True)
        found = self._try(list(groups.values()), streams=streams)
        passed_over += [(name, g.reason) for g in groups.values() if g.reason for name in g.layers]
        order = {name: i for i, name in enumerate(self._places.calls)}
        placements = sorted(dict.fromkeys(found), key=lambda place: order[place.name])
        return InsertionPlan(tuple(placements), tuple(passed_over))

    def _last_of(self, name: str) -> str:
        """A Sequential calls all its children, noise too: what runs last in it gives the same."""
        module = self._modules[name]
        while type(module) is nn.Sequential and len(module):
            name = f"{name}.{list(module._modules)[-1]}"
            module = self._modules[name]
        return name

    def _uncalled(self) -> list[tuple[str, str]]:
        return [
            (n, HELD_BY_ATTENTION if self._in_attention(n) else NOT_CALLED)
            for n, m in self._modules.items()
            if is_weighted(m) and n not in self._places.calls
        ]

    def _in_attention(self, name: str) -> bool:
        return isinstance(self._modules[name.rpartition(".")[0]], nn.MultiheadAttention)

    def _why_not(self, call: ModuleCall) -> str | None:
        if name_for(self._modules[call.name], before=False) is None:
            return OWN_NOISE
        channels = self._places.channels(self._places.axis(call))
        if not channels:
            return "its output isn't a tensor of channels"
        if not self._gated.isdisjoint(channels):
            return HAS_NOISE
        return OUTPUT if self._obstacle(channels) == OUTPUT else None

    def _obstacle(self, channels: Channels) -> str | None:
        return next((self._obstacles[root] for root in channels if root in self._obstacles), None)

    def _try(self, waiting: list[_Structures], *, streams: bool) -> list[Placement]:
        """Try places until the structures of each layer have one that lets them go, or none is left.

        The structures of a layer are alike, so each tries another place, all in one run of the model; what
        works is tried again with all of them. So the number of runs doesn't grow with the number of layers.
        """
        found: list[Placement] = []
        while waiting := [group for group in waiting if group.options]:
            tried = [(group, group.options[: 1 if group.works else len(group.channels)]) for group in waiting]
            network = self._follow(self._probes(tried))
            calls, prevented = first_calls(network), _prevented(network)
            for group, options in tried:
                call = calls.get(group.call.name)
                failures = self._failures(group, len(options), call, network, prevented)
                works = [option for option, failure in zip(options, failures, strict=True) if not failure]
                if failures[0] and group.reason == NO_PLACE:
                    group.reason = f"with a gate {options[0]} {failures[0]}"
                if works and len(options) == 1:
                    group.options, group.reason = [], ""
                    if streams or not works[0].on_stream:
                        found += works[0].places
                    else:
                        group.reason = f"it takes one noise layer {works[0]} together: where='streams'"
                else:
                    group.options = works + group.options[len(options) :]
                    group.works = bool(works)
        return found

    def _numbers(self, call: ModuleCall, group: _Structures, *, before: bool) -> list[int]:
        """Which of the structures each entry of a layer's axis belongs to."""
        axis = self._places.axis(call, before=before)
        numbers = {root: i for i, root in enumerate(group.channels)}
        return [] if axis is None else [numbers[r] for r in self._network.labels.roots(axis.labels).tolist()]

    def _probes(self, tried: list[tuple[_Structures, list[Option]]]) -> list[Probe]:
        """Gates at all these places, each closed for those structures that try it."""
        closed: dict[tuple[str, bool, int], Bools] = {}
        for group, options in tried:
            for i, option in enumerate(options):
                for place in option.places:
                    call = self._places.calls[place.name]
                    numbers = np.array(self._numbers(call, group, before=place.before))
                    key = place.name, place.before, place.axis_of_tensor
                    closed[key] = (numbers % len(options) == i) | closed.get(key, np.False_)
        return [Probe(*key, dead) for key, dead in closed.items()]

    def _failures(
        self,
        group: _Structures,
        tried: int,
        call: ModuleCall | None,
        network: FollowedNetwork,
        prevented: dict[int, str],
    ) -> list[str]:
        """For each place tried, why the structures that tried it can't go; "" where they can."""
        axis = None if call is None else self._places.axis(call, before=group.before)
        numbers = self._numbers(group.call, group, before=group.before)
        if axis is None or axis.size != len(numbers):
            return ["the model runs otherwise"] * tried
        failures = [""] * tried
        for number, root in zip(numbers, network.labels.roots(axis.labels).tolist(), strict=True):
            failures[number % tried] = failures[number % tried] or prevented.get(root, "")
        return failures


def _prevented(network: FollowedNetwork) -> dict[int, str]:
    """Why classes of channels wouldn't go, by their representatives."""
    lost, reasons = network.reopened(), dict[int, str]()
    for root, place in network.live().items():
        why = (
            f"{lost[root]} 0 becomes something else"
            if root in lost
            else "they come there by another way, too"
        )
        reasons[root] = f"its structures are not 0 where {place!r} takes them: {why}"
    return {**reasons, **network.obstacles()}
