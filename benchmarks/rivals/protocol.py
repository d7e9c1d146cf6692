"""What is compared, by which rules: networks, methods, budgets, epochs, learning rates, seeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from benchmarks.demo.network import LeNet5
from benchmarks.fashion.networks import SmallResNet, SmallViT
from benchmarks.rivals import bmrs, torch_pruning
from benchmarks.training_step.networks import NETWORKS as OF_THE_PAPER

VALIDATION, TEST = "validation", "test"
BATCH = 128
BASE_LR = 2e-3
LEARNING_RATES = (1e-3, 2e-3, 4e-3)
"""The one that the base networks were trained with, half of it and twice."""

SPLIT_SEED, VALIDATION_SHARE = 2026, 5
"""The first fifth of a random order of the training set validates: 12,000 images of Fashion-MNIST's."""

WHOLE_HEADS = "whole heads"
"""Torch-Pruning takes heads as they are instead of dimensions of all heads: one more trial, on the ViT."""


@dataclass(frozen=True)
class Subject:
    """A network of the comparison.

    Attributes
    ----------
    title : str
        For tables and figures.
    build : callable
        Makes it, untrained.
    base_epochs : int
        Of plain training, before anything else.
    seeds : int
        How many, from 0 on.
    channels_last : bool
        Whether it is trained in that format, in which convolutions are a fifth faster on CPUs.
    where : str
        The structures that BMRS puts its noise on.
    """

    title: str
    build: Callable[[], nn.Module]
    base_epochs: int
    seeds: int
    channels_last: bool
    where: str


SUBJECTS = {
    "resnet": Subject("ResNet-14", SmallResNet, 4, 3, True, "streams"),
    "vit": Subject("Small ViT", SmallViT, 4, 3, False, "auto"),
    "lenet": Subject("LeNet-5", LeNet5, 10, 5, True, "auto"),
    "mlp": Subject("MLP 1×150", OF_THE_PAPER["mlp-1x150"].build, 10, 5, False, "auto"),
}

_FURTHER = "; then all further epochs, one cycle of Adam"
_TAUGHT = ", taught by the unpruned network (temperature 2, half of the loss)"
PROCEDURES = {
    "bmrs": bmrs.PROCEDURE,
    "taylor": torch_pruning.procedure("taylor") + _FURTHER,
    "l2": torch_pruning.procedure("l2") + _FURTHER,
    "scratch": "the widths of taylor, drawn anew, one cycle of Adam for the base and the further epochs",
    "unpruned": "the base network as it is" + _FURTHER,
    "random": torch_pruning.procedure("random") + _FURTHER,
    "bmrs_teacher": bmrs.PROCEDURE + _TAUGHT,
    "taylor_teacher": torch_pruning.procedure("taylor") + _FURTHER + _TAUGHT,
}
"""What each method does. It is part of a run's key: whoever changes a method changes its text, and its old
runs no longer count."""

RIVALS = ("taylor", "l2", "scratch", "random")
SETTINGS = ((0.33, 6), (0.2, 20), (0.5, 6), (0.2, 6), (0.33, 20), (0.5, 20))
"""Budgets, as parts of the multiply-adds, and further epochs: those that tell the most first."""


@dataclass(frozen=True)
class Cell:
    """What has one learning rate and one mean: a network, a method, a budget (None: unpruned) and epochs."""

    network: str
    method: str
    budget: float | None
    epochs: int


@dataclass(frozen=True)
class Run(Cell):
    """A network pruned and trained once.

    Attributes
    ----------
    lr : float
        The highest learning rate of the cycle.
    variant : str
        "" or :data:`WHOLE_HEADS`.
    seed : int
        Of the base network and of all that follows.
    split : {"validation", "test"}
        Which images judge it. Runs that choose settings never see the test images.
    """

    lr: float
    variant: str = ""
    seed: int = 0
    split: str = VALIDATION

    def final(self, seed: int) -> Run:
        """The run with the settings of this one that is judged by the test images."""
        return replace(self, seed=seed, split=TEST)


def candidates(cell: Cell) -> list[Run]:
    """The runs of which the best on the validation images decides how the others of a cell are done."""
    runs = [Run(**asdict(cell), lr=lr) for lr in LEARNING_RATES]
    if cell.network == "vit" and cell.method in torch_pruning.KINDS:
        runs.append(replace(runs[1], variant=WHOLE_HEADS))
    return runs


def settings(run: Run, data: str) -> dict[str, Any]:
    """All that decides what comes of a run, the code's faults aside."""
    subject = SUBJECTS[run.network]
    return {
        **asdict(run),
        "data": data,
        "batch": BATCH,
        "base_epochs": subject.base_epochs,
        "base_lr": BASE_LR,
        "split_seed": [SPLIT_SEED, VALIDATION_SHARE],
        "procedure": PROCEDURES[run.method],
    }


def digest(of: dict[str, Any]) -> str:
    """A short name for settings: the same in every process, another for any other settings."""
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:16]
