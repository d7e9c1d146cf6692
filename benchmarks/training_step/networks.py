"""The networks of the paper's App. C, and what the paper measured for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.training_step.large_networks import ResNet50, ViT

BATCH = 32
CLASSES = 10


@dataclass(frozen=True)
class Network:
    """A network of the paper.

    Attributes
    ----------
    title : str
        Its size and the data it is for.
    build : callable
        Makes it, without noise.
    image : tuple of int
        Shape of one image: channels, height, width.
    without, with_noise : float
        Milliseconds per training step in the paper, batch of 32, on the authors' GPU: without noise, and with
        noise (BMRS_N).
    """

    title: str
    build: Callable[[], nn.Module]
    image: tuple[int, int, int]
    without: float
    with_noise: float

    def blank_images(self) -> torch.Tensor:
        """Two images, for what only has to see how the network is made."""
        return torch.zeros(2, *self.image)

    @property
    def paper_ratio(self) -> float:
        """Step with noise over step without, in the paper."""
        return self.with_noise / self.without


def mlp(layers: int, width: int, inputs: int) -> nn.Module:
    """Stack an input layer and `layers` hidden ones, as the published code counts, and an output layer."""
    modules: list[nn.Module] = [nn.Flatten()]
    for fan_in in [inputs, *[width] * layers]:
        modules += [nn.Linear(fan_in, width), nn.ReLU()]
    return nn.Sequential(*modules, nn.Linear(width, CLASSES))


def lenet5(channels: int) -> nn.Module:
    """Stack two convolutions of 6 and 16 filters, each pooled, and three linear layers, for 32×32 images."""
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, CLASSES),
    )


GREY_28, GREY_32, COLOUR_32 = (1, 28, 28), (1, 32, 32), (3, 32, 32)  # MNIST's images, padded for LeNet-5
NETWORKS = {
    "mlp-7x100": Network("MLP 7×100, MNIST", lambda: mlp(7, 100, 784), GREY_28, 2.41, 20.02),
    "mlp-1x150": Network("MLP 1×150, Fashion-MNIST", lambda: mlp(1, 150, 784), GREY_28, 2.43, 20.14),
    "mlp-5x150": Network("MLP 5×150, CIFAR-10", lambda: mlp(5, 150, 3072), COLOUR_32, 4.61, 21.76),
    "lenet5-1": Network("LeNet-5, 1 channel, MNIST", lambda: lenet5(1), GREY_32, 2.31, 11.39),
    "lenet5-3": Network("LeNet-5, 3 channels, CIFAR-10", lambda: lenet5(3), COLOUR_32, 4.73, 13.34),
}

COLOUR_224 = (3, 224, 224)
LARGE_NETWORKS = {
    "resnet50": Network("ResNet-50, CIFAR-10", lambda: ResNet50(CLASSES), COLOUR_224, 47.78, 329.84),
    "vit-b16": Network("ViT-B/16, CIFAR-10", lambda: ViT(CLASSES), COLOUR_224, 254.50, 343.55),
}
"""For a GPU: a step of theirs takes a processor many seconds."""


def draw_batch(network: Network, seed: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw images and labels; what they show doesn't matter to the time."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand((BATCH, *network.image), generator=generator)
    labels = torch.randint(CLASSES, (BATCH,), generator=generator)
    return images.to(device), labels.to(device)
