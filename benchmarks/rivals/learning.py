"""Training that all methods share, one cycle of Adam with or without a teacher; and how much is right."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.rivals.images import Part

TEMPERATURE, TAUGHT_SHARE = 2.0, 0.5
_WARM_UP = 0.1
_EVALUATION_BATCH = 1000


def train(
    model: nn.Module,
    part: Part,
    *,
    epochs: int,
    lr: float,
    batch: int,
    channels_last: bool,
    teacher: Tensor | None = None,
) -> nn.Module:
    """Train a network in place, the learning rate rising for a tenth of the steps and then falling to 0.

    Parameters
    ----------
    model : nn.Module
        The network.
    part : Part
        What it is trained on.
    epochs : int
        How many; 0 leaves it as it is.
    lr : float
        The highest learning rate.
    batch : int
        Images in a minibatch.
    channels_last : bool
        The memory format.
    teacher : Tensor, optional
        Logits of another network for each image, (N, classes): half of the loss is the distance to them.

    Returns
    -------
    nn.Module
        The same network.
    """
    memory = torch.channels_last if channels_last else torch.contiguous_format
    model.to(memory_format=memory).train()  # type: ignore[call-overload]
    images = part.images.contiguous(memory_format=memory)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    steps = epochs * math.ceil(len(part.labels) / batch)
    if not steps:
        return model
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=steps, pct_start=_WARM_UP, cycle_momentum=False
    )
    for _ in range(epochs):
        for chosen in torch.randperm(len(part.labels)).split(batch):
            logits = model(images[chosen])
            taught = None if teacher is None else teacher[chosen]
            optimizer.zero_grad()
            misfit(logits, part.labels[chosen], taught).backward()
            optimizer.step()
            schedule.step()
    return model


def misfit(logits: Tensor, labels: Tensor, teacher: Tensor | None = None) -> Tensor:
    """Cross-entropy; with a teacher, half of it and half the distance to its logits (Hinton et al., 2015)."""
    own = F.cross_entropy(logits, labels)
    if teacher is None:
        return own
    soft, target = (F.log_softmax(values / TEMPERATURE, 1) for values in (logits, teacher))
    distance = F.kl_div(soft, target, log_target=True, reduction="batchmean")
    return (1 - TAUGHT_SHARE) * own + TAUGHT_SHARE * TEMPERATURE**2 * distance


@torch.no_grad()
def answers(model: nn.Module, images: Tensor) -> Tensor:
    """Logits in evaluation mode."""
    model.eval()
    return torch.cat([model(some) for some in images.split(_EVALUATION_BATCH)])


def accuracy(model: nn.Module, part: Part) -> float:
    """Share of the images that a network gets right."""
    return float((answers(model, part.images).argmax(1) == part.labels).double().mean())
