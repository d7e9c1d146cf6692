"""Layers with weights: on which axes of weights and activations their structures lie."""

from __future__ import annotations

from torch import Tensor, nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

# f(s·x) = s·f(x) for s ≥ 0, structure by structure: a factor may move from one side to the other.
HOMOGENEOUS = (
    nn.Identity,
    nn.ReLU,
    nn.LeakyReLU,
    nn.Dropout,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
)


def is_transposed_linear(module: nn.Module) -> bool:
    """Whether it is a linear layer whose weight is stored inputs first: GPT-2's ``Conv1D``."""
    weight = getattr(module, "weight", None)
    return type(module).__name__ == "Conv1D" and isinstance(weight, Tensor) and weight.ndim == 2


def is_weighted(module: nn.Module) -> bool:
    """Whether the layer makes each output structure of a weighted sum of its inputs."""
    return isinstance(module, (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)) or is_transposed_linear(module)


def is_plain(module: nn.Module) -> bool:
    """Whether a factor on a structure's output can move into the layer's weights.

    It can't in a subclass that does more than its class: that standardises its weights, or applies an
    activation of its own, unless that is positively homogeneous, f(s·x) = s·f(x).
    """
    if is_transposed_linear(module):
        return True
    if isinstance(module, NORMS):
        own = type(module).forward in (nn.BatchNorm2d.forward, nn.SyncBatchNorm.forward)
        return own or (any(module.children()) and all(isinstance(m, HOMOGENEOUS) for m in module.children()))
    return is_weighted(module) and any(
        type(module).forward is kind.forward for kind in (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)
    )


def activation_axis(module: nn.Module) -> int | None:
    """Axis of a layer's input and output that counts structures, None for other kinds of layers."""
    if isinstance(module, nn.Linear) or is_transposed_linear(module):
        return -1
    if isinstance(module, (*CONVOLUTIONS, *TRANSPOSED, *NORMS)):
        return 1
    return None


def weight_axes(module: nn.Module) -> tuple[int, int | None]:
    """Axes of a layer's weight for its outputs and for its inputs."""
    if is_transposed_linear(module) or isinstance(module, TRANSPOSED):
        return 1, 0
    return 0, None if isinstance(module, NORMS) else 1
