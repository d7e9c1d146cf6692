"""The phases: plain training, training with noise and pruning by evidence, fine-tuning without noise."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.demo.data import ImageData
from benchmarks.fashion.networks import NETWORKS, with_noise
from bmrs_torch import Pruner, PruneReport, compact, fold, parameter_groups

_EXAMPLES = 64
_EVALUATION_BATCH = 1000
_ONE_CYCLE_START = 0.1


@dataclass(frozen=True)
class FashionSettings:
    """What decides the result, data aside."""

    network: str
    epochs: int
    pruning_epochs: int
    finetuning_epochs: int
    kl_weight: float
    where: str
    lr: float = 2e-3
    finetuning_lr: float = 5e-4
    batch_size: int = 128
    seed: int = 0


@dataclass
class Course:
    """What a run led to: the networks, and what happened on the way."""

    unpruned: nn.Module
    masked: nn.Module
    shrunk: nn.Module
    pruned: nn.Module
    difference: float
    epochs: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[PruneReport] = field(default_factory=list)


Say = Callable[[str], None]


def train_unpruned(
    settings: FashionSettings, data: ImageData, say: Say
) -> tuple[nn.Module, list[dict[str, Any]]]:
    """Train the network plainly; return it and a record of each epoch."""
    torch.manual_seed(settings.seed)
    model = NETWORKS[settings.network]()
    optimizer = torch.optim.Adam(model.parameters())
    epochs = [
        _finish_epoch("training", model, data, seconds, say)
        for seconds in _train(model, optimizer, data, settings, settings.epochs, settings.lr)
    ]
    return model, epochs


def prune_by_evidence(unpruned: nn.Module, settings: FashionSettings, data: ImageData, say: Say) -> Course:
    """Go on with noise from a trained network, prune after every epoch, shrink, fold and fine-tune.

    Parameters
    ----------
    unpruned : nn.Module
        The trained network; it becomes the noisy one.
    settings : FashionSettings
        How long and how strongly.
    data : ImageData
        The images.
    say : callable
        Told what happened after each epoch.

    Returns
    -------
    Course
    """
    torch.manual_seed(settings.seed + 1)
    original = NETWORKS[settings.network]()
    original.load_state_dict(unpruned.state_dict())
    model = with_noise(unpruned, settings.where)
    optimizer = torch.optim.Adam(parameter_groups(model, settings.lr / 2))
    pruner = Pruner(
        model, optimizer, num_samples=len(data.train_labels), criterion="bmrs_n", kl_weight=settings.kl_weight
    )
    course = Course(original, model, model, model, math.nan)
    for _ in range(settings.pruning_epochs):
        seconds = _train_epoch(model, optimizer, data, settings.batch_size, pruner.loss)
        report = pruner.end_epoch()
        assert report is not None
        course.decisions.append(report)
        kept = {layer.name: layer.num_kept for layer in report.layers}
        course.epochs.append(_finish_epoch("pruning", model, data, seconds, say, kept))
    examples = data.train_images[:_EXAMPLES]
    course.shrunk = compact(model, examples)
    course.difference = _relative_difference(model, course.shrunk, data.test_images[:_EVALUATION_BATCH])
    course.pruned = fold(course.shrunk, examples)
    course.epochs += finetune(course.pruned, settings, data, say)
    return course


@torch.no_grad()
def _relative_difference(masked: nn.Module, shrunk: nn.Module, images: Tensor) -> float:
    expected, found = masked.eval()(images), shrunk.eval()(images)
    return float((found - expected).norm() / expected.norm())


def finetune(model: nn.Module, settings: FashionSettings, data: ImageData, say: Say) -> list[dict[str, Any]]:
    """Train a network without noise a little further; return a record of each epoch."""
    optimizer = torch.optim.Adam(model.parameters())
    epochs = _train(model, optimizer, data, settings, settings.finetuning_epochs, settings.finetuning_lr)
    return [_finish_epoch("fine-tuning", model, data, seconds, say) for seconds in epochs]


def _train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: ImageData,
    settings: FashionSettings,
    epochs: int,
    lr: float,
) -> Iterator[float]:
    """Train plainly, the learning rate rising at first and cooled to 0; yield the seconds of each epoch."""
    steps = epochs * math.ceil(len(data.train_labels) / settings.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=max(steps, 1), pct_start=_ONE_CYCLE_START, cycle_momentum=False
    )

    def loss(nll: Tensor) -> Tensor:
        return nll

    for _ in range(epochs):
        yield _train_epoch(model, optimizer, data, settings.batch_size, loss, schedule.step)


def _train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: ImageData,
    batch_size: int,
    loss_of: Callable[[Tensor], Tensor],
    after_step: Callable[[], None] = lambda: None,
) -> float:
    model.train()
    started = time.monotonic()
    for chosen in torch.randperm(len(data.train_labels)).split(batch_size):
        loss = loss_of(F.cross_entropy(model(data.train_images[chosen]), data.train_labels[chosen]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after_step()
    return time.monotonic() - started


def _finish_epoch(
    phase: str,
    model: nn.Module,
    data: ImageData,
    seconds: float,
    say: Say,
    kept: dict[str, int] | None = None,
) -> dict[str, Any]:
    accuracy = evaluate(model, data)
    widths = "" if kept is None else f", {sum(kept.values())} structures kept"
    say(f"{phase}: {100 * accuracy:.2f} % of the test images right{widths} ({seconds:.0f} s)")
    record: dict[str, Any] = {"phase": phase, "accuracy": accuracy, "seconds": seconds}
    return record if kept is None else {**record, "kept": kept}


@torch.no_grad()
def evaluate(model: nn.Module, data: ImageData) -> float:
    """Share of the test images that a network gets right."""
    model.eval()
    batches = zip(
        data.test_images.split(_EVALUATION_BATCH), data.test_labels.split(_EVALUATION_BATCH), strict=True
    )
    return sum(int((model(x).argmax(1) == y).sum()) for x, y in batches) / len(data.test_labels)
