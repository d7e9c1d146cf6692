"""The images of a run: in the paper's three parts, resized and scaled as in the released code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Prepare = Callable[[Tensor], Tensor]

VALIDATION_SHARE = 0.2
"""Of the training set (App. B)."""

SMALL_SIZE = 32
"""To which the images for the MLP and LeNet-5 are resized."""


@dataclass(frozen=True)
class Images:
    """A data set as its files hold it.

    Attributes
    ----------
    name : str
        What it is, as results name it.
    train_images, test_images : Tensor of uint8, (N, channels, height, width)
        The images.
    train_labels, test_labels : Tensor of int64, (N,)
        Their classes.
    classes : int
        How many there are.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: int


@dataclass(frozen=True)
class Part:
    """Images and labels (N,), and what makes inputs of a network of a minibatch of them."""

    images: Tensor
    labels: Tensor
    prepare: Prepare | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, chosen: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Inputs of a network and their labels."""
        images = self.images[chosen]
        return (images if self.prepare is None else self.prepare(images)), self.labels[chosen]


@dataclass(frozen=True)
class Split:
    """The parts of a data set for one seed."""

    name: str
    train: Part
    validation: Part
    test: Part
    classes: int

    @property
    def image(self) -> tuple[int, int, int]:
        """Channels, height and width of a network's input."""
        channels, height, width = self.train.batch(slice(0, 1))[0].shape[1:]
        return channels, height, width

    def sizes(self) -> dict[str, int]:
        """Images in each part."""
        return {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)}


def small(images: Tensor) -> Tensor:
    """Resize to 32×32, in whole grey levels, and scale to (x − 127) / 255, as the released code does."""
    if images.shape[-1] != SMALL_SIZE:
        images = torch.cat([_resized(some) for some in images.split(4096)])
    return (images.float() - 127) / 255


def _resized(images: Tensor) -> Tensor:
    size = (SMALL_SIZE, SMALL_SIZE)
    return F.interpolate(images.float(), size, mode="bilinear", antialias=True).round_()


def split(images: Images, *, seed: int) -> Split:
    """Set a fifth of the training images aside by chance, for the small networks.

    Parameters
    ----------
    images : Images
        The data set, its images as networks take them.
    seed : int
        Each seed has a split of its own, as in the released code.
    """
    order = torch.randperm(len(images.train_labels), generator=torch.Generator().manual_seed(seed))
    validation, train = order.tensor_split([round(VALIDATION_SHARE * len(order))])
    return Split(
        images.name,
        Part(images.train_images[train], images.train_labels[train]),
        Part(images.train_images[validation], images.train_labels[validation]),
        Part(images.test_images, images.test_labels),
        images.classes,
    )
