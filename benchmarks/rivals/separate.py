"""A block of the vision transformer with queries, keys and values by layers of their own, and back again.

Torch-Pruning 1.6.1 can't prune the joint layer of :class:`EncoderBlock` (IndexError), but can prune three,
which compute the same: so that it isn't judged by that, it gets three.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.fashion.networks import EncoderBlock


class SeparateBlock(nn.Module):
    """An :class:`EncoderBlock`, whose layers it takes over, with `q`, `k` and `v` instead of `qkv`."""

    def __init__(self, block: EncoderBlock) -> None:
        super().__init__()
        self.num_heads = block.num_heads
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.proj, self.fc1, self.fc2 = block.proj, block.fc1, block.fc2
        weights, biases = block.qkv.weight.chunk(3), block.qkv.bias.chunk(3)
        self.q, self.k, self.v = (_linear(*some) for some in zip(weights, biases, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (N, tokens, width) to the same shape."""
        h = self.norm1(x)
        q, k, v = (layer(h).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for layer in self.layers())
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        answer: Tensor = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return answer

    def layers(self) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
        """The layers of the queries, keys and values."""
        return self.q, self.k, self.v

    def joined(self) -> EncoderBlock:
        """The block of one layer that computes the same."""
        block = EncoderBlock(1, self.num_heads)
        block.norm1, block.norm2 = self.norm1, self.norm2
        block.proj, block.fc1, block.fc2 = self.proj, self.fc1, self.fc2
        weights, biases = (
            torch.cat([getattr(layer, name) for layer in self.layers()]) for name in ("weight", "bias")
        )
        block.qkv = _linear(weights, biases)
        return block.train(self.training)


def separate(model: nn.Module) -> list[SeparateBlock]:
    """Replace the blocks of a network, in place; return the new ones."""
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, EncoderBlock)]
    blocks = [SeparateBlock(block) for _, block in found]
    for (name, _), block in zip(found, blocks, strict=True):
        model.set_submodule(name, block)
    return blocks


def join(model: nn.Module) -> None:
    """Take back what :func:`separate` did."""
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, SeparateBlock)]
    for name, block in found:
        model.set_submodule(name, block.joined())


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight, layer.bias = (nn.Parameter(values.detach().clone()) for values in (weight, bias))
    return layer
