"""The images in three parts: to train on, to choose settings by, and the test set."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.demo.data import ImageData

FASHION_MNIST = "Fashion-MNIST"
_FASHION_LABELS = "657fbd221bfc9f41"


@dataclass(frozen=True)
class Part:
    """Images (N, 1, 28, 28), float32, and labels (N,), int64."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Split:
    """The parts, and the name of the data."""

    name: str
    train: Part
    validation: Part
    test: Part


def split(data: ImageData, *, seed: int, share: int) -> Split:
    """Set a part of the training set aside.

    Parameters
    ----------
    data : ImageData
        The images.
    seed : int
        Of the order, whose first part is set aside.
    share : int
        One image in how many.
    """
    order = torch.randperm(len(data.train_labels), generator=torch.Generator().manual_seed(seed))
    validation, train = order.tensor_split([len(order) // share])
    return Split(
        _name(data),
        Part(data.train_images[train], data.train_labels[train]),
        Part(data.train_images[validation], data.train_labels[validation]),
        Part(data.test_images, data.test_labels),
    )


def _name(data: ImageData) -> str:
    """The name of the data, whatever folder they came from: runs are known by it."""
    labels = hashlib.sha256(data.train_labels.byte().numpy().tobytes()).hexdigest()
    return FASHION_MNIST if labels.startswith(_FASHION_LABELS) else data.name
