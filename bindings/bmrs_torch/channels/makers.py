"""Which layer with weights makes the structures that a noise layer multiplies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from bmrs_torch.channels.weights import NORMS, activation_axis, is_weighted

if TYPE_CHECKING:
    from bmrs_torch.channels.network import FollowedNetwork

__all__ = ["has_weight", "made_by"]


def has_weight(layer: nn.Module) -> bool:
    """Whether a layer, weighted or BatchNorm, has a weight for each of its outputs."""
    return (is_weighted(layer) or isinstance(layer, NORMS)) and isinstance(
        getattr(layer, "weight", None), Tensor
    )


def made_by(network: FollowedNetwork, model: nn.Module, noise_name: str) -> str | None:
    """Name of the last layer called before a noise layer whose outputs are what that multiplies, or None."""
    if noise_name not in network.gates:
        return None
    roots = network.labels.roots
    wanted = roots(network.gates[noise_name])
    number = next(i for i, call in enumerate(network.calls) if call.name == noise_name)
    source = network.calls[number].source
    if source and has_weight(model.get_submodule(source)):
        return source
    for call in reversed(network.calls[:number]):
        layer = model.get_submodule(call.name)
        axis = activation_axis(layer)
        made = call.result[axis] if axis is not None and len(call.result) > 1 else None
        if made is not None and has_weight(layer) and np.array_equal(roots(made.labels), wanted):
            return call.name
    return None
