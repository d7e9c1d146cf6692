"""What the zoo knows of an architecture, and inputs for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Inputs = Callable[[int, int], Any]
"""Of a seed and a batch size: a tensor, a tuple of positional inputs or a dict of keyword inputs."""


@dataclass(frozen=True)
class Architecture:
    """A network, small but with every part that the real one has.

    Attributes
    ----------
    build : callable
        Makes it, with random weights. Libraries are imported when it is called.
    inputs : callable
        Inputs by seed and batch size.
    where : str
        Places for noise, as of :func:`bmrs_torch.insert_noise`.
    goal : float, optional
        Share of the parameters that should go when 60 % of the gates are closed.
    slow : bool
        Whether `make test-zoo` leaves it out, which has three minutes.
    """

    build: Callable[[], nn.Module]
    inputs: Inputs
    where: str = "auto"
    goal: float | None = None
    slow: bool = False


def normal(seed: int, *shape: int) -> Tensor:
    """Normal numbers of a seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def images(pixels: int = 64) -> Inputs:
    """Square images of three channels."""
    return lambda seed, batch: normal(seed, batch, 3, pixels, pixels)


def features(*shape: int) -> Inputs:
    """One tensor, of this shape without the batch."""
    return lambda seed, batch: normal(seed, batch, *shape)


def tokens(seed: int, batch: int) -> Tensor:
    """Seven tokens of a vocabulary of 50 that are none of its special ones."""
    return torch.randint(3, 50, (batch, 7), generator=torch.Generator().manual_seed(seed))


def encoder_and_decoder(seed: int, batch: int) -> dict[str, Tensor]:
    """Tokens for both sides of a translator."""
    return {"input_ids": tokens(seed, batch), "decoder_input_ids": tokens(seed + 100, batch)}
