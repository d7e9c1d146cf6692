"""Pruning the trained network with its weights as they are, on a few hundred batches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.demo.data import ImageData
from benchmarks.fashion.networks import NETWORKS, with_noise
from benchmarks.fashion.training import FashionSettings, evaluate, finetune
from bmrs_torch import prune_trained

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class AfterTraining:
    """What it led to.

    Attributes
    ----------
    steps, seconds : int, float
        Of learning the noise.
    kl_weight : float
        Of the divergence.
    kept : dict of str to int
        Structures, by noise layer.
    parameters_before, parameters_after : int
        Of the whole network and the pruned one.
    accuracy_before, accuracy_pruned, accuracy_finetuned : float
        Before, right after, and after fine-tuning.
    finetuning_epochs : int
        How many those were.
    """

    steps: int
    seconds: float
    kl_weight: float
    kept: dict[str, int]
    parameters_before: int
    parameters_after: int
    accuracy_before: float
    accuracy_pruned: float
    accuracy_finetuned: float
    finetuning_epochs: int


class _Batches:
    """Minibatches in an order that is new each time they are gone through."""

    def __init__(self, data: ImageData, size: int) -> None:
        self._data, self._size = data, size

    def __iter__(self) -> Iterator[Batch]:
        for chosen in torch.randperm(len(self._data.train_labels)).split(self._size):
            yield self._data.train_images[chosen], self._data.train_labels[chosen]

    def __len__(self) -> int:
        return math.ceil(len(self._data.train_labels) / self._size)


def prune_after_training(
    unpruned: nn.Module,
    settings: FashionSettings,
    data: ImageData,
    say: Callable[[str], None],
    *,
    steps: int,
    kl_weight: float,
) -> AfterTraining:
    """Prune a trained network by :func:`prune_trained`, and fine-tune it.

    Parameters
    ----------
    unpruned : nn.Module
        The trained network; it is left as it is.
    settings : FashionSettings
        The network's name, the size of a batch, the seed and the fine-tuning.
    data : ImageData
        The images.
    say : callable
        Told what came of it.
    steps : int
        Of learning the noise.
    kl_weight : float
        Of the divergence.

    Returns
    -------
    AfterTraining
    """

    def misfit(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    torch.manual_seed(settings.seed + 2)
    noisy = NETWORKS[settings.network]()
    noisy.load_state_dict(unpruned.state_dict())
    started = time.monotonic()
    result = prune_trained(
        with_noise(noisy, settings.where),
        _Batches(data, settings.batch_size),
        misfit,
        num_samples=len(data.train_labels),
        steps=steps,
        epochs=0,
        fixed_weights=True,
        kl_weight=kl_weight,
    )
    seconds = time.monotonic() - started
    accuracy = evaluate(result.model, data)
    kept = {layer.name: layer.num_kept for layer in result.decision.layers}
    say(
        f"after training: {sum(kept.values())} structures kept in {steps} steps ({seconds:.0f} s), "
        f"{100 * accuracy:.2f} % right before fine-tuning"
    )
    finetune(result.model, settings, data, say)
    return AfterTraining(
        result.steps,
        seconds,
        kl_weight,
        kept,
        sum(p.numel() for p in unpruned.parameters()),
        sum(p.numel() for p in result.model.parameters()),
        evaluate(unpruned, data),
        accuracy,
        evaluate(result.model, data),
        settings.finetuning_epochs,
    )
