"""Which gates live or die together, as the network's connections have it."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from bmrs_torch.layer import MultiplicativeNoise, noise_layers
from bmrs_torch.pruning.dependency import Coupled, DependencyGraph


def coupled_gates(model: nn.Module, example_inputs: Any) -> list[dict[str, tuple[int, ...]]]:
    """Group the structures of all noise layers by what can only be removed together.

    Parameters
    ----------
    model : nn.Module
        A model with noise layers; it is left as it is.
    example_inputs : Tensor, tuple, list or dict
        One input, positional inputs, or keyword inputs, with which the model is traced.

    Returns
    -------
    list of dict of str to tuple of int
        For each group the names of its noise layers and their structures in it; every structure is in one
        group.

    Raises
    ------
    ValueError
        If the model has no noise layers.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import insert_noise
    >>> from bmrs_torch.pruning.coupling import coupled_gates
    >>> model = insert_noise(nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 2)))
    >>> coupled_gates(model, torch.ones(2, 4))
    [{'0.noise': (0,)}, {'0.noise': (1,)}]
    """
    traced = copy.deepcopy(model)
    graph = DependencyGraph(traced, example_inputs)
    layers = noise_layers(traced)
    names = {layer: name for name, layer in layers.items()}
    groups: list[dict[str, tuple[int, ...]]] = []
    seen: set[tuple[str, int]] = set()
    for name, layer in layers.items():
        together = _groups_of(name, layer, graph.coupled(layer) if graph.traced(layer) else [], names)
        for structure, group in enumerate(together):
            if (name, structure) not in seen:
                groups.append({key: tuple(indices) for key, indices in group.items()})
                seen.update((key, index) for key, indices in group.items() for index in indices)
    return groups


def _groups_of(
    name: str, layer: MultiplicativeNoise, coupled: list[Coupled], names: dict[MultiplicativeNoise, str]
) -> list[dict[str, list[int]]]:
    """For each structure of a layer, the structures of other layers that go with it."""
    together: list[dict[str, list[int]]] = [{name: [i]} for i in range(layer.num_structures)]
    for item in coupled:
        if isinstance(item.layer, MultiplicativeNoise) and item.layer is not layer:
            for structure, channel in item.pairs():
                together[structure].setdefault(names[item.layer], []).append(channel)
    return together
