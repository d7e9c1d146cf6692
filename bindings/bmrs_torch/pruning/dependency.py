"""The one place where torch-pruning is used: its dependency graph, taught about our noise layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from bmrs_torch.layer import MultiplicativeNoise, noise_layers


class _NoisePruner(tp.pruner.function.BasePruningFunc):  # type: ignore[misc]
    """Removes structures from a noise layer; in and out are one, which couples its two sides."""

    def prune_out_channels(self, layer: MultiplicativeNoise, idxs: Sequence[int]) -> MultiplicativeNoise:
        keep = torch.ones(layer.num_structures, dtype=torch.bool, device=layer.mu.device)
        keep[list(idxs)] = False
        layer.mu = nn.Parameter(layer.mu.detach()[keep])
        layer.log_sigma = nn.Parameter(layer.log_sigma.detach()[keep])
        layer.mask = layer.mask[keep]
        return layer

    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer: MultiplicativeNoise) -> int:
        return layer.num_structures

    get_in_channels = get_out_channels


@dataclass(frozen=True)
class Coupled:
    """A layer coupled to a noise layer, and which of its channels belong to which structure."""

    layer: nn.Module
    produces: bool
    structures: Sequence[int]
    channels: Sequence[int]

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Each structure with a channel of this layer that belongs to it."""
        return zip(self.structures, self.channels, strict=True)


class DependencyGraph:
    """What has to shrink with a structure of a noise layer.

    Parameters
    ----------
    model : nn.Module
        Traced on `example_inputs`, in evaluation mode and with all its gradients enabled; both are left so.
    example_inputs : Tensor, tuple, list or dict
        One input, positional inputs, or keyword inputs.
    """

    def __init__(self, model: nn.Module, example_inputs: Any) -> None:
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        self._pruner = _NoisePruner()
        self._graph = tp.DependencyGraph()
        # torch-pruning looks a layer's pruner up by its exact class, so that every subclass has to be told
        # to it.
        for kind in {type(layer) for layer in noise_layers(model).values()}:
            self._graph.register_customized_layer(kind, self._pruner)
        with torch.enable_grad():
            self._graph.build_dependency(model, example_inputs, forward_fn=call, verbose=False)

    def traced(self, noise: MultiplicativeNoise) -> bool:
        """Whether the trace came through this layer."""
        return noise in self._graph.module2node

    def coupled(self, noise: MultiplicativeNoise) -> list[Coupled]:
        """List everything coupled to the structures of a noise layer, itself included."""
        group = self._group(noise, range(noise.num_structures))
        return [
            Coupled(
                dep.target.module,
                self._graph.is_out_channel_pruning_fn(dep.handler),
                group[i].root_idxs,
                group[i].idxs,
            )
            for i, (dep, _) in enumerate(group)
            if isinstance(dep.target.module, nn.Module)
        ]

    def remove(self, noise: MultiplicativeNoise, structures: Sequence[int]) -> None:
        """Remove structures of a noise layer from it and from everything coupled to it."""
        self._group(noise, structures).prune(record_history=False)

    def _group(self, noise: MultiplicativeNoise, structures: Sequence[int]) -> Any:
        return self._graph.get_pruning_group(noise, self._pruner.prune_out_channels, list(structures))


def call(model: nn.Module, example_inputs: Any) -> Any:
    """Call a model on a tensor, a tuple or list of positional inputs, or a dict of keyword inputs."""
    if isinstance(example_inputs, Tensor):
        return model(example_inputs)
    if isinstance(example_inputs, dict):
        return model(**example_inputs)
    if isinstance(example_inputs, (tuple, list)):
        return model(*example_inputs)
    raise TypeError(
        "example_inputs must be a tensor, a tuple or list of positional inputs or a dict of keyword inputs, "
        f"got {type(example_inputs).__name__}"
    )
