"""BMRS as a rival of others: the one place where this benchmark calls it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from benchmarks.rivals.errors import PruningError
from benchmarks.rivals.images import Part
from benchmarks.rivals.learning import misfit
from bmrs_torch import Budget, BudgetError, insert_noise, prune_trained

PROCEDURE = (
    "prune_trained with the budget, the further epochs and the learning rate, all else as it is by default: "
    "one cycle of Adam, in its first part, an epoch but at most a quarter, with noise and pruned little by "
    "little by ΔF for what is saved, dearer by (1 + 2 / left)^8 as few structures are left in a layer"
)
"""What is done. It is part of the key of each run: whoever changes the one changes the other."""

Batch = tuple[Tensor, Tensor, Tensor | None]


class Batches:
    """Minibatches in an order that is new each time they are gone through, with what the teacher says."""

    def __init__(self, images: Tensor, labels: Tensor, teacher: Tensor | None, size: int) -> None:
        self._images, self._labels, self._teacher, self._size = images, labels, teacher, size

    def __len__(self) -> int:
        return math.ceil(len(self._labels) / self._size)

    def __iter__(self) -> Iterator[Batch]:
        for chosen in torch.randperm(len(self._labels)).split(self._size):
            taught = None if self._teacher is None else self._teacher[chosen]
            yield self._images[chosen], self._labels[chosen], taught


def smaller(
    model: nn.Module,
    part: Part,
    *,
    macs: float,
    epochs: int,
    lr: float,
    batch: int,
    where: str,
    channels_last: bool,
    teacher: Tensor | None,
) -> nn.Module:
    """Make a trained network smaller, and train it further.

    Parameters
    ----------
    model : nn.Module
        The trained network; it is left as it is.
    part : Part
        The training images.
    macs : float
        The budget: that part of the network's multiply-adds.
    epochs : int
        Of all that is done here together.
    lr : float
        The highest learning rate.
    batch : int
        Images in a minibatch.
    where : str
        As for :func:`insert_noise`.
    channels_last : bool
        Whether it is trained in that format.
    teacher : Tensor, optional
        Logits of the network as it was for each training image, (N, classes), from which it learns, too.

    Returns
    -------
    nn.Module
        The smaller network, in plain layers.

    Raises
    ------
    PruningError
        If the budget can't be met.
    """
    memory = torch.channels_last if channels_last else torch.contiguous_format
    images = part.images.contiguous(memory_format=memory)
    noisy = insert_noise(copy.deepcopy(model), part.images[:2], where=where)
    try:
        return prune_trained(
            noisy.to(memory_format=memory),  # type: ignore[call-overload]
            Batches(images, part.labels, teacher, batch),
            misfit_of,
            budget=Budget(macs=macs),
            epochs=epochs,
            num_samples=len(part.labels),
            lr=lr,
        ).model
    except BudgetError as error:
        raise PruningError(f"BMRS: {error}") from error


def misfit_of(model: nn.Module, batch: Batch) -> Tensor:
    """The loss of a minibatch, of its labels or also of what the teacher says."""
    images, labels, teacher = batch
    return misfit(model(images), labels, teacher)
