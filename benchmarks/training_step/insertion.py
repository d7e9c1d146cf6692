"""Where the noise goes: after hidden layers; in a transformer on the output of each block (paper, App. C)."""

from __future__ import annotations

from torch import Tensor, nn

from benchmarks.training_step.large_networks import TransformerBlock, ViT
from bmrs_torch import MultiplicativeNoise, Placement, insert_noise, plan_insertion

__all__ = ["insert_ours", "placements"]


def placements(model: nn.Module, images: Tensor) -> tuple[Placement, ...]:
    """The layers that get noise, with their structures; the model is run on the images."""
    if not isinstance(model, ViT):
        return tuple(plan_insertion(model, images, where="hidden").placements)
    return tuple(
        Placement(name, block.out.out_features, 2)
        for name, block in model.named_modules()
        if isinstance(block, TransformerBlock)
    )


def insert_ours(model: nn.Module, images: Tensor) -> nn.Module:
    """Put the package's noise there."""
    if not isinstance(model, ViT):
        return insert_noise(model, images, where="hidden")
    for placement in placements(model, images):
        noise = MultiplicativeNoise(placement.num_structures, axis=placement.axis)
        model.set_submodule(placement.name, nn.Sequential(model.get_submodule(placement.name), noise))
    return model
