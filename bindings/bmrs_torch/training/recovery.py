"""Train a network that was made smaller until it is as good as it can be again."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from bmrs_torch.channels.calling import in_mode
from bmrs_torch.surgery.progress import Progress
from bmrs_torch.training.batches import Batches

__all__ = ["MakeOptimizer", "Recovery", "Validate", "check_finite", "one_cycle", "validated"]

Loss = Callable[[nn.Module, Any], Tensor]
Validate = Callable[[nn.Module], float]
MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


WARM_UP = 0.1
"""Part of the steps in which the learning rate rises to its highest."""

START = 25.0
"""What part of the highest learning rate the first one is, as of OneCycleLR."""


def one_cycle(step: int, steps: int) -> float:
    """What part of the highest learning rate a step of so many takes (Smith, 2018).

    It rises within a tenth of the steps, then falls to 0, both along a half cosine.
    """
    top = max(1, round(WARM_UP * steps))
    if step < top:
        low = 1 / START
        return low + (1 - low) * (1 - math.cos(math.pi * step / top)) / 2
    return (1 + math.cos(math.pi * min(1.0, (step - top) / max(1, steps - top)))) / 2


@torch.no_grad()
def validated(model: nn.Module, validate: Validate) -> float:
    """How good a network is, measured in evaluation mode.

    Raises
    ------
    ValueError
        If it is no number, or none that can be compared.
    """
    with in_mode(model, training=False):
        value = validate(model)
    try:
        score = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"validate must return a number, the larger the better, got {value!r:.80}"
        ) from error
    if math.isnan(score):
        raise ValueError(
            "validate must return a number, the larger the better, got NaN, which compares to none"
        )
    return score


def check_finite(misfit: float, step: int, told: str) -> None:
    """Raise ValueError for a loss that is not finite."""
    if not math.isfinite(misfit):
        raise ValueError(f"the loss must be finite, got {misfit} at step {step} {told}")


@dataclass
class Recovery:
    """Plain training, an epoch at a time, that can be taken up where it was left.

    Parameters
    ----------
    model : nn.Module
        The smaller network; it is trained in place.
    batches : Batches
        Minibatches, gone through once an epoch.
    loss : callable
        From a network and a minibatch to a scalar.
    total : int
        How many steps.
    before : int
        How many steps of the same cycle were done before.
    optimizer : torch.optim.Optimizer
        Of the model's parameters, with the highest learning rates.
    validate : callable, optional
        How good a network is, the larger the better. The best of all epochs is what stays in the end.
    patience : int, optional
        After so many epochs that were no better it ends.
    """

    model: nn.Module
    batches: Batches
    loss: Loss
    total: int
    optimizer: torch.optim.Optimizer
    validate: Validate | None = None
    patience: int | None = None
    before: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0

    def __post_init__(self) -> None:
        cycle = self.before + self.total
        self._scheduler = LambdaLR(self.optimizer, lambda step: one_cycle(self.before + step, cycle))
        self._best: dict[str, Tensor] | None = None
        self._best_score, self._since_best = -math.inf, 0

    @property
    def is_done(self) -> bool:
        """Whether all steps are done, or it has been no better for long enough."""
        tired = self.patience is not None and self._since_best >= self.patience
        return self.steps >= self.total or tired

    def begin(self) -> None:
        """Note how good the network is before it is trained."""
        if self.validate is not None and not self.history:
            self._note_score(self._record(math.nan, 0.0))

    def epoch(self, progress: Progress) -> dict[str, Any]:
        """Train for an epoch, or what is left of one; return what is noted of it."""
        self.model.train()
        started, total, number = time.monotonic(), None, 0
        for batch in self.batches:
            if self.steps >= self.total:
                break
            self.optimizer.zero_grad()
            misfit = self.loss(self.model, batch)
            misfit.backward()
            self.optimizer.step()
            self._scheduler.step()
            self.steps += 1
            number += 1
            total = misfit.detach() if total is None else total + misfit.detach()
            progress.advance(1)
        mean = float(total) / number if total is not None else math.nan
        check_finite(mean, self.steps, "of the recovery: a smaller lr may help")
        record = self._record(mean, time.monotonic() - started)
        if self.validate is not None:
            self._note_score(record)
        return record

    def finish(self) -> float | None:
        """Leave the best that it has been in the model, if that was measured, and tell how good that is."""
        if self._best is None:
            return None
        self.model.load_state_dict(self._best)
        return self._best_score

    def _record(self, misfit: float, seconds: float) -> dict[str, Any]:
        record = {
            "phase": "recovery",
            "step": self.steps,
            "epoch": self.steps / max(1, len(self.batches)),
            "misfit": misfit,
            "lr": max(group["lr"] for group in self.optimizer.param_groups),
            "seconds": seconds,
        }
        self.history.append(record)
        return record

    def _note_score(self, record: dict[str, Any]) -> None:
        assert self.validate is not None
        record["score"] = score = validated(self.model, self.validate)
        self._since_best += 1
        if score > self._best_score:
            self._best_score, self._since_best = score, 0
            self._best = copy.deepcopy(self.model.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """All that decides how it goes on but the random numbers."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self._scheduler.last_epoch,
            "history": [dict(record) for record in self.history],
            "steps": self.steps,
            "best": self._best,
            "best_score": self._best_score,
            "since_best": self._since_best,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` gave."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        scheduler = self._scheduler.state_dict()
        self._scheduler.load_state_dict({**scheduler, "last_epoch": state["scheduler"]})
        self.history = [dict(record) for record in state["history"]]
        self.steps = state["steps"]
        self._best, self._best_score = state["best"], state["best_score"]
        self._since_best = state["since_best"]
