"""Noise around a layer: what stands in the layer's place while a network has noise."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from bmrs_torch.layer import MultiplicativeNoise


class Gate(nn.Module):
    """A layer and its noise. What is asked of it and is not its own, the layer answers: widths, weights.

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

    def __getattr__(self, name: str) -> Any:
        # Forward methods ask layers for more than an output: `self.wo.weight.dtype`.
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "layer":
                raise
            return getattr(self.layer, name)


def keep_from_fast_path(model: nn.Module) -> None:
    """Make torch's transformer layers call their linear layers, of which some have gates.

    In evaluation they take the layers' weights into one fused operation, which would leave out the noise
    without a word; without a known activation they don't.
    """
    for layer in model.modules():
        if isinstance(layer, nn.TransformerEncoderLayer) and any(
            isinstance(m, Gate) for m in layer.modules()
        ):
            layer.activation_relu_or_gelu = 0


def allow_fast_path(model: nn.Module) -> None:
    """Let torch's transformer layers use their fused operation again, once they have no gates."""
    for layer in model.modules():
        if isinstance(layer, nn.TransformerEncoderLayer) and not any(
            isinstance(m, (Gate, MultiplicativeNoise)) for m in layer.modules()
        ):
            kinds = {1: (nn.ReLU, F.relu), 2: (nn.GELU, F.gelu)}
            layer.activation_relu_or_gelu = next(
                (
                    number
                    for number, (kind, function) in kinds.items()
                    if layer.activation is function or type(layer.activation) is kind
                ),
                0,
            )


class WithNoise(Gate):
    """A layer followed by its noise. Of several outputs in a tuple the first gets it."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Apply the layer, then the noise."""
        # Not by attribute: a module looks its children up in Python, which small layers feel.
        modules: dict[str, Any] = self._modules
        result = modules["layer"](*args, **kwargs)
        if isinstance(result, tuple):
            return (modules["noise"](result[0]), *result[1:])
        return modules["noise"](result)


class NoiseBefore(Gate):
    """A layer whose input gets noise."""

    def forward(self, x: Tensor) -> Any:
        """Apply the noise, then the layer."""
        return self.layer(self.noise(x))


class BlockNoiseBefore(Gate):
    """A layer whose input consists of equal blocks on its last axis, as heads are, each with noise."""

    def forward(self, x: Tensor) -> Any:
        """Apply the noise to each block, then the layer."""
        blocks = x.unflatten(-1, (self.noise.num_structures, -1))
        return self.layer(self.noise(blocks).flatten(-2))
