"""Modules that read their number of heads from a shared configuration get what is left of their own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bmrs_torch import compact, fold, insert_noise, load_pruned, noise_layers, save_pruned
from bmrs_torch.surgery.verification import relative_difference
from tests.bindings.gates import scatter

WIDTH, HEADS, KEYS, SIZE = 8, 8, 4, 2


class Attention(nn.Module):
    """As in Phi-3: one layer for queries, keys and values, which the numbers of heads take apart again."""

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.config, self.per_key = config, config.num_attention_heads // config.num_key_value_heads
        self.qkv = nn.Linear(WIDTH, (HEADS + 2 * KEYS) * SIZE)
        self.out = nn.Linear(HEADS * SIZE, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        queries, keys = self.config.num_attention_heads * SIZE, self.config.num_key_value_heads * SIZE
        qkv = self.qkv(x)
        parts = (qkv[..., :queries], qkv[..., queries : queries + keys], qkv[..., queries + keys :])
        q, k, v = (part.unflatten(-1, (-1, SIZE)).transpose(1, 2) for part in parts)
        k, v = (part.repeat_interleave(self.per_key, 1) for part in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        answer: Tensor = self.out(mixed.flatten(2))
        return x + answer


def network() -> nn.Sequential:
    config = SimpleNamespace(num_attention_heads=HEADS, num_key_value_heads=KEYS)
    model = nn.Sequential(Attention(config), Attention(config), nn.Linear(WIDTH, 3)).double().eval()
    model.config = config  # type: ignore[assignment]
    return model


def tokens(batch: int, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randn(batch, length, WIDTH, dtype=torch.float64, generator=generator)


def test_heads_counted_in_a_shared_configuration_go_and_come_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model: Any = insert_noise(network(), tokens(2, 5), where="heads")
    first, second = noise_layers(scatter(model)).values()
    first.mask[[0, 2]] = 0
    second.mask[1] = 0
    smaller: Any = fold(compact(model, tokens(2, 5)), tokens(2, 5))
    counts = [
        (m.config.num_attention_heads, m.config.num_key_value_heads)
        for m in (smaller, smaller[0], smaller[1])
    ]
    assert counts == [(8, 4), (4, 2), (6, 3)]
    assert model[0].config.num_attention_heads == HEADS
    assert relative_difference(model, smaller, tokens(3, 9)) < 1e-12
    loaded: Any = load_pruned(network, save_pruned(smaller, tmp_path / "small.safetensors"))
    assert torch.equal(loaded.eval()(tokens(3, 9)), smaller(tokens(3, 9)))
    assert loaded.config.num_attention_heads == HEADS
