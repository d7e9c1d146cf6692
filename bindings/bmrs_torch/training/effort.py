"""How long to train and how fast, from the number of samples and the network, where nothing is said."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Effort", "usual_effort"]

FEWEST_EPOCHS, FEWEST_STEPS = 6, 2500
"""On a small set recovery is a matter of steps, on a large one, where an epoch has enough, of epochs."""

NOISE_STEPS = 200, 1000
"""The noise has said what it has to say within some hundred steps, whatever the number of samples is."""

MOST_NOISE = 1 / 4
"""Part of all steps: what recovers the network is worth more than what decides about it."""

NOISE_TRAVEL = 25.0
"""Where a rule decides: how far log σ could get, which Adam moves by its learning rate a step at most.

From −5, where it begins, ΔF comes near 0 at about 2.5, and not every step goes the same way."""

FASTEST_NOISE = 0.05
"""Beyond it a few steps decide, before the data have said anything."""


@dataclass(frozen=True)
class Effort:
    """Steps and learning rates.

    Attributes
    ----------
    steps : int
        In all.
    noise_steps : int
        Of them, with noise.
    lr : float
        The highest of the weights.
    noise_lr : float
        Of the noise.
    """

    steps: int
    noise_steps: int
    lr: float
    noise_lr: float


def usual_effort(
    steps_per_epoch: int,
    *,
    lr: float,
    epochs: float | None = None,
    noise_steps: int | None = None,
    noise_lr: float | None = None,
    to_budget: bool,
) -> Effort:
    """Fill in what isn't given.

    Parameters
    ----------
    steps_per_epoch : int
        Minibatches.
    lr : float
        The highest of the weights.
    epochs : float, optional
        In all, the noise included; by default 6, or as many as make 2,500 steps.
    noise_steps : int, optional
        By default an epoch, but at least 200, at most 1,000, and at most a quarter of all.
    noise_lr : float, optional
        By default five times `lr`, up to 0.05. Where a rule decides, not
        a budget, at least so much that log σ can go as far as the rule wants to see, up to the same.
    to_budget : bool
        Whether there is a budget.

    Raises
    ------
    ValueError
        If the steps with noise are all there are.
    """
    if epochs is None:
        epochs = max(FEWEST_EPOCHS, math.ceil(FEWEST_STEPS / steps_per_epoch))
    steps = round(epochs * steps_per_epoch)
    if noise_steps is not None and 0 < steps <= noise_steps:
        raise ValueError(
            f"steps={noise_steps} with noise leave nothing of the {steps} that epochs={epochs:g} make: take "
            "fewer, more epochs, or epochs=0 if nothing is to be recovered"
        )
    if noise_steps is None:
        fewest, most = NOISE_STEPS
        noise_steps = min(max(fewest, steps_per_epoch), most)
        if steps:
            noise_steps = max(1, min(noise_steps, round(MOST_NOISE * steps)))
    if noise_lr is None:
        noise_lr = min(5 * lr, FASTEST_NOISE)
        if not to_budget:
            noise_lr = max(noise_lr, min(NOISE_TRAVEL / noise_steps, FASTEST_NOISE))
    return Effort(max(steps, noise_steps), noise_steps, lr, noise_lr)
