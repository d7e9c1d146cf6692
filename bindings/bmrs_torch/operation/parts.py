"""The divergence of noise whose parameters are divided among processes: each takes that of its part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from bmrs_torch.distributed.sharding import is_sharded, own_part, summed_over_parts
from bmrs_torch.operation.divergence import Divergence, divergence_of

__all__ = ["divergence_of_parts"]

T = TypeVar("T")


def divergence_of_parts(
    names: Sequence[str],
    parameters: Sequence[tuple[Tensor, Tensor, Tensor]],
    bounds: Sequence[tuple[float, float]],
) -> Divergence:
    """As :func:`divergence_of`, where mu and log sigma of some layers are DTensors: a collective.

    Every structure counts once: each process sums over those that it holds, and the sums are added. The
    gradient stays with the part that it is of. Layers that are whole on each process, as those are whose
    parameters are gathered for a pass, are taken by each as they are.

    Parameters
    ----------
    names, parameters, bounds
        As of :func:`divergence_of`; masks are whole.
    """
    divided = [number for number, (mu, *_) in enumerate(parameters) if is_sharded(mu)]
    whole = [number for number in range(len(names)) if number not in set(divided)]
    values: dict[int, Tensor] = {}
    if whole:
        found = divergence_of(_chosen(names, whole), _chosen(parameters, whole), _chosen(bounds, whole))
        values |= dict(zip(whole, found.values.unbind(), strict=True))
    first = parameters[divided[0]][0]
    assert is_sharded(first)
    parts = []
    for number in divided:
        mu, log_sigma, mask = parameters[number]
        assert is_sharded(mu)
        assert is_sharded(log_sigma)
        parts.append((mu.to_local(), log_sigma.to_local(), own_part(mask, mu)))
    held = [place for place, (mu, *_) in enumerate(parts) if mu.numel()]
    sums = torch.zeros(len(divided), dtype=torch.float64, device=parts[0][0].device)
    if held:
        of_held = [divided[place] for place in held]
        found = divergence_of(_chosen(names, of_held), _chosen(parts, held), _chosen(bounds, of_held))
        sums = sums.index_put((torch.tensor(held, device=sums.device),), found.values)
    values |= dict(zip(divided, summed_over_parts(sums, first).unbind(), strict=True))
    kept = [mask.count_nonzero() for _, _, mask in parameters]
    by_layer = torch.stack([values[number] for number in range(len(names))])
    return Divergence(by_layer.sum(), by_layer, torch.stack(kept))


def _chosen(values: Sequence[T], numbers: Sequence[int]) -> list[T]:
    return [values[number] for number in numbers]
