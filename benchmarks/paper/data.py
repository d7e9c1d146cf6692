"""The images of a run: in the paper's three parts, resized and scaled as in the released code."""

from __future__ import annotations

import math
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

LARGE_SIZE = 224
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


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
    """Images and labels (N,), and what makes inputs of a network of a minibatch, if they aren't yet."""

    images: Tensor
    labels: Tensor
    prepare: Prepare | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, chosen: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Inputs of a network and their labels."""
        images = self.images[chosen]
        return (images if self.prepare is None else self.prepare(images)), self.labels[chosen]

    def first(self, number: int) -> Part:
        """The first images of it."""
        return Part(self.images[:number], self.labels[:number], self.prepare)


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

    def first(self, number: int) -> Split:
        """The first images of each part, for a trial."""
        train, validation, test = (part.first(number) for part in (self.train, self.validation, self.test))
        return Split(self.name, train, validation, test, self.classes)

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


def split(
    images: Images, *, seed: int, training: Prepare | None = None, judging: Prepare | None = None
) -> Split:
    """Set a fifth of the training images aside by chance.

    Parameters
    ----------
    images : Images
        The data set, its images as networks take them.
    seed : int
        Each seed has a split of its own, as in the released code.
    training, judging : callable, optional
        What makes inputs of a minibatch, in training and else.
    """
    order = torch.randperm(len(images.train_labels), generator=torch.Generator().manual_seed(seed))
    validation, train = order.tensor_split([round(VALIDATION_SHARE * len(order))])
    return Split(
        images.name,
        Part(images.train_images[train], images.train_labels[train], training),
        Part(images.train_images[validation], images.train_labels[validation], judging),
        Part(images.test_images, images.test_labels, judging),
        images.classes,
    )


@dataclass(frozen=True)
class Normalised:
    """Resize a minibatch (N, 3, height, width), cut 224×224 out of its middle and normalise it.

    Attributes
    ----------
    resized : int
        Height and width before.
    mean, deviation : tuple of float
        Of each colour, of images between 0 and 1.
    """

    resized: int
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]

    def __call__(self, images: Tensor) -> Tensor:
        """Make inputs of images of uint8."""
        size = (self.resized, self.resized)
        large = F.interpolate(images.float(), size, mode="bilinear", antialias=True)
        margin = (self.resized - LARGE_SIZE) // 2
        return self.scaled(large[..., margin : margin + LARGE_SIZE, margin : margin + LARGE_SIZE])

    def scaled(self, images: Tensor) -> Tensor:
        """Normalise images of 0 to 255."""
        mean, deviation = (images.new_tensor(v)[:, None, None] for v in (self.mean, self.deviation))
        return (images / 255 - mean) / deviation


@dataclass(frozen=True)
class Augmented(Normalised):
    """Cut a part of 8 to 100 % out of each image, of 3:4 to 4:3, enlarge it to 224×224, flip half of them.

    As torchvision's RandomResizedCrop and RandomHorizontalFlip; what would reach over the edge is moved in.
    """

    def __call__(self, images: Tensor) -> Tensor:
        """Make inputs of images of uint8; torch's generator decides."""
        number = len(images)
        area = torch.empty(number).uniform_(0.08, 1)
        ratio = torch.empty(number).uniform_(math.log(3 / 4), math.log(4 / 3)).exp()
        width, height = ((area * r).sqrt().clamp(max=1) for r in (ratio, 1 / ratio))
        flipped = 1 - 2 * torch.randint(2, (number,))
        x, y = ((2 * torch.rand(number) - 1) * (1 - side) for side in (width, height))
        zero = torch.zeros(number)
        rows = (torch.stack([width * flipped, zero, x], 1), torch.stack([zero, height, y], 1))
        size = [number, images.shape[1], LARGE_SIZE, LARGE_SIZE]
        grid = F.affine_grid(torch.stack(rows, 1), size, align_corners=False)
        cut = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
        return self.scaled(cut)


PREPARED: dict[str, tuple[Prepare, Prepare]] = {
    "resnet50": (Normalised(256, IMAGENET_MEAN, IMAGENET_DEVIATION),) * 2,
    "vit": (Augmented(LARGE_SIZE, HALF, HALF), Normalised(LARGE_SIZE, HALF, HALF)),
}
"""What makes inputs of the large networks, in training and else, as in the released code."""


def images_for(network: str, images: Images, *, seed: int) -> Split:
    """The parts of a data set for a network; the small ones get images that are resized already."""
    training, judging = PREPARED.get(network, (None, None))
    return split(images, seed=seed, training=training, judging=judging)
