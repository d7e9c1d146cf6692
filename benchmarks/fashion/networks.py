"""A small residual network and a small vision transformer for 28×28 images, and where they get noise."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.demo.data import IMAGE_SIZE, NUM_CLASSES
from bmrs_torch import insert_noise


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut (He et al., 2016).

    Parameters
    ----------
    channels_in, channels : int
        Of the stream before and after.
    stride : int
        Of the first convolution and the shortcut.
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Add what the convolutions make of `x` to the shortcut."""
        h = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(h + self.shortcut(x))


class SmallResNet(nn.Module):
    """A ResNet-14: a stem of stride 2 and six blocks at 14×14, 7×7 and 4×4 pixels."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 3, 2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        plan = [(1, 1, 1), (1, 1, 1), (1, 2, 2), (2, 2, 1), (2, 4, 2), (4, 4, 1)]
        self.blocks = nn.Sequential(*(ResidualBlock(a * width, b * width, stride) for a, b, stride in plan))
        self.head = nn.Linear(4 * width, NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 1, 28, 28) to logits (N, 10)."""
        logits: Tensor = self.head(self.blocks(self.stem(images)).mean((2, 3)))
        return logits


class EncoderBlock(nn.Module):
    """Self-attention and a two-layer network, each behind a LayerNorm and beside a shortcut.

    Parameters
    ----------
    width : int
        Of the stream.
    heads : int
        Of the attention.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (N, tokens, width) to the same shape."""
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        attention = F.scaled_dot_product_attention(self._heads(q), self._heads(k), self._heads(v))
        x = x + self.proj(attention.transpose(1, 2).flatten(2))
        answer: Tensor = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return answer

    def _heads(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        return heads


class SmallViT(nn.Module):
    """A vision transformer on 16 patches of 7×7 pixels, whose mean is read (Dosovitskiy et al., 2021)."""

    def __init__(self, width: int = 64, depth: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 7, 7)
        self.positions = nn.Parameter(0.02 * torch.randn(1, 16, width))
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 1, 28, 28) to logits (N, 10)."""
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        logits: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return logits


NETWORKS: dict[str, type[SmallResNet | SmallViT]] = {"resnet": SmallResNet, "vit": SmallViT}
WHERE = {"resnet": "streams", "vit": "neurons"}
"""On inner filters and residual streams; on the neurons of each block ("auto" takes the heads, too)."""


def with_noise(model: nn.Module, where: str) -> nn.Module:
    """Put noise on the structures of a network, in place; `where` as for :func:`insert_noise`."""
    return insert_noise(model, torch.zeros(2, 1, IMAGE_SIZE, IMAGE_SIZE), where=where)
