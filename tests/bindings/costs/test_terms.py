"""What a network would cost without some structures is predicted exactly, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bmrs_torch import Budget, MultiplicativeNoise, insert_noise, separate_attention
from tests.bindings.budgets import search
from tests.bindings.networks import NETWORKS, images
from tests.bindings.surgery.patterns import REMOVABLE

Gate = MultiplicativeNoise


class Residual(nn.Module):
    """Two blocks on one stream of channels, with norms."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 1))
            for _ in range(2)
        )
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        answer: Tensor = self.head(torch.relu(x).mean((2, 3)))
        return answer


def residual() -> nn.Module:
    return insert_noise(Residual(), PICTURES, where=["stem.1", "blocks.*.1", "blocks.*.3"])


def streams() -> nn.Module:
    return insert_noise(Residual(), PICTURES, where="streams")


def grouped() -> nn.Module:
    first, second = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 8, 3, groups=4)
    return nn.Sequential(first, Gate(12), nn.ReLU(), second, Gate(8), nn.ReLU(), nn.Conv2d(8, 2, 1))


def grouped_transposed() -> nn.Module:
    first, second = nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 12, 3, groups=4)
    return nn.Sequential(first, Gate(8), nn.ReLU(), second, Gate(12), nn.ReLU(), nn.Conv2d(12, 2, 1))


def depthwise() -> nn.Module:
    layers = (nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), Gate(8))
    return nn.Sequential(*layers, nn.Conv2d(8, 2, 1))


PICTURES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def assert_predicted(model: nn.Module, inputs: Tensor) -> None:
    """At a third of the way down, two thirds and as far as it goes."""
    found = search(model.eval(), inputs, Budget(macs=0.5, parameters=0.5, bytes=0.5))
    before = np.array(list(found.before.values()))
    least = found._choose(np.zeros(3)).costs
    for share in (2 / 3, 1 / 3, 0.0):
        choice = found._choose(least + share * (before - least))
        assert choice.taken
        small, refused = found._try(choice.gone)
        assert not refused
        # Whole numbers, as products of which some were divided by others.
        np.testing.assert_allclose(choice.costs, list(found._meter.measure(small).values()), rtol=1e-12)


@pytest.mark.parametrize(
    "network",
    [residual, streams, grouped, grouped_transposed, depthwise, *REMOVABLE],
    ids=lambda p: p.__name__,
)
def test_costs_of_what_is_left_are_predicted_exactly(network: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    assert_predicted(network(), PICTURES)


@pytest.mark.parametrize("name", NETWORKS)
def test_costs_of_plain_networks_are_predicted_exactly(name: str) -> None:
    torch.manual_seed(0)
    assert_predicted(insert_noise(NETWORKS[name](), images(2)), images(2))


def test_costs_of_an_encoder_with_heads_and_of_a_recurrent_network_are_predicted_exactly() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)
    encoder = separate_attention(nn.Sequential(nn.TransformerEncoder(layer, 2), nn.Linear(16, 3)))
    tokens = torch.randn(2, 5, 16)
    assert_predicted(insert_noise(encoder, tokens), tokens)


class FusedAttention(nn.Module):
    """Queries, keys and values of one layer, as vision transformers have them."""

    def __init__(self, width: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.norm, self.qkv, self.proj = (
            nn.LayerNorm(width),
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        samples, positions, _ = x.shape
        qkv = self.qkv(self.norm(x)).reshape(samples, positions, 3, self.heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        answer: Tensor = x + self.proj(mixed.transpose(1, 2).flatten(2))
        return answer


def test_costs_of_heads_of_one_fused_layer_are_predicted_exactly() -> None:
    torch.manual_seed(0)
    mlp = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16))
    tokens = torch.randn(2, 5, 16)
    model = insert_noise(nn.Sequential(FusedAttention(), mlp), tokens, where="heads and neurons")
    assert_predicted(model, tokens)


def test_removal_of_one_structure_after_another_saves_what_the_whole_formula_says() -> None:
    torch.manual_seed(0)
    found = search(residual().eval(), PICTURES, Budget(macs=0.5, bytes=0.5))
    choice = found._choose(np.array([1.0, 1.0]))
    np.testing.assert_allclose(choice.costs, found._formula.costs(choice.gone), rtol=1e-12)
