"""Apply a criterion to a model: masks are set for good, and a report says what happened to each layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from bmrs_torch.checks import check_parameters
from bmrs_torch.layer import MultiplicativeNoise, noise_layers
from bmrs_torch.module_graph import ModuleGraph
from bmrs_torch.pruning.criteria import P1, P2, Criterion, make_criterion

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class LayerPruning:
    """What pruning did to one noise layer.

    Attributes
    ----------
    name : str
        Name of the noise layer.
    scores : ndarray of float64, shape (num_structures,)
        Score of every structure, of those pruned earlier too.
    kept : ndarray of bool, shape (num_structures,)
        What is kept now.
    pruned_now : int
        How many structures this call pruned.
    spared : int or None
        A structure kept only because a layer must keep one, or None.
    """

    name: str
    scores: NDArray[np.float64]
    kept: NDArray[np.bool_]
    pruned_now: int
    spared: int | None

    @property
    def num_kept(self) -> int:
        """How many structures are kept now."""
        return int(self.kept.sum())

    def __str__(self) -> str:
        spared = (
            "" if self.spared is None else f" (structure {self.spared} spared: a layer keeps at least one)"
        )
        return f"{self.name}: {self.num_kept} of {self.kept.size} kept, {self.pruned_now} pruned now{spared}"


@dataclass(frozen=True)
class PruneReport:
    """What :func:`prune` did: the rule in words, and each layer. Print it to read it."""

    rule: str
    layers: tuple[LayerPruning, ...]

    @property
    def pruned_now(self) -> int:
        """How many structures this call pruned."""
        return sum(layer.pruned_now for layer in self.layers)

    @property
    def num_kept(self) -> int:
        """How many structures are kept now."""
        return sum(layer.num_kept for layer in self.layers)

    def __str__(self) -> str:
        return "\n".join([f"{self.rule}: {self.pruned_now} pruned", *map(str, self.layers)])


def prune(
    model: nn.Module,
    criterion: str = "bmrs_n",
    *,
    tolerance: float | None = None,
    strict: bool = False,
    p1: int = P1,
    p2: int | None = P2,
    threshold: float | None = None,
    amount: float | None = None,
) -> PruneReport:
    """Set the mask of every structure that a criterion finds superfluous, for good (paper, Algorithm 1).

    Masks only: :func:`compact` makes the network smaller. A structure pruned before stays pruned, and the
    best of a layer is kept where all of it would go. Nothing is changed if any layer is in error.

    Parameters
    ----------
    model : nn.Module
        A model with noise layers.
    criterion : {"bmrs_n", "bmrs_u", "snr", "mean", "l2"}
        - ``"bmrs_n"``: ΔF_N ≥ −tolerance (Eq. 8), tolerance ½·log 2π (:data:`HALF_LOG_2PI`, which says why);
        - ``"bmrs_u"``: ΔF_U ≥ −tolerance (Eq. 10 to 13), tolerance 0;
        - ``"snr"``: E[θ]/√Var[θ] < threshold, 1;
        - ``"mean"``: E[θ] < threshold, 0.1;
        - ``"l2"``: the `amount` of each layer with the smallest norm of incoming weights (of a BatchNorm,
          |γ|).
    tolerance : float, optional
        Of the two BMRS criteria, in nats, at least 0.
    strict : bool
        Prune only where ΔF ≥ 0: short for ``tolerance=0``.
    p1, p2 : int
        ΔF_U's reduced support is θ in [2⁻ᵖ², 2⁻ᵖ¹]; ``p2=None`` reaches down to the layer's lower bound.
    threshold : float, optional
        Of ``"snr"`` and ``"mean"``.
    amount : float, optional
        Of ``"l2"``: fraction of each layer pruned in the end, in [0, 1), those pruned before counted in.

    Returns
    -------
    PruneReport

    Raises
    ------
    ValueError
        For an unknown criterion, an option it doesn't take, a value out of range, a model without noise
        layers, or a layer with parameters that are not finite (it is named).

    Examples
    --------
    >>> import torch
    >>> from bmrs_torch import MultiplicativeNoise, prune
    >>> layer = MultiplicativeNoise(3)
    >>> layer.mu.data[1], layer.log_sigma.data[1] = -18.0, 2.0
    >>> print(prune(layer))
    prune where ΔF_N ≥ -0.9189: 1 pruned
    (model): 2 of 3 kept, 1 pruned now
    """
    chosen = make_criterion(
        criterion, tolerance=tolerance, strict=strict, p1=p1, p2=p2, threshold=threshold, amount=amount
    )
    layers = noise_layers(model)
    for name, layer in layers.items():
        _check_layer(name, layer)
    feeding = _feeding_layers(model, list(layers)) if chosen.needs_weights else {}
    reports = tuple(_judge(name, layer, chosen, feeding.get(name)) for name, layer in layers.items())
    for layer, report in zip(layers.values(), reports, strict=True):
        layer.mask.mul_(torch.as_tensor(report.kept, device=layer.mask.device))
    return PruneReport(chosen.description, reports)


def _check_layer(name: str, layer: MultiplicativeNoise) -> None:
    try:
        check_parameters(layer.mu, layer.log_sigma)
    except ValueError as error:
        raise ValueError(f"noise layer {name or '(model)'!r} can't be judged: {error}") from error


def _feeding_layers(model: nn.Module, names: list[str]) -> dict[str, nn.Module]:
    graph = ModuleGraph(model)
    return {name: model.get_submodule(graph.feeding(name)) for name in names}


def _judge(
    name: str, layer: MultiplicativeNoise, criterion: Criterion, feeding: nn.Module | None
) -> LayerPruning:
    scores = np.asarray(criterion.score(layer, feeding), dtype=np.float64)
    before: NDArray[np.bool_] = layer.kept().cpu().numpy()
    after = before & ~criterion.rule(scores, before)
    spared = None
    if before.any() and not after.any():
        worth = scores if criterion.keep_largest else -scores
        spared = int(np.argmax(np.where(before, worth, -np.inf)))
        after[spared] = True
    return LayerPruning(name or "(model)", scores, after, int(before.sum() - after.sum()), spared)
