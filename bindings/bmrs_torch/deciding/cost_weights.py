"""How much the divergence of each layer's noise counts, so that what costs more is pressed more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from bmrs_torch.channels.calling import TrainingStep
from bmrs_torch.costs.terms import Formula, byte_terms, mac_terms, parameter_terms
from bmrs_torch.deciding.meet_budget import all_that_may_go
from bmrs_torch.deciding.removals import find_removals
from bmrs_torch.layer import noise_layers
from bmrs_torch.wrapping import whole as whole_model

__all__ = ["COSTS", "cost_weights"]

COSTS = ("macs", "parameters", "bytes")


def cost_weights(
    model: nn.Module, example_inputs: Any, cost: str = "macs", *, training_step: TrainingStep | None = None
) -> dict[str, float]:
    """Weights of the divergence of each noise layer in proportion to what its structures cost.

    The weight of a structure is what the network saves when it goes, with what can only go with it, divided
    by how many gates that has. The divergence of a layer has the mean over its structures. By these weights
    the pressure on a network goes where its cost is; the pressure in all stays what it is.

    Parameters
    ----------
    model : nn.Module
        A model with noise layers; it is left as it is. What is pruned counts as if it were not.
    example_inputs : Tensor, tuple, list or dict
        Inputs to follow the model on, and to count multiply-adds on.
    cost : {"macs", "parameters", "bytes"}
        What is to be saved. Multiply-adds aim at time: in convolutional networks what is rich in parameters
        is poor in work.
    training_step : callable, optional
        As of :func:`compact`.

    Returns
    -------
    dict of str to float
        By the name of the noise layer, for :func:`elbo_loss` and :class:`Pruner`; their mean over all
        structures is 1. It is 0 for structures that can't go: to press them would save nothing.

    Raises
    ------
    ValueError
        For an unknown cost, a model without noise layers, or one of which nothing can go.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import cost_weights, insert_noise
    >>> x = torch.ones(2, 8)
    >>> layers = nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)
    >>> model = insert_noise(nn.Sequential(*layers), x)
    >>> {name: round(weight, 3) for name, weight in cost_weights(model, x).items()}  # 12 against 6 each
    {'0.noise': 1.333, '2.noise': 0.667}
    """
    if cost not in COSTS:
        raise ValueError(f"cost must be one of {', '.join(COSTS)}, got {cost!r}")
    model = whole_model(model)
    layers = noise_layers(model)
    selection = all_that_may_go(model, example_inputs, training_step)
    network = selection.network
    terms = {
        "macs": lambda: mac_terms(network),
        "parameters": lambda: parameter_terms(model, network),
        "bytes": lambda: byte_terms(model, network),
    }[cost]()
    formula = Formula(network, {cost: terms})
    nothing = np.zeros(network.labels.number, dtype=np.bool_)
    whole = formula.costs(nothing)[0]
    gates_of = np.zeros(network.labels.number)
    for labels in network.gates.values():
        np.add.at(gates_of, network.labels.roots(labels), 1.0)
    saved = np.zeros(network.labels.number)
    known: dict[tuple[Any, ...], float] = {}
    holders = _layers_of(network.gates, network.labels.roots)
    for classes in find_removals(selection, selection.possible, np.zeros(network.labels.number)).classes:
        kind = (classes.size, *sorted(holders.get(root, ()) for root in classes.tolist()))
        if kind not in known:
            gone = nothing.copy()
            gone[classes] = True
            known[kind] = (whole - formula.costs(gone)[0]) / gates_of[classes].sum()
        saved[classes] = known[kind]
    means = {
        name: float(saved[network.labels.roots(network.gates[name])].mean()) if name in network.gates else 0.0
        for name in layers
    }
    total = sum(layer.num_structures for layer in layers.values())
    mean = sum(means[name] * layer.num_structures for name, layer in layers.items()) / total
    if not mean > 0:
        raise ValueError(
            "nothing of this model can go, so that no structure costs more than another; "
            "plan_insertion(model, example_inputs) tells which layers could have noise that can go"
        )
    return {name: value / mean for name, value in means.items()}


def _layers_of(gates: Mapping[str, Any], roots: Any) -> dict[int, tuple[str, ...]]:
    """Names of the noise layers that have a structure of each class."""
    found: dict[int, dict[str, None]] = {}
    for name, labels in gates.items():
        for root in roots(labels).tolist():
            found.setdefault(root, {})[name] = None
    return {root: tuple(names) for root, names in found.items()}
