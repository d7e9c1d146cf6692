"""Layers that add to the same structures side by side share noise; residual streams have none by default."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bmrs_torch import compact, fold, insert_noise, noise_layers
from bmrs_torch.surgery.verification import relative_difference


class Adapted(nn.Module):
    """A linear layer with an adapter of low rank beside it (LoRA)."""

    def __init__(self, before: int, after: int, rank: int = 3) -> None:
        super().__init__()
        self.base_layer = nn.Linear(before, after).requires_grad_(False)
        self.down, self.up = nn.Linear(before, rank, bias=False), nn.Linear(rank, after, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.base_layer(x) + 0.5 * self.up(self.down(x))
        return answer


class Residual(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(size, size), nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = x + self.outer(self.inner(x).relu())
        return answer


def rows(number: int, seed: int = 0) -> Tensor:
    return torch.randn(number, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_an_adapted_layer_loses_neurons_of_both_its_parts() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Adapted(6, 8), nn.GELU(), Adapted(8, 8), nn.GELU(), Adapted(8, 2)).double().eval()
    insert_noise(model, rows(3))
    assert sorted(layer.num_structures for layer in noise_layers(model).values()) == [3, 3, 3, 8, 8]
    for layer in noise_layers(model).values():
        with torch.no_grad():
            layer.mu.uniform_(-2.0, 0.0)
        layer.mask[: layer.num_structures // 2] = 0
    smaller = compact(model, rows(3))
    assert [tuple(p.shape) for name, p in smaller.named_parameters() if name.endswith("layer.weight")] == [
        (4, 6),
        (4, 4),
        (2, 4),
    ]
    folded = fold(smaller, rows(3))
    for other in (smaller, folded):  # float64 sums in another order
        assert relative_difference(model, other, rows(5, seed=9)) < 1e-12


def test_a_residual_stream_has_no_noise_by_default() -> None:
    net = nn.Sequential(nn.Linear(6, 8), Residual(8), Residual(8), nn.Linear(8, 2))
    names = noise_layers(insert_noise(net, rows(3).float()))
    assert sorted(names) == ["1.inner.noise", "2.inner.noise"]
