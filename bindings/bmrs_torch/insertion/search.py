"""Find places for noise in any model, by running it and trying what closing a gate would let go."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

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
from bmrs_torch.channels.weights import NORMS, activation_axis, is_plain, is_weighted
from bmrs_torch.insertion.placement import InsertionPlan, Placement, axis_of_structures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bmrs_torch.channels.axes import Axis
    from bmrs_torch.channels.labels import Ints

CALLED_AGAIN = "it is called more than once, so its outputs would share one noise"
NOT_CALLED = "it isn't called as a module in evaluation mode"
HAS_NOISE = "it already has noise"
NO_CHANNELS = "its output isn't a tensor with channels on its last axis or its second"
OWN_NOISE = "it has attributes called noise of its own"

_MOST_TAKERS = 4
"""Layers that may take the same structures for these to get one noise layer before all of them: SE blocks."""

_ROUNDS = 8
"""Places tried for the structures of one layer; each round tries one for every layer, in one evaluation."""


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
        self._network = self._follow([])
        self._streams = {
            root for labels in self._network.sums for root in self._network.labels.roots(labels).tolist()
        }
        self._attached = attachments(model)
        self._count = Counter(call.name for call in self._network.calls)

    def _follow(self, probes: list[Probe]) -> FollowedNetwork:
        return follow(self._model, self._inputs, closed=none_closed, probes=probes)

    def weighted(self) -> dict[str, ModuleCall]:
        """The first call of each layer with weights, in the order of the calls."""
        found: dict[str, ModuleCall] = {}
        for call in self._network.calls:
            if is_weighted(self._modules[call.name]):
                found.setdefault(call.name, call)
        return found

    def hidden(self) -> InsertionPlan:
        """After every hidden layer, after the BatchNorm that follows it if there is one."""
        placements, passed_over = [], self._uncalled()
        for name, call in self.weighted().items():
            reason = self._why_not(call)
            if reason is None:
                at = next((c for c in self._network.calls if self._is_norm(c) and c.source == name), call)
                placements.append(self._after(at))
            else:
                passed_over.append((name, reason))
        return InsertionPlan(tuple(placements), tuple(passed_over))

    def after(self, names: Sequence[str]) -> InsertionPlan:
        """After these layers, wherever their outputs have channels; after what runs last in a Sequential."""
        calls = {call.name: call for call in self._network.calls}
        placements, passed_over = [], []
        for name in dict.fromkeys(map(self._last_of, names)):
            axis = activation_axis(self._modules[name])
            axes = calls[name].result if name in calls else ()
            if axis is None:  # channels last, as in tokens, or second, as in images
                axis = next((d for d in (-1, 1) if len(axes) > 1 and axes[d] is not None), None)
            channels = axes[axis] if axis is not None and len(axes) > 1 else None
            if name not in calls:
                passed_over.append((name, NOT_CALLED))
            elif name_for(self._modules[name], before=False) is None:
                passed_over.append((name, OWN_NOISE))
            elif any(a.layer is self._modules[name] and not a.before for a in self._attached):
                passed_over.append((name, HAS_NOISE))
            elif axis is None or channels is None:
                passed_over.append((name, NO_CHANNELS))
            else:
                placements.append(Placement(name, channels.size, axis))
        return InsertionPlan(tuple(placements), tuple(passed_over))

    def _last_of(self, name: str) -> str:
        """A Sequential calls all its children, noise too: what runs last in it gives the same."""
        module = self._modules[name]
        while type(module) is nn.Sequential and len(module):
            name = f"{name}.{list(module._modules)[-1]}"
            module = self._modules[name]
        return name

    def _is_norm(self, call: ModuleCall) -> bool:
        return isinstance(self._modules[call.name], NORMS)

    def _uncalled(self) -> list[tuple[str, str]]:
        return [(n, NOT_CALLED) for n, m in self._modules.items() if is_weighted(m) and not self._count[n]]

    def _why_not(self, call: ModuleCall) -> str | None:
        if self._count[call.name] > 1:
            return CALLED_AGAIN
        if name_for(self._modules[call.name], before=False) is None:
            return OWN_NOISE
        axis = self._axis(call)
        if axis is None:
            return "its output isn't a tensor of channels"
        roots = set(self._roots(self._network, axis))
        gated = {
            r for labels in self._network.gates.values() for r in self._network.labels.roots(labels).tolist()
        }
        if roots & gated:
            return HAS_NOISE
        obstacles = self._network.obstacles()
        return OUTPUT if any(obstacles.get(root) == OUTPUT for root in roots) else None

    def _after(self, call: ModuleCall, block: int = 1) -> Placement:
        axis = activation_axis(self._modules[call.name])
        channels = self._axis(call)
        assert axis is not None
        assert channels is not None
        return Placement(call.name, channels.size // block, axis_of_structures(axis, block), block=block)

    def _axis(self, call: ModuleCall, *, before: bool = False) -> Axis | None:
        axis = activation_axis(self._modules[call.name])
        axes = call.given if before else call.result
        return axes[axis] if axis is not None and len(axes) > 1 else None

    def _roots(self, network: FollowedNetwork, axis: Axis) -> list[int]:
        roots: list[int] = network.labels.roots(axis.labels).tolist()
        return roots

    def removable(self, *, streams: bool = False) -> InsertionPlan:
        """One gate for the structures of each layer, where closing it lets them go from the whole network.

        Parameters
        ----------
        streams : bool
            Where one place isn't enough because several layers add to the same structures, put one noise
            layer, shared, on all of them.
        """
        passed_over, candidates = self._uncalled(), {}
        weighted = self.weighted()
        for name, call in weighted.items():
            reason = self._why_not(call) or self._obstacle(call)
            if reason is None:
                candidates[name, False] = self._places(call, streams=streams)
            else:
                passed_over.append((name, reason))
        for name, call in weighted.items():
            if self._made_elsewhere(call, [weighted[n] for n, _ in candidates]):
                candidates[name, True] = self._places(call, before=True)
        found, reasons = self._try(candidates)
        passed_over += reasons
        order = {call.name: i for i, call in enumerate(self._network.calls)}
        placements = sorted(dict.fromkeys(found), key=lambda p: order[p.name])
        return InsertionPlan(tuple(placements), tuple(passed_over))

    def _made_elsewhere(self, call: ModuleCall, known: list[ModuleCall]) -> bool:
        """Whether a layer takes channels of weights that no layer with weights was called for."""
        axis = self._axis(call, before=True)
        if axis is None or self._count[call.name] > 1 or self._obstacle(call, before=True):
            return False
        seen = {
            r for labels in self._network.gates.values() for r in self._network.labels.roots(labels).tolist()
        }
        for other in known:
            result = self._axis(other)
            seen |= set() if result is None else set(self._roots(self._network, result))
        return not seen & set(self._roots(self._network, axis))

    def _obstacle(self, call: ModuleCall, *, before: bool = False) -> str | None:
        axis = self._axis(call, before=before)
        assert axis is not None
        obstacles = self._network.obstacles()
        return next((obstacles[root] for root in self._roots(self._network, axis) if root in obstacles), None)

    def _places(
        self, call: ModuleCall, *, before: bool = False, streams: bool = False
    ) -> list[tuple[Placement, ...]]:
        """Places for the structures of a layer: after norms, after layers, before layers; the last first."""
        axis = self._axis(call, before=before)
        assert axis is not None
        wanted = set(self._roots(self._network, axis))
        outputs: list[tuple[ModuleCall, int]] = []
        inputs, singly, own = [], [], []
        for other in reversed(self._network.calls):
            if self._count[other.name] > 1 or activation_axis(self._modules[other.name]) is None:
                continue
            result, given = self._axis(other), self._axis(other, before=True)
            covered = 0 if result is None else self._covers(result, wanted)
            # Of what a norm takes in blocks, a group goes at a time; what a layer gives is its own otherwise.
            if not is_plain(self._modules[other.name]):
                own += [(self._after(other),)] if covered == 1 else []
                continue
            if covered == 1 or (covered and self._is_norm(other)):
                outputs.append((other, covered))
            elif covered and activation_axis(self._modules[other.name]) == 1:
                singly.append((other, covered))
            takes = given is not None and not self._is_norm(other) and not self._is_depthwise(other)
            block = self._covers(given, wanted) if takes and given is not None else 0
            if block and given is not None:
                inputs.append(self._before(other, given.size, block))
        norms = [(c, block) for c, block in outputs if self._is_norm(c)]
        normed = {c.source for c, _ in norms}
        bare = [(c, block) for c, block in outputs if not self._is_norm(c) and c.name not in normed]
        places: list[tuple[Placement, ...]] = [(self._after(*c),) for c in [*norms, *bare]]
        # Several of a layer's channels for one of those that take them, as before a PixelShuffle.
        taken = {place.block for place in inputs}
        places += [(self._after(c),) for c, block in singly if not norms and block not in taken]
        places += [(place,) for place in inputs]
        places += own  # layers that do more than their class: noise goes only into what follows them
        alike = len({(place.axis, place.block) for place in inputs}) == 1
        if alike and 1 < len(inputs) <= _MOST_TAKERS and not wanted & self._streams:
            places.append(_shared(inputs))
        together = [self._after(*c) for c in [*norms, *bare]]
        if len(together) > 1 and wanted & self._streams and self._side_by_side(wanted):
            return [_shared(together), *places]
        return [*places, _shared(together)] if streams and len(together) > 1 else places

    def _side_by_side(self, wanted: set[int]) -> bool:
        """Whether several layers add to these structures, none of which builds on these as residuals do."""
        calls = [call for call in self.weighted().values() if not self._is_depthwise(call)]
        axes = [(self._axis(call, before=True), self._axis(call)) for call in calls]
        ends = [[set() if a is None else set(self._roots(self._network, a)) for a in both] for both in axes]
        reached = [given for given, result in ends if result & wanted]
        if len(reached) < 2:
            return False
        before: set[int] = set().union(*reached)
        while not before & wanted:
            further = before.union(*(given for given, result in ends if result & before))
            if further == before:
                return True
            before = further
        return False

    def _is_depthwise(self, call: ModuleCall) -> bool:
        layer = self._modules[call.name]
        return 1 < getattr(layer, "groups", 1) == getattr(layer, "in_channels", 0)

    def _before(self, call: ModuleCall, size: int, block: int) -> Placement:
        axis = activation_axis(self._modules[call.name])
        assert axis is not None
        counted = axis_of_structures(axis, block)
        return Placement(call.name, size // block, counted, before=True, block=block)

    def _covers(self, axis: Axis, wanted: set[int]) -> int:
        """Entries that each of the wanted channels has on an axis that has no others, else 0."""
        roots = self._network.labels.roots(axis.labels)
        if set(roots.tolist()) != wanted or roots.size % len(wanted):
            return 0
        block = roots.size // len(wanted)
        table: Ints = roots.reshape(-1, block)
        return block if (table == table[:, :1]).all() and block < roots.size else 0

    def _try(
        self, candidates: dict[tuple[str, bool], list[tuple[Placement, ...]]]
    ) -> tuple[list[Placement], list[tuple[str, str]]]:
        """Try places, one for every layer at a time, until each layer has one that lets its structures go."""
        found: list[Placement] = []
        waiting = {key: list(dict.fromkeys(places)) for key, places in candidates.items()}
        reasons = dict.fromkeys(waiting, "no place for a gate was found")
        for _ in range(_ROUNDS):
            turn = {key: places.pop(0) for key, places in waiting.items() if places}
            if not turn:
                break
            probes = dict.fromkeys(_probe(place) for places in turn.values() for place in places)
            network = self._follow(list(probes))
            calls = {call.name: call for call in network.calls}
            prevented = _prevented(network)
            for (name, before), places in turn.items():
                axis = self._axis(calls[name], before=before)
                roots = [] if axis is None else self._roots(network, axis)
                obstacle = next((prevented[root] for root in roots if root in prevented), None)
                if obstacle is None:
                    found += places
                    del waiting[name, before], reasons[name, before]
                else:
                    reasons[name, before] = obstacle
        return found, [(name, reason) for (name, _), reason in reasons.items()]


def _prevented(network: FollowedNetwork) -> dict[int, str]:
    """Why classes of channels wouldn't go, by their representatives."""
    reasons = {
        root: f"no single gate makes its structures 0 where {place!r} takes them"
        for root, place in network.live().items()
    }
    return {**reasons, **network.obstacles()}


def _probe(place: Placement) -> Probe:
    return Probe(place.name, place.before, place.axis_of_tensor)


def _shared(places: list[Placement]) -> tuple[Placement, ...]:
    """The same noise layer at several places."""
    first = places[-1].name
    return tuple(replace(place, stream=first) for place in places)
