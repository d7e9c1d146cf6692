"""Families that compute in ways of their own: with half of the gates of "auto" closed they shrink exactly."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bmrs_torch import compact, fold, insert_noise, noise_layers
from bmrs_torch.surgery.verification import relative_difference

Make = Callable[[], nn.Module]


class FourierMixing(nn.Module):
    """Tokens are mixed by a Fourier transform (FNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up, self.down, self.last = (
            nn.Linear(6, 8),
            nn.Linear(8, 16),
            nn.Linear(16, 8),
            nn.Linear(8, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x + torch.fft.fft(x, dim=1).real
        answer: Tensor = self.last(x + self.down(F.gelu(self.up(x))))
        return answer


class SpectralConvolution(nn.Module):
    """Low modes are multiplied by complex weights, the others are 0 (FNO)."""

    def __init__(self, before: int, after: int, modes: int = 3) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.modes = before, after, modes
        self.low, self.high = (
            nn.Parameter(0.1 * torch.randn(before, after, modes, modes, dtype=torch.cdouble)) for _ in "ab"
        )

    def forward(self, x: Tensor) -> Tensor:
        spectrum, m = torch.fft.rfft2(x), self.modes
        shape = (len(x), self.out_channels, x.shape[-2], x.shape[-1] // 2 + 1)
        out = torch.zeros(shape, dtype=spectrum.dtype)
        out[:, :, :m, :m] = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, :m, :m], self.low)
        out[:, :, -m:, :m] = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, -m:, :m], self.high)
        answer: Tensor = torch.fft.irfft2(out, s=x.shape[-2:])
        return answer


class FourierOperator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lift, self.one, self.two = (
            nn.Conv2d(3, 8, 1),
            SpectralConvolution(8, 8),
            SpectralConvolution(8, 8),
        )
        self.beside, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(self.lift(x)).tanh()
        answer: Tensor = self.last(self.two(x) + self.beside(x))
        return answer


class Modulated(nn.Module):
    """A convolution whose weights are scaled for each sample and brought to length 1 (StyleGAN 2)."""

    def __init__(self, before: int, after: int, style: int) -> None:
        super().__init__()
        self.weight, self.style = nn.Parameter(torch.randn(after, before, 3, 3)), nn.Linear(style, before)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        number, channels, *size = x.shape
        weight = self.weight[None] * self.style(style)[:, None, :, None, None]
        weight = weight * torch.rsqrt(weight.square().sum([2, 3, 4], keepdim=True) + 1e-8)
        x = F.conv2d(x.reshape(1, -1, *size), weight.reshape(-1, channels, 3, 3), padding=1, groups=number)
        return x.reshape(number, -1, *size)


class Synthesis(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mapping = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 5))
        self.first, self.one, self.two = nn.Conv2d(3, 8, 1), Modulated(8, 12, 5), Modulated(12, 8, 5)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        style, x = self.mapping(x.mean((2, 3))), F.leaky_relu(self.first(x), 0.2)
        x = F.leaky_relu(self.one(x, style), 0.2)
        answer: Tensor = self.last(F.leaky_relu(self.two(x, style), 0.2))
        return answer


class ConvolutionModule(nn.Module):
    """Pointwise, gated, depthwise, normalised, pointwise (Conformer)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = (
            nn.LayerNorm(size),
            nn.Conv1d(size, 4 * size, 1),
            nn.Conv1d(2 * size, size, 1),
        )
        self.depthwise = nn.Conv1d(2 * size, 2 * size, 3, padding=1, groups=2 * size)
        self.batch_norm = nn.BatchNorm1d(2 * size)

    def forward(self, x: Tensor) -> Tensor:
        y = F.glu(self.up(self.norm(x).mT), 1)
        y = self.down(F.silu(self.batch_norm(self.depthwise(y))))
        answer: Tensor = x + y.mT
        return answer


class GhostNorm(nn.Module):
    """A BatchNorm of a few samples at a time."""

    def __init__(self, size: int, few: int = 2) -> None:
        super().__init__()
        self.norm, self.few = nn.BatchNorm1d(size), few

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.norm(part) for part in x.chunk(-(-len(x) // self.few), 0)])


class Gated(nn.Module):
    """Half of the outputs, cut off at a remembered width, gated by the other half (TabNet)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.linear, self.norm, self.output_dim = nn.Linear(before, 2 * after), GhostNorm(2 * after), after

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.linear(x))
        answer: Tensor = x[:, : self.output_dim] * torch.sigmoid(x[:, self.output_dim :])
        return answer


class BiasedAttention(nn.Module):
    """Heads of one layer, remembered widths, and a table of biases kept for evaluation (LeViT, TinyViT)."""

    places: Tensor

    def __init__(self, size: int, heads: int, each: int) -> None:
        super().__init__()
        self.num_heads, self.key_dim, self.out_dim = heads, each, heads * each
        self.qkv, self.out = nn.Linear(size, 3 * self.out_dim), nn.Linear(self.out_dim, size)
        self.biases, self.kept = nn.Parameter(torch.randn(heads, 7)), {}  # type: ignore[var-annotated]
        self.register_buffer("places", (torch.arange(7)[:, None] - torch.arange(7)).abs())

    def train(self, mode: bool = True) -> Any:
        if mode:
            self.kept = {}
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and not self.kept:
            self.kept = {"cpu": self.biases[:, self.places].detach()}
        biases = self.biases[:, self.places] if self.training else self.kept["cpu"]
        number, tokens, _ = x.shape
        parts = self.qkv(x).view(number, tokens, self.num_heads, -1).split([self.key_dim] * 3, dim=3)
        q, k, v = (part.permute(0, 2, 1, 3) for part in parts)
        mixed = (q @ k.mT + biases).softmax(-1) @ v
        answer: Tensor = self.out(mixed.transpose(1, 2).reshape(number, tokens, self.out_dim))
        return answer


# With the shape of one sample, and how much is to go at least; above all else it is to go exactly.
FAMILIES: dict[str, tuple[Make, tuple[int, ...], float]] = {
    "Fourier mixing": (FourierMixing, (7, 6), 0.35),
    "Fourier operator": (FourierOperator, (3, 8, 8), 0.3),
    "modulated convolution": (Synthesis, (3, 8, 8), 0.6),
    "convolution module": (lambda: nn.Sequential(ConvolutionModule(6), nn.Linear(6, 2)), (7, 6), 0.4),
    "biased attention": (
        lambda: nn.Sequential(BiasedAttention(6, 4, 8), nn.Tanh(), nn.Linear(6, 2)),
        (7, 6),
        0.3,
    ),
    "gated tables": (lambda: nn.Sequential(Gated(6, 8), Gated(8, 8), nn.Linear(8, 2)), (6,), 0.5),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_shrinks_exactly(family: str) -> None:
    make, shape, least = FAMILIES[family]
    torch.manual_seed(0)
    model: Any = make().double().eval()
    before = sum(p.numel() for p in model.parameters())
    inputs = [torch.randn(number, *shape, dtype=torch.float64) for number in (3, 1, 6)]
    insert_noise(model, inputs[0])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.rand_like(parameter))
        for layer in noise_layers(model).values():
            layer.mu.uniform_(-2.0, 0.0)
            layer.mask[torch.randperm(layer.num_structures)[: layer.num_structures // 2]] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        smaller = compact(model, inputs[0])
    folded = fold(smaller, inputs[0])
    for x in inputs:  # float64 sums in another order
        assert relative_difference(model, smaller, x) < 1e-12
        assert relative_difference(model, folded, x) < 1e-12
    assert sum(p.numel() for p in folded.parameters()) <= (1 - least) * before
