"""Which gates live or die together, as the network's connections have it."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from bmrs_torch.layer import MultiplicativeNoise, noise_layers
from bmrs_torch.pruning.dependency import DependencyGraph


def coupled_gates(model: nn.Module, example_inputs: Any) -> list[list[tuple[str, int]]]:
    """Group the structures of all noise layers by what can only be removed together.

    Parameters
    ----------
    model : nn.Module
        A model with noise layers; it is left as it is.
    example_inputs : Tensor, tuple, list or dict
        One input, positional inputs, or keyword inputs, with which the model is traced.

    Returns
    -------
    list of lists of (str, int)
        Groups of gates, each the name of its noise layer and its structure; every gate is in one.

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
    [[('0.noise', 0)], [('0.noise', 1)]]
    """
    traced = copy.deepcopy(model)
    graph = DependencyGraph(traced, example_inputs)
    layers = noise_layers(traced)
    names = {layer: name for name, layer in layers.items()}
    groups: list[list[tuple[str, int]]] = []
    seen: set[tuple[str, int]] = set()
    for name, layer in layers.items():
        together: list[list[tuple[str, int]]] = [[(name, i)] for i in range(layer.num_structures)]
        for item in graph.coupled(layer) if graph.traced(layer) else []:
            if isinstance(item.layer, MultiplicativeNoise):
                for structure, channel in item.pairs():
                    together[structure].append((names[item.layer], channel))
        for group in together:
            if group[0] not in seen:
                groups.append(list(dict.fromkeys(group)))
                seen.update(group)
    return groups
