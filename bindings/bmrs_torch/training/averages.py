"""Averages of a model's weights, or other models of its structure, that follow it through pruning."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bmrs_torch.layer import MultiplicativeNoise, noise_layers
from bmrs_torch.operation.arguments import described
from bmrs_torch.shipping.layout import Layout, check_fit, resize
from bmrs_torch.surgery.compact import compact, same_part
from bmrs_torch.surgery.fold import fold
from bmrs_torch.surgery.replacement import become

__all__ = ["Averages", "unsaved_buffers"]


class Averages:
    """Models of a model's structure: their masks are the model's, and they become smaller when it does.

    Parameters
    ----------
    model : nn.Module
        With noise layers.
    others : sequence of nn.Module
        Copies of it, or what wraps one as its `module`, as ``torch.optim.swa_utils.AveragedModel`` does.

    Raises
    ------
    TypeError
        For anything else than modules in a sequence.
    ValueError
        If one isn't of the model's structure, or is the model itself.
    """

    def __init__(self, model: nn.Module, others: Sequence[nn.Module]) -> None:
        if not _are_modules(others):
            raise TypeError(f"others must be a sequence of modules, such as [ema], got {described(others)}")
        self.parts = [same_part(model, other) for other in others]
        if any(part is model for part in self.parts):
            raise ValueError(
                "others must be copies of the model, such as AveragedModel(model), got the model itself"
            )

    @torch.no_grad()
    def take_masks(self, model: nn.Module) -> None:
        """Close in all of them what is closed in the model."""
        masks = {name: layer.mask for name, layer in noise_layers(model).items()}
        for part in self.parts:
            for name, layer in noise_layers(part).items():
                layer.mask.copy_(masks[name])

    def finish(self, model: nn.Module, example_inputs: Any, **surgery: Any) -> nn.Module:
        """The model's smaller plain network; the others become theirs, once all of it went well.

        `surgery` is what :func:`compact` and :func:`fold` take: `training_step`, `unreached`.
        """
        if any(not _has_noise(part) for part in self.parts):
            raise ValueError(
                "the models given as others are finished already, plain and small: give the pruner copies "
                "of the model as it is, if it is to be finished again"
            )
        self.take_masks(model)
        parts = [copy.deepcopy(part) for part in self.parts]
        smaller = fold(compact(model, example_inputs, others=parts, **surgery), example_inputs, **surgery)
        plain = [fold(part, example_inputs, **surgery) for part in parts]
        for part, other in zip(self.parts, plain, strict=True):
            become(part, other)
        return smaller

    def unsaved_buffers(self) -> list[dict[str, Tensor]]:
        """Of each, the buffers that its own state doesn't hold."""
        return [
            {name: buffer.clone() for name, buffer in unsaved_buffers(part).items()} for part in self.parts
        ]

    def check_fit(self, layout: Layout) -> None:
        """Raise LayoutError unless all of them can take on these shapes."""
        for part in self.parts:
            check_fit(part, layout)

    def resize(self, layout: Layout, buffers: Sequence[Mapping[str, Tensor]]) -> None:
        """Let all of them take on these shapes, and these buffers."""
        for number, part in enumerate(self.parts):
            resize(part, layout)
            for name, value in buffers[number].items() if number < len(buffers) else ():
                part.get_buffer(name).copy_(value)


def _are_modules(others: object) -> bool:
    if isinstance(others, nn.Module) or not isinstance(others, Sequence):  # a Sequential is both
        return False
    return all(isinstance(other, nn.Module) for other in others)


def _has_noise(model: nn.Module) -> bool:
    return any(isinstance(module, MultiplicativeNoise) for module in model.modules())


def unsaved_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Buffers of which the model's own state knows nothing, though surgery may have cut them."""
    saved = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name not in saved}
