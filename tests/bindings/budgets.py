"""Networks with structures of any worth, and the search for what goes, to look into."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bmrs_torch import Budget, MultiplicativeNoise, noise_layers
from bmrs_torch.deciding.meet_budget import _Search


def scattered(model: nn.Module, seed: int = 0) -> nn.Module:
    """Noise of which the evidence says another thing for each structure."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in noise_layers(model).values():
            layer.mu.uniform_(-4.0, 0.0, generator=generator)
            layer.log_sigma.uniform_(-3.0, 0.5, generator=generator)
    return model


def any_worth(model: nn.Module, seed: int = 0) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """A positive number for each structure."""
    generator = np.random.default_rng(seed)
    return {name: generator.random(layer.num_structures) for name, layer in noise_layers(model).items()}


def search(model: nn.Module, inputs: Any, budget: Budget, worth: Any = None) -> _Search:
    return _Search(model, any_worth(model) if worth is None else worth, budget, inputs)


class CountsOnItsWidth(nn.Module):
    """Of its first layer nothing can go, which shows only when it is tried."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.gate1 = nn.Linear(4, 6), MultiplicativeNoise(6)
        self.second, self.gate2 = nn.Linear(6, width), MultiplicativeNoise(width)
        self.last = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.gate1(self.first(x)))
        if x.shape[-1] != 6:
            raise ValueError("six are expected")
        answer: Tensor = self.last(torch.relu(self.gate2(self.second(x))))
        return answer
