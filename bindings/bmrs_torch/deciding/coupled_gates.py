"""Which structures can only go together."""

from __future__ import annotations

from typing import Any

from torch import nn

from bmrs_torch.channels.network import every, follow, trained
from bmrs_torch.layer import noise_layers


def coupled_gates(model: nn.Module, example_inputs: Any) -> list[dict[str, tuple[int, ...]]]:
    """List which structures of which noise layers can only be removed together.

    The evidence of a group is the sum of its members', since the posterior factorises.

    Parameters
    ----------
    model : nn.Module
        A model with noise layers; it is left as it is.
    example_inputs : Tensor, tuple, list or dict
        One input, positional inputs, or keyword inputs, on which the model is run once.

    Returns
    -------
    list of dict of str to tuple of int
        For each group the names of its noise layers and their structures in it. Every structure of every
        layer that takes part is in exactly one group; most groups have one member. A structure that can't be
        removed even if its whole group is masked is in a group by itself.

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
    >>> from bmrs_torch import coupled_gates, insert_noise
    >>> model = insert_noise(nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 2)), torch.ones(2, 4))
    >>> coupled_gates(model, torch.ones(2, 4))
    [{'0.noise': (0,)}, {'0.noise': (1,)}]
    """
    noise_layers(model)
    network = follow(trained(model), example_inputs, closed=every)
    stuck = network.obstacles().keys() | network.live().keys()
    groups: dict[int | tuple[str, int], dict[str, tuple[int, ...]]] = {}
    for name, labels in network.gates.items():
        for structure, root in enumerate(network.labels.roots(labels).tolist()):
            group = groups.setdefault((name, structure) if root in stuck else root, {})
            group[name] = (*group.get(name, ()), structure)
    return list(groups.values())
