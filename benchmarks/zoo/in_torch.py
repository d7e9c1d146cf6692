"""Architectures written out in torch: those that are in none of the libraries."""

# ruff: noqa: D102 - a forward method does what its class says

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from benchmarks.zoo.architecture import Architecture, features, images, normal


class UNet(nn.Module):
    """Down, up by a transposed convolution, and the skipped features concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = self.block(3, 8), self.block(8, 16)
        self.middle = self.block(16, 24)
        self.up2, self.up1 = nn.ConvTranspose2d(24, 16, 2, stride=2), nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.merge2, self.merge1 = self.block(32, 16), self.block(16, 8)
        self.last = nn.Conv2d(8, 2, 1)

    @staticmethod
    def block(before: int, after: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(functional.max_pool2d(first, 2))
        x = self.middle(functional.max_pool2d(second, 2))
        x = self.merge2(torch.cat([second, self.up2(x)], 1))
        answer: Tensor = self.last(self.merge1(torch.cat([first, self.up1(x)], 1)))
        return answer


class DiffusionBlock(nn.Module):
    """GroupNorm, SiLU, convolution, twice, with the time added between and a residual around."""

    def __init__(self, before: int, after: int, time: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, before), nn.Conv2d(before, after, 3, padding=1)
        self.time = nn.Linear(time, after)
        self.norm2, self.conv2 = nn.GroupNorm(8, after), nn.Conv2d(after, after, 3, padding=1)
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(functional.silu(self.norm1(x)))
        h = h + self.time(functional.silu(time))[:, :, None, None]
        answer: Tensor = self.skip(x) + self.conv2(functional.silu(self.norm2(h)))
        return answer


class DiffusionUNet(nn.Module):
    """The U-Net of diffusion models: GroupNorm, time, attention in the middle, skips concatenated."""

    def __init__(self, width: int = 32, time: int = 32) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(1, time), nn.SiLU(), nn.Linear(time, time))
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.down1 = DiffusionBlock(width, width, time)
        self.smaller = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.down2 = DiffusionBlock(width, 2 * width, time)
        self.norm, self.qkv = nn.GroupNorm(8, 2 * width), nn.Conv2d(2 * width, 6 * width, 1)
        self.project = nn.Conv2d(2 * width, 2 * width, 1)
        self.up2 = DiffusionBlock(4 * width, 2 * width, time)
        self.larger = nn.Conv2d(2 * width, width, 3, padding=1)
        self.up1 = DiffusionBlock(2 * width, width, time)
        self.last = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        time = self.embed(step)
        first = self.down1(self.first(x), time)
        second = self.down2(self.smaller(first), time)
        middle = second + self.attention(second)
        x = self.larger(
            functional.interpolate(self.up2(torch.cat([middle, second], 1), time), scale_factor=2.0)
        )
        answer: Tensor = self.last(self.up1(torch.cat([x, first], 1), time))
        return answer

    def attention(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, dim=-1)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).unflatten(2, x.shape[2:])
        answer: Tensor = self.project(mixed)
        return answer


def diffusion_inputs(seed: int, batch: int) -> tuple[Tensor, Tensor]:
    """Noisy images, and how noisy."""
    return normal(seed, batch, 3, 16, 16), normal(seed + 100, batch, 1)


class EDSR(nn.Module):
    """Super-resolution: residual blocks without normalisation, then PixelShuffle."""

    def __init__(self, width: int = 32, blocks: int = 4) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
            )
            for _ in range(blocks)
        )
        self.up = nn.Sequential(nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2))
        self.tail = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first = x = self.head(x)
        for block in self.body:
            x = x + 0.1 * block(x)
        answer: Tensor = self.tail(self.up(x + first))
        return answer


class ConvRecurrent(nn.Module):
    """Convolutions over time, a recurrent layer, and a head on its last state."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv1d(12, 48, 3, padding=1), nn.BatchNorm1d(48)
        self.conv2, self.norm2 = nn.Conv1d(48, 64, 3, padding=1), nn.BatchNorm1d(64)
        self.recurrent = kind(64, 48, batch_first=True)
        self.hidden, self.head = nn.Linear(48, 64), nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm1(self.conv1(x)))
        x = functional.relu(self.norm2(self.conv2(x)))
        states, _ = self.recurrent(x.transpose(1, 2))
        answer: Tensor = self.head(functional.relu(self.hidden(states[:, -1])))
        return answer


class Encoder(nn.Module):
    """torch's own encoder of a transformer, and a head on the mean over tokens."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 128, dropout=0.0, batch_first=True, norm_first=True)
        self.embed = nn.Linear(12, 32)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.head(self.encoder(self.embed(x)).mean(1))
        return answer


class Siamese(nn.Module):
    """One convolutional trunk for both inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(24, 48, 3), nn.BatchNorm2d(48), nn.ReLU(), nn.Conv2d(48, 64, 3), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(64, 2)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        answer: Tensor = self.head((self.trunk(a).mean((2, 3)) - self.trunk(b).mean((2, 3))).abs())
        return answer


def pairs(seed: int, batch: int) -> tuple[Tensor, Tensor]:
    """Two images each."""
    return normal(seed, batch, 3, 16, 16), normal(seed + 100, batch, 3, 16, 16)


class LoRA(nn.Module):
    """A linear layer that is fixed, and a product of two narrow ones beside it (Hu et al., 2021)."""

    def __init__(self, before: int, after: int, rank: int = 4) -> None:
        super().__init__()
        self.base = nn.Linear(before, after)
        self.base.requires_grad_(False)
        self.down, self.up = nn.Linear(before, rank, bias=False), nn.Linear(rank, after, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.base(x) + 2.0 * self.up(self.down(x))
        return answer


class SpectralConv(nn.Module):
    """A linear map of each of the lowest frequencies (Li et al., 2021)."""

    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        self.modes = modes
        self.weight = nn.Parameter(torch.randn(width, width, modes, 2) / width)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(x)[..., : self.modes]
        mixed = torch.einsum("bik,iok->bok", spectrum, torch.view_as_complex(self.weight))
        answer: Tensor = torch.fft.irfft(mixed, n=x.shape[-1])
        return answer


class FNO(nn.Module):
    """A Fourier neural operator in one dimension."""

    def __init__(self, width: int = 24, layers: int = 2) -> None:
        super().__init__()
        self.lift = nn.Sequential(nn.Conv1d(2, 32, 1), nn.GELU(), nn.Conv1d(32, width, 1))
        self.spectral = nn.ModuleList(SpectralConv(width, 6) for _ in range(layers))
        self.local = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(layers))
        self.project = nn.Sequential(nn.Conv1d(width, 48, 1), nn.GELU(), nn.Conv1d(48, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.lift(x)
        for spectral, local in zip(self.spectral, self.local, strict=True):
            x = functional.gelu(spectral(x) + local(x))
        answer: Tensor = self.project(x)
        return answer


class Gated(nn.Module):
    """Linear, BatchNorm and a gated linear unit, with a residual where the widths agree."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(before, 2 * after, bias=False), nn.BatchNorm1d(2 * after)
        self.residual = before == after

    def forward(self, x: Tensor) -> Tensor:
        h = functional.glu(self.norm(self.linear(x)))
        return (h + x) * 0.5**0.5 if self.residual else h


class TabNet(nn.Module):
    """Steps that each choose features by a mask and decide by a part of what they make of them."""

    def __init__(self, inputs: int = 16, decide: int = 16, attend: int = 16, steps: int = 3) -> None:
        super().__init__()
        width = decide + attend
        self.decide, self.norm = decide, nn.BatchNorm1d(inputs)
        self.shared = nn.Sequential(Gated(inputs, width), Gated(width, width))
        self.own = nn.ModuleList(
            nn.Sequential(Gated(width, width), Gated(width, width)) for _ in range(steps)
        )
        self.attention = nn.ModuleList(
            nn.Sequential(nn.Linear(attend, inputs, bias=False), nn.BatchNorm1d(inputs))
            for _ in range(steps - 1)
        )
        self.head = nn.Linear(decide, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        decided, masked = torch.zeros(()), x
        for step, own in enumerate(self.own):
            h = own(self.shared(masked))
            decided = decided + functional.relu(h[:, : self.decide])
            if step < len(self.attention):
                masked = torch.softmax(self.attention[step](h[:, self.decide :]), -1) * x
        answer: Tensor = self.head(decided)
        return answer


class ConformerBlock(nn.Module):
    """Half a feed-forward layer, attention, a gated depthwise convolution, the other half."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.before, self.after = self.feed_forward(width), self.feed_forward(width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.query, self.key, self.value, self.project = (nn.Linear(width, width) for _ in range(4))
        self.enter, self.leave = nn.Conv1d(width, 2 * width, 1), nn.Conv1d(width, width, 1)
        self.depthwise = nn.Conv1d(width, width, 5, padding=2, groups=width)
        self.batchnorm = nn.BatchNorm1d(width)

    @staticmethod
    def feed_forward(width: int) -> nn.Sequential:
        return nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0.5 * self.before(x)
        x = x + self.attention(self.norm1(x))
        x = x + self.convolution(self.norm2(x))
        answer: Tensor = self.norm3(x + 0.5 * self.after(x))
        return answer

    def attention(self, x: Tensor) -> Tensor:
        q, k, v = (
            f(x).unflatten(-1, (self.heads, self.size)).transpose(1, 2)
            for f in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        answer: Tensor = self.project(mixed)
        return answer

    def convolution(self, x: Tensor) -> Tensor:
        h = functional.glu(self.enter(x.transpose(1, 2)), dim=1)
        h = functional.silu(self.batchnorm(self.depthwise(h)))
        answer: Tensor = self.leave(h).transpose(1, 2)
        return answer


class Modulated(nn.Module):
    """A convolution whose weights a style scales, and that are brought back to length 1 (StyleGAN2)."""

    def __init__(self, before: int, after: int, style: int) -> None:
        super().__init__()
        self.style = nn.Linear(style, before)
        self.weight = nn.Parameter(torch.randn(after, before, 3, 3) / (9 * before) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(after))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        weight = self.weight[None] * (1.0 + self.style(style))[:, None, :, None, None]
        weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        made = functional.conv2d(
            x.reshape(1, batch * channels, height, width), weight.flatten(0, 1), padding=1, groups=batch
        )
        return made.view(batch, -1, height, width) + self.bias[:, None, None]


class StyleGenerator(nn.Module):
    """A mapping network and modulated convolutions on a constant."""

    def __init__(self, style: int = 24, width: int = 32) -> None:
        super().__init__()
        self.mapping = nn.Sequential(
            nn.Linear(12, 48), nn.LeakyReLU(0.2), nn.Linear(48, 48), nn.LeakyReLU(0.2), nn.Linear(48, style)
        )
        self.constant = nn.Parameter(torch.randn(1, width, 4, 4))
        self.first, self.second = Modulated(width, width, style), Modulated(width, width, style)
        self.to_image = nn.Conv2d(width, 3, 1)

    def forward(self, z: Tensor) -> Tensor:
        style = self.mapping(z)
        x = functional.leaky_relu(self.first(self.constant.expand(len(z), -1, -1, -1), style), 0.2)
        x = functional.leaky_relu(self.second(functional.interpolate(x, scale_factor=2.0), style), 0.2)
        answer: Tensor = self.to_image(x)
        return answer


def normed(norm: Callable[[nn.Module], nn.Module]) -> Callable[[], nn.Module]:
    """Three convolutions under a parametrization."""
    return lambda: nn.Sequential(
        norm(nn.Conv2d(3, 32, 3)), nn.LeakyReLU(0.2), norm(nn.Conv2d(32, 48, 3)), nn.LeakyReLU(0.2),
        norm(nn.Conv2d(48, 32, 3)), nn.LeakyReLU(0.2), nn.Conv2d(32, 2, 1),
    )  # fmt: skip


IN_TORCH = {
    "unet": Architecture(UNet, images(32)),
    "diffusion unet": Architecture(DiffusionUNet, diffusion_inputs, goal=0.60),
    "edsr": Architecture(EDSR, images(12), "streams", 0.60),
    "conv + lstm": Architecture(lambda: ConvRecurrent(nn.LSTM), features(12, 9), goal=0.50),
    "conv + gru": Architecture(lambda: ConvRecurrent(nn.GRU), features(12, 9), goal=0.50),
    "nn.TransformerEncoder": Architecture(Encoder, features(7, 12), goal=0.39),
    "siamese": Architecture(Siamese, pairs, goal=0.80),
    "lora": Architecture(
        lambda: nn.Sequential(LoRA(16, 64), nn.GELU(), LoRA(64, 64), nn.GELU(), LoRA(64, 4)),
        features(16),
        goal=0.50,
    ),
    "weight_norm": Architecture(normed(weight_norm), images(12)),
    "spectral_norm": Architecture(normed(spectral_norm), images(12)),
    "fno": Architecture(FNO, features(2, 16)),
    "tabnet": Architecture(TabNet, features(16)),
    "conformer": Architecture(
        lambda: nn.Sequential(
            nn.Linear(12, 32), ConformerBlock(32, 4), ConformerBlock(32, 4), nn.Linear(32, 5)
        ),
        features(9, 12),
    ),
    "stylegan": Architecture(StyleGenerator, features(12)),
}
"""By name."""
