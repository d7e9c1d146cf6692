"""What of a masked network can be removed: a structure goes only if all noise coupled to it is masked."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from torch import nn

from bmrs_torch.layer import MultiplicativeNoise, noise_layers
from bmrs_torch.module_graph import WEIGHTED
from bmrs_torch.pruning.dependency import Coupled, DependencyGraph


@dataclass(frozen=True)
class LayerRemoval:
    """What of one noise layer can be removed.

    Attributes
    ----------
    name : str
        Name of the noise layer.
    num_structures : int
        Structures it has now.
    removed : tuple of int
        Those to remove.
    retained : tuple of (int, str)
        Structures that are masked but have to stay, each with the reason.
    """

    name: str
    num_structures: int
    removed: tuple[int, ...]
    retained: tuple[tuple[int, str], ...]

    def __str__(self) -> str:
        text = f"{self.name}: remove {len(self.removed)} of {self.num_structures}"
        reasons = dict.fromkeys(reason for _, reason in self.retained)
        for reason in reasons:
            number = sum(why == reason for _, why in self.retained)
            text += f"; {number} masked but not removable: {reason}"
        return text


@dataclass(frozen=True)
class CompactionPlan:
    """What :func:`compact` removes from each layer, and what it can't. Print it to read it.

    Attributes
    ----------
    layers : tuple of LayerRemoval
        Every noise layer.
    cuts : tuple of (str, tuple of int)
        The surgery: structures to remove from one noise layer of each coupled group; the others follow.
    """

    layers: tuple[LayerRemoval, ...]
    cuts: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def removed(self) -> int:
        """How many structures of noise layers are removed."""
        return sum(len(layer.removed) for layer in self.layers)

    @property
    def retained(self) -> int:
        """How many structures are masked but have to stay."""
        return sum(len(layer.retained) for layer in self.layers)

    def __str__(self) -> str:
        return "\n".join(map(str, self.layers))


def plan_compaction(model: nn.Module, example_inputs: Any) -> CompactionPlan:
    """Say what :func:`compact` would remove, and which masked structures it can't remove and why.

    Parameters
    ----------
    model : nn.Module
        A model with noise layers; it is left as it is.
    example_inputs : Tensor, tuple, list or dict
        One input, positional inputs, or keyword inputs, with which the model is traced.

    Returns
    -------
    CompactionPlan

    Raises
    ------
    ValueError
        If the model has no noise layers.
    TypeError
        For example inputs of another kind.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import insert_noise, plan_compaction
    >>> model = insert_noise(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    >>> model[0].noise.mask[1] = 0
    >>> print(plan_compaction(model, torch.ones(2, 4)))
    0.noise: remove 1 of 3
    """
    traced = copy.deepcopy(model)
    return make_plan(traced, DependencyGraph(traced, example_inputs))


def make_plan(model: nn.Module, graph: DependencyGraph) -> CompactionPlan:
    """Plan the surgery on a model whose dependency graph is `graph`."""
    names = {layer: name for name, layer in noise_layers(model).items()}
    removals: dict[str, LayerRemoval] = {}
    cuts = []
    for layer, name in names.items():
        if name in removals:
            continue
        if not graph.traced(layer):
            removals[name] = _removal(name, layer, set(), "it takes no part in the forward pass")
            continue
        coupled = graph.coupled(layer)
        gates = [item for item in coupled if isinstance(item.layer, MultiplicativeNoise)]
        obstacle = _obstacle(coupled)
        cut = () if obstacle else _removable(gates, layer.num_structures)
        if cut:
            cuts.append((name, cut))
        for gate in gates:
            assert isinstance(gate.layer, MultiplicativeNoise)
            channels = {channel for structure, channel in gate.pairs() if structure in cut}
            gate_name = names[gate.layer]
            removals[gate_name] = _removal(gate_name, gate.layer, channels, obstacle)
    return CompactionPlan(tuple(removals[name] for name in names.values()), tuple(cuts))


def _removable(gates: list[Coupled], num_structures: int) -> tuple[int, ...]:
    """Structures masked by every gate, all but one if that would be all of them."""
    masked = set(range(num_structures))
    for gate in gates:
        assert isinstance(gate.layer, MultiplicativeNoise)
        kept = gate.layer.kept().tolist()
        masked -= {structure for structure, channel in gate.pairs() if kept[channel]}
    if len(masked) == num_structures:
        masked.remove(0)
    return tuple(sorted(masked))


def _removal(name: str, layer: MultiplicativeNoise, removed: set[int], obstacle: str | None) -> LayerRemoval:
    masked = {i for i, kept in enumerate(layer.kept().tolist()) if not kept}
    reason = obstacle or "what it is coupled to is not masked, or a layer has to keep at least one"
    retained = tuple((i, reason) for i in sorted(masked - removed))
    return LayerRemoval(name, layer.num_structures, tuple(sorted(removed)), retained)


def _obstacle(coupled: list[Coupled]) -> str | None:
    """Why nothing may be removed from these coupled layers, or None."""
    gates = {item.layer for item in coupled if isinstance(item.layer, MultiplicativeNoise)}
    producers: set[nn.Module] = set()
    consumers: set[nn.Module] = set()
    for item in coupled:
        layer = item.layer
        if isinstance(layer, (nn.LayerNorm, nn.GroupNorm)):
            return (
                f"{type(layer).__name__} normalises over the structures, so removing one changes the others"
            )
        if not isinstance(layer, WEIGHTED) or _is_depthwise(layer):
            continue
        if getattr(layer, "groups", 1) > 1:
            return "a grouped convolution has to keep as many structures in every group"
        (producers if item.produces else consumers).add(layer)
    if len(producers) > len(gates):
        return "a layer without noise adds to the same structures"
    if not consumers:
        return "it is the model's output"
    return None


def _is_depthwise(layer: nn.Module) -> bool:
    groups = getattr(layer, "groups", 1)
    return bool(groups > 1 and groups == layer.in_channels == layer.out_channels)
