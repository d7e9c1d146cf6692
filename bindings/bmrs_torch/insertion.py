"""Put a noise layer on every hidden structure of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from bmrs_kernels.contract import Share
from bmrs_torch.layer import MultiplicativeNoise
from bmrs_torch.module_graph import NORMS, WEIGHTED, ModuleGraph


class WithNoise(nn.Module):
    """A layer followed by its noise; what :func:`insert_noise` puts in the place of the layer.

    Parameters
    ----------
    layer : nn.Module
        The layer that was there.
    noise : MultiplicativeNoise
        The noise on its structures.
    """

    layer: nn.Module
    noise: MultiplicativeNoise

    def __init__(self, layer: nn.Module, noise: MultiplicativeNoise) -> None:
        super().__init__()
        self.layer = layer
        self.noise = noise

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer, then the noise."""
        # Not by attribute: a module looks its children up in Python, which small layers feel.
        modules: dict[str, Any] = self._modules
        result: Tensor = modules["noise"](modules["layer"](x))
        return result


@dataclass(frozen=True)
class Placement:
    """Noise on the output of layer `name`: how many structures, on which axis."""

    name: str
    num_structures: int
    axis: int


@dataclass(frozen=True)
class InsertionPlan:
    """Where :func:`insert_noise` puts noise, and which layers it passes over and why."""

    placements: tuple[Placement, ...]
    passed_over: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        lines = [f"{p.name}: noise on {p.num_structures} structures (axis {p.axis})" for p in self.placements]
        return "\n".join(lines + [f"{name}: none, {reason}" for name, reason in self.passed_over])


def plan_insertion(model: nn.Module) -> InsertionPlan:
    """Say where :func:`insert_noise` would put noise, without touching the model.

    Parameters
    ----------
    model : nn.Module
        A model that torch.fx can follow.

    Returns
    -------
    InsertionPlan
        Print it to read it.

    Raises
    ------
    ValueError
        If torch.fx can't follow the model's forward method.

    Examples
    --------
    >>> from torch import nn
    >>> from bmrs_torch import plan_insertion
    >>> print(plan_insertion(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))))
    0: noise on 3 structures (axis -1)
    2: none, it is an output layer
    """
    graph = ModuleGraph(model)
    placements, passed_over = [], []
    for name in graph.names_of(WEIGHTED):
        at = graph.following(name, NORMS) or name
        reason = _why_not(graph, name, at)
        if reason is None:
            placements.append(_placement(at, model.get_submodule(name)))
        else:
            passed_over.append((name, reason))
    return InsertionPlan(tuple(placements), tuple(passed_over))


def _why_not(graph: ModuleGraph, name: str, at: str) -> str | None:
    if not graph.is_called_once(name):
        return "it is called more than once, so its outputs would share one noise"
    if graph.is_output(name):
        return "it is an output layer"
    if graph.following(at, (MultiplicativeNoise,)) is not None:
        return "it already has noise"
    return None


def _placement(at: str, layer: nn.Module) -> Placement:
    if isinstance(layer, nn.Linear):
        return Placement(at, layer.out_features, -1)
    return Placement(at, int(layer.out_channels), 1)  # type: ignore[arg-type]


def insert_noise(
    model: nn.Module, *, share: Share = "sample", log_a: float = -20.0, log_b: float = 0.0
) -> nn.Module:
    """Put a :class:`MultiplicativeNoise` layer after every hidden Linear and Conv layer, in place.

    The noise multiplies the pre-activation of each structure, h_i = θ_i·(w_i h_{i−1}) as in Eq. 1, so it
    goes directly after the layer, before its activation; where a BatchNorm follows the layer, after that,
    since the normalisation would undo any factor before it. Output layers, after which nothing with weights
    comes, get none: there is nothing to remove from them. Insert the noise before the optimizer is made and
    after any weights are loaded: the layer `name` becomes `name.layer`, beside `name.noise`.
    :func:`bmrs_torch.fold` undoes this.

    Parameters
    ----------
    model : nn.Module
        A sequential network, or any whose forward method torch.fx can follow.
    share : {"sample", "batch", "element"}
        Over what one θ is shared; see :func:`multiplicative_noise`.
    log_a, log_b : float
        Bounds of log θ.

    Returns
    -------
    nn.Module
        The same `model`. :func:`noise_layers` lists what it has now; :func:`plan_insertion` tells
        beforehand, and why a layer is passed over.

    Raises
    ------
    ValueError
        If no noise could be inserted (the reasons are given), or the forward method can't be followed.

    Examples
    --------
    >>> from torch import nn
    >>> from bmrs_torch import insert_noise, noise_layers
    >>> model = insert_noise(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    >>> list(noise_layers(model))
    ['0.noise']
    """
    plan = plan_insertion(model)
    if not plan.placements:
        reasons = (
            "; ".join(f"{name}: {reason}" for name, reason in plan.passed_over)
            or "it calls no Linear or Conv layer"
        )
        raise ValueError(f"no noise could be inserted into {type(model).__name__}: {reasons}")
    for placement in plan.placements:
        layer = model.get_submodule(placement.name)
        noise = MultiplicativeNoise(
            placement.num_structures, axis=placement.axis, share=share, log_a=log_a, log_b=log_b
        )
        like = next(layer.parameters(), None)
        if like is not None:
            noise.to(device=like.device, dtype=like.dtype)
        replacement = WithNoise(layer, noise.train(layer.training)).train(layer.training)
        model.set_submodule(placement.name, replacement)
    return model
