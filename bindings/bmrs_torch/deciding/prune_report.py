"""What pruning did: to each noise layer, and to what the network costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from bmrs_torch.deciding.criteria import Criterion
from bmrs_torch.deciding.spending import Spending
from bmrs_torch.layer import noise_layers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["LayerPruning", "PruneReport", "mask"]


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

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import insert_noise, prune
    >>> x = torch.ones(2, 4)
    >>> model = insert_noise(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), x)
    >>> layer = prune(model, criterion="random", amount=0.34).layers[0]
    >>> layer.name, layer.pruned_now, int(layer.kept.sum())
    ('0.noise', 1, 2)
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
    """What :func:`prune` did: the rule in words, and each layer. Print it to read it.

    Attributes
    ----------
    rule : str
        In words and numbers.
    layers : tuple of LayerPruning
        In the order of the model.
    criterion : Criterion
        What the scores mean.
    limit : float or None
        The score at which a structure goes, None where an amount decided.
    nearest : tuple of str and float, or None
        Of the structures that a rule keeps, the score nearest to it, and its layer; that of those coupled to
        it as they are judged together. None where an amount decided.
    spending : Spending or None
        Where a budget decided, what it came to.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import insert_noise, prune
    >>> x = torch.ones(2, 4)
    >>> model = insert_noise(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), x)
    >>> report = prune(model)  # nothing has been learnt, so nothing goes
    >>> report.rule, report.num_kept
    ('prune where ΔF_N ≥ -0.9189', 3)
    """

    rule: str
    layers: tuple[LayerPruning, ...]
    criterion: Criterion
    limit: float | None
    nearest: tuple[str, float] | None = None
    spending: Spending | None = None

    @property
    def pruned_now(self) -> int:
        """How many structures this call pruned."""
        return sum(layer.pruned_now for layer in self.layers)

    @property
    def num_kept(self) -> int:
        """How many structures are kept now."""
        return sum(layer.num_kept for layer in self.layers)

    def __str__(self) -> str:
        told = f"{self.rule}: {self.pruned_now} pruned"
        if self.spending is not None:
            told += f", {self._lost(self.spending.lost)}; {self.spending}"
        if not self.pruned_now and self.nearest is not None:
            told += (
                f"; the nearest is {self.criterion.symbol} = {self.nearest[1]:.4g}, in {self.nearest[0]!r}"
            )
        return "\n".join([told, *map(str, self.layers)])

    def _lost(self, lost: float) -> str:
        if self.criterion.is_evidence:
            return f"{lost:.4g} nats of evidence given up"
        return f"Σ {self.criterion.symbol} = {lost:.4g} given up"


def mask(model: nn.Module, reports: Iterable[LayerPruning]) -> None:
    """Close the gates of a model that these say aren't kept."""
    for layer, report in zip(noise_layers(model).values(), reports, strict=True):
        layer.mask.mul_(torch.as_tensor(report.kept, device=layer.mask.device))
