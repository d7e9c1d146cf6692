"""A decision about a model that several processes train: taken once, on rank 0, and carried out on all."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from bmrs_torch.deciding.noise_alone import noise_alone
from bmrs_torch.deciding.prune_report import PruneReport, mask
from bmrs_torch.distributed.ranks import Ranks
from bmrs_torch.distributed.sharding import is_sharded
from bmrs_torch.layer import noise_layers
from bmrs_torch.wrapping import whole

__all__ = ["decided_once"]


def decided_once(
    model: nn.Module,
    ranks: Ranks,
    decide: Callable[[nn.Module], PruneReport],
    *,
    by_noise: bool = False,
) -> PruneReport:
    """Decide on rank 0, and mask on all.

    Parameters
    ----------
    model : nn.Module
        With noise layers, without what wraps it.
    ranks : Ranks
        That train it.
    decide : callable
        Sets masks of the model that it is given, and reports. Of a model divided by ``fully_shard`` it is
        given a plain copy.
    by_noise : bool
        Whether the noise, by its names, is all that it needs of the model.

    Raises
    ------
    RanksDisagreeError
        If the noise, or a mask, isn't the same on all ranks; it is named, and nothing is pruned.
    Exception
        What deciding raised on rank 0, on all ranks.
    """
    copy = noise_alone(model) if by_noise else whole(model)
    ranks.check_alike(
        _noise(model),
        "what is pruned is decided once for all ranks, whose noise has come apart. Train them through the "
        "DistributedDataParallel that averages their gradients, with the same steps of the optimizer on each",
    )
    report = ranks.of_first(lambda: decide(copy))
    if copy is not model or not ranks.is_first:
        mask(model, report.layers)
    return report


def _noise(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and masks of all noise, by their names in the model, but for those that are divided."""
    found = {
        f"{name}.{key}".lstrip("."): tensor
        for name, layer in noise_layers(model).items()
        for key, tensor in (("mu", layer.mu), ("log_sigma", layer.log_sigma), ("mask", layer.mask))
    }
    return {name: tensor for name, tensor in found.items() if not is_sharded(tensor)}
