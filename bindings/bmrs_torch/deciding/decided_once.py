"""A decision about a model that several processes train: taken once, on rank 0, and carried out on all."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from bmrs_torch.deciding.prune_report import PruneReport, mask
from bmrs_torch.distributed.ranks import Ranks
from bmrs_torch.layer import noise_layers

__all__ = ["decided_once"]


def decided_once(model: nn.Module, ranks: Ranks, decide: Callable[[nn.Module], PruneReport]) -> PruneReport:
    """Decide on rank 0, and mask on all.

    Parameters
    ----------
    model : nn.Module
        With noise layers, without what wraps it.
    ranks : Ranks
        That train it.
    decide : callable
        Sets masks of the model that it is given, and reports.

    Raises
    ------
    RanksDisagreeError
        If the noise, or a mask, isn't the same on all ranks; it is named, and nothing is pruned.
    Exception
        What deciding raised on rank 0, on all ranks.
    """
    if not ranks.are_several:
        return decide(model)
    ranks.check_alike(
        _noise(model),
        "what is pruned is decided once for all ranks, whose noise has come apart. Train them through the "
        "DistributedDataParallel that averages their gradients, with the same steps of the optimizer on each",
    )
    report = ranks.of_first(lambda: decide(model))
    if not ranks.is_first:
        mask(model, report.layers)
    return report


def _noise(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and masks of all noise, by their names in the model."""
    return {
        f"{name}.{key}".lstrip("."): tensor
        for name, layer in noise_layers(model).items()
        for key, tensor in (("mu", layer.mu), ("log_sigma", layer.log_sigma), ("mask", layer.mask))
    }
