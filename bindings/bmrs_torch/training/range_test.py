"""The learning rate that a trained network bears, found by trying."""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bmrs_torch.training.batches import Batches, stream

__all__ = ["STEPS", "range_test"]

STEPS = 100
LOWEST, HIGHEST = 1e-6, 1.0
QUIET = 30
"""Steps at first that tell what the misfit is while the rate, below 1e-4, does next to nothing."""

NATS = 0.1
"""A rate at which the misfit has grown by so much is as high as it may be."""

_MEAN_OF = 5
_BOUNDS = 1e-5, 1e-2


def range_test(model: nn.Module, batches: Batches, loss: Callable[[nn.Module, Any], Tensor]) -> float:
    """Raise the learning rate of Adam step by step, on a copy, until the misfit grows (Smith, 2017).

    Of a network that was trained already the loss doesn't fall first, as it does in the test of one that is
    new: the rate is the one at which it has grown by 0.1 nats, as a mean over five minibatches. For a small
    ResNet and a small ViT on Fashion-MNIST that is 0.002 to 0.005, where 0.004 recovered them better than
    0.001 and 0.002 did.

    Parameters
    ----------
    model : nn.Module
        The trained network; it is left as it is.
    batches : Batches
        Minibatches, such as a DataLoader; up to 100 are taken, from the first on again where they end.
    loss : callable
        From a network and a minibatch to the mean negative log-likelihood, in nats.

    Returns
    -------
    float
        From 1e-5 to 0.01.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import range_test
    >>> batches = [(torch.randn(8, 4), torch.zeros(8, dtype=torch.long))]
    >>> def loss(net, batch):
    ...     return nn.functional.cross_entropy(net(batch[0]), batch[1])
    >>> 1e-5 <= range_test(nn.Linear(4, 2), batches, loss) <= 0.01
    True
    """
    tried = copy.deepcopy(model).train()
    optimizer = torch.optim.AdamW(tried.parameters(), lr=LOWEST, weight_decay=0.0)
    last: deque[float] = deque(maxlen=_MEAN_OF)
    quiet, rate = 0.0, LOWEST
    with torch.enable_grad():
        for step, batch in zip(range(STEPS), stream(batches), strict=False):
            rate = LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))
            for group in optimizer.param_groups:
                group["lr"] = rate
            misfit = loss(tried, batch)
            if not isinstance(misfit, Tensor) or misfit.ndim or not misfit.requires_grad:
                break  # what is trained next refuses it, and says why
            value = float(misfit.detach())
            last.append(value)
            if step < QUIET:
                quiet += value / QUIET
            elif not math.isfinite(value) or sum(last) / len(last) > quiet + NATS:
                break
            optimizer.zero_grad()
            misfit.backward()
            optimizer.step()
    low, high = _BOUNDS
    return min(max(rate, low), high)
