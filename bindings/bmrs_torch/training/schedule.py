"""When to prune, when to stop, and how fast the divergence comes in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from bmrs_torch.operation.arguments import check_whole

Unit = Literal["epoch", "step"]


@dataclass(frozen=True)
class Schedule:
    """The dates of Algorithm 1, in epochs or in steps of the optimizer.

    Parameters
    ----------
    every : int
        Prune after every so many (the paper's P), at least 1. The paper's experiments prune after each epoch.
    start : int
        Not before so many are done. By default nothing is held back: noise begins far from where the
        evidence is against a structure.
    finetune_from : int, optional
        When so many are done, prune a last time; from then on the noise is fixed at E[θ], and only the
        weights learn. By default that never comes: how long the training lasts isn't known here.
    kl_warmup : int
        Over so many the weight of the divergence rises from 0, in proportion to those done. By default it
        counts in full from the first step on: Eq. 3 has no warm-up.
    unit : {"epoch", "step"}
        What is counted; Algorithm 1 counts epochs.

    Raises
    ------
    ValueError
        For numbers out of range or not whole, an unknown unit, or a fine-tuning that begins before the
        pruning.
    TypeError
        For anything but numbers.

    Examples
    --------
    >>> from bmrs_torch import Schedule
    >>> schedule = Schedule(every=2, start=3, finetune_from=7)
    >>> [done for done in range(1, 10) if schedule.is_due(done)]
    [4, 6, 7]
    """

    every: int = 1
    start: int = 0
    finetune_from: int | None = None
    kl_warmup: int = 0
    unit: Unit = "epoch"

    def __post_init__(self) -> None:
        if not isinstance(self.unit, str) or self.unit not in get_args(Unit):
            raise ValueError(f"unit must be 'epoch' or 'step', got {self.unit!r}")
        counted = f"a number of {self.unit}s"
        for name, least in (("every", 1), ("start", 0), ("kl_warmup", 0)):
            check_whole(name, getattr(self, name), counted)
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.finetune_from is not None:
            check_whole("finetune_from", self.finetune_from, counted)
        if self.finetune_from is not None and self.finetune_from < max(self.start, 1):
            raise ValueError(
                f"finetune_from={self.finetune_from} leaves nothing to prune: it must be at least 1 and not "
                f"before start={self.start}"
            )

    def is_due(self, done: int) -> bool:
        """Whether to prune when so many are done."""
        if self.finetune_from is not None and done >= self.finetune_from:
            return done == self.finetune_from
        return done >= max(self.start, 1) and done % self.every == 0

    def next_due(self, done: int) -> int | None:
        """How many will be done when it is due next; None if it won't be any more."""
        if self.finetunes(done):
            return None
        first = max(self.start, 1, done + 1)
        due = first + -first % self.every
        return due if self.finetune_from is None else min(due, self.finetune_from)

    def finetunes(self, done: int) -> bool:
        """Whether fine-tuning has begun when so many are done."""
        return self.finetune_from is not None and done >= self.finetune_from

    def kl_factor(self, done: int) -> float:
        """Part of the divergence's weight that counts when so many are done."""
        return min(1.0, done / self.kl_warmup) if self.kl_warmup else 1.0
