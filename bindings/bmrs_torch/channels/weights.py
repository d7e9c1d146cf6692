"""Layers with weights: on which axes of weights and activations their structures lie."""

from __future__ import annotations

from torch import Tensor, nn

from bmrs_torch.channels.behaviour import linear_axes, scales_outputs

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
NORMS = (*BATCH_NORMS, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
"""Those of channels on the second axis, with a weight for each."""

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


KNOWN = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)
"""Layers with weights whose classes tell what they do, unless a subclass has a forward method of its own."""


def is_weighted(module: nn.Module) -> bool:
    """Whether the layer makes each output structure of a weighted sum of its inputs."""
    return isinstance(module, KNOWN) or _own_linear(module) is not None


def _own_linear(module: nn.Module) -> tuple[int, int] | None:
    """Axes of the weight of a linear layer of one's own, of GPT-2's ``Conv1D`` for one."""
    return None if isinstance(module, (*KNOWN, *NORMS)) else linear_axes(module)


def is_plain(module: nn.Module) -> bool:
    """Whether a factor on a structure's output can move into the layer's weights.

    It can't in a subclass that does more than its class: that standardises its weights, or applies an
    activation of its own, unless that is positively homogeneous, f(s·x) = s·f(x).
    """
    if isinstance(module, NORMS):
        own = any(type(module).forward is kind.forward for kind in NORMS)
        return own or (any(module.children()) and all(isinstance(m, HOMOGENEOUS) for m in module.children()))
    if any(type(module).forward is kind.forward for kind in KNOWN):
        return True
    axis = activation_axis(module)
    outputs, _ = weight_axes(module)
    if axis is None or not is_weighted(module) or (outputs == 1 and getattr(module, "groups", 1) > 1):
        return False
    return scales_outputs(module, _input_shape(module), axis, outputs)


def _input_shape(module: nn.Module) -> tuple[int, ...]:
    """Of the smallest inputs that give a layer several outputs."""
    if isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)):
        sizes = zip(module.kernel_size, module.dilation, module.stride, strict=True)
        return (1, module.in_channels, *(d * (k - 1) + 1 + s for k, d, s in sizes))
    weight, inputs = module.weight, weight_axes(module)[1]
    assert isinstance(weight, Tensor)
    assert inputs is not None
    return 1, 2, weight.shape[inputs]


def activation_axis(module: nn.Module) -> int | None:
    """Axis of a layer's input and output that counts structures, None for other kinds of layers."""
    if isinstance(module, (*CONVOLUTIONS, *TRANSPOSED, *NORMS)):
        return 1
    return -1 if is_weighted(module) else None


def weight_axes(module: nn.Module) -> tuple[int, int | None]:
    """Axes of a layer's weight for its outputs and for its inputs."""
    if isinstance(module, NORMS):
        return 0, None
    if isinstance(module, TRANSPOSED):
        return 1, 0
    return _own_linear(module) or (0, 1)
