"""Places for noise on the states of recurrent layers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.utils import parametrize

from bmrs_torch.attachment import attach, name_for, takes_state
from bmrs_torch.channels.network import FollowedNetwork, every, follow, none_closed, trained
from bmrs_torch.channels.recurrent import width_of_state
from bmrs_torch.insertion.placement import InsertionPlan, Placement
from bmrs_torch.layer import MultiplicativeNoise

if TYPE_CHECKING:
    from bmrs_torch.channels.labels import Bools

__all__ = ["on_state", "why_no_noise", "with_states"]


def on_state(name: str, layer: nn.RNNBase) -> Placement:
    """Noise on the state of a recurrent layer: a structure is the unit of one number in all its layers."""
    return Placement(name, width_of_state(layer), -1, state=True)


def with_states(plan: InsertionPlan, model: nn.Module, example_inputs: Any) -> InsertionPlan:
    """Add to a plan the states of recurrent layers whose units can go, and why those of others can't.

    Parameters
    ----------
    plan : InsertionPlan
    model : nn.Module
        It is left as it is.
    example_inputs : Tensor, tuple, list or dict
        What it is tried on.
    """
    trial = trained(model)
    layers = {n: m for n, m in trial.named_modules() if isinstance(m, nn.RNNBase)}
    passed_over = {name: reason for name, layer in layers.items() if (reason := why_no_noise(layer))}
    noise = {n: MultiplicativeNoise(width_of_state(layers[n])) for n in layers if n not in passed_over}
    if not noise:
        return InsertionPlan(plan.placements, plan.passed_over + tuple(passed_over.items()))
    for name, gate in noise.items():
        like: Any = layers[name].weight_hh_l0
        attach(layers[name], gate.to(like), state=True)
    closed = set(noise.values())

    def closing(layer: MultiplicativeNoise) -> Bools:
        return every(layer) if layer in closed else none_closed(layer)

    network = follow(trial, example_inputs, closed=closing)
    names = {module: name for name, module in trial.named_modules()}
    calls = Counter(call.name for call in network.calls)
    for name, gate in noise.items():
        reason = _prevented(network, names[gate], calls[name])
        if reason is not None:
            passed_over[name] = reason
    found = tuple(on_state(name, layers[name]) for name in noise if name not in passed_over)
    return InsertionPlan(plan.placements + found, plan.passed_over + tuple(passed_over.items()))


def why_no_noise(layer: nn.RNNBase) -> str | None:
    """Why noise can't be put on the state of a recurrent layer, None if it can."""
    if any(parametrize.is_parametrized(layer, name) for name, _ in takes_state(layer)):
        return (
            "the weights by which it takes its own state are parametrized, so that noise can't be put there"
        )
    if name_for(layer, before=False) is None:
        return "it has noise, or attributes of that name"
    return None


def _prevented(network: FollowedNetwork, gate: str, calls: int) -> str | None:
    """Why the units of a recurrent layer wouldn't go, None if they would."""
    if calls != 1:
        return "it isn't called as a module" if not calls else "it is called more than once"
    roots = network.labels.roots
    units = set(roots(network.gates[gate]).tolist())
    obstacles, live = network.obstacles(), network.live()
    pinned = next((obstacles[unit] for unit in units if unit in obstacles), None)
    if pinned is not None:
        return pinned
    other = next((k for k, v in network.gates.items() if k != gate and units & set(roots(v).tolist())), None)
    if other is not None:
        return f"its units are those on which {other!r} lies, too, so that no single gate lets them go"
    taker = next((live[unit] for unit in units if unit in live), None)
    return taker and f"its units are not 0 where {taker!r} takes them"
