"""Networks with one thing each that surgery has to get right; gates are placed by hand or by default."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bmrs_torch import MultiplicativeNoise, insert_noise

Gate = MultiplicativeNoise


class Functional(nn.Module):
    """Modules by name, and a forward method given as a function of the modules and the input."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def conv(before: int, after: int, size: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(before, after, size, **options)


def depthwise_with_multiplier() -> nn.Module:
    return nn.Sequential(conv(3, 4), Gate(4), conv(4, 12, groups=4, bias=False), nn.ReLU(), conv(12, 2))


def gate_after_depthwise() -> nn.Module:
    return nn.Sequential(conv(3, 4), conv(4, 4, groups=4), nn.BatchNorm2d(4), Gate(4), nn.ReLU(), conv(4, 2))


def norm_after_the_gate() -> nn.Module:
    return nn.Sequential(conv(3, 4), Gate(4), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 2))


def instance_norm_before_the_gate() -> nn.Module:
    return nn.Sequential(conv(3, 4), nn.InstanceNorm2d(4, affine=True), Gate(4), nn.PReLU(4), conv(4, 2))


def group_norm_after_the_gate() -> nn.Module:
    return nn.Sequential(conv(3, 4), Gate(4), nn.GroupNorm(2, 4), conv(4, 2))


def flattened_pixels() -> nn.Module:
    return nn.Sequential(conv(3, 4), Gate(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5))


def channels_last() -> nn.Module:
    return Functional(
        lambda m, x: m.last(F.gelu(m.gate(m.first(x.permute(0, 2, 3, 1))))),
        first=nn.Linear(3, 6),
        gate=Gate(6, axis=-1),
        last=nn.Linear(6, 2),
    )


def crelu() -> nn.Module:
    return Functional(
        lambda m, x: m.last(torch.relu(torch.cat([m.gate(m.first(x)), -m.gate(m.first(x))], 1))),
        first=conv(3, 4),
        gate=Gate(4),
        last=conv(8, 2),
    )


def concatenated_with_the_input() -> nn.Module:
    return Functional(
        lambda m, x: m.last(torch.cat([x, m.gate(m.first(x))], 1)),
        first=conv(3, 4, padding=1),
        gate=Gate(4),
        last=conv(7, 2),
    )


def added_to_the_input() -> nn.Module:
    return Functional(
        lambda m, x: m.last(x + m.gate(m.first(x))),
        first=conv(3, 3, padding=1),
        gate=Gate(3),
        last=conv(3, 2),
    )


def residual_with_padded_shortcut() -> nn.Module:
    return Functional(
        lambda m, x: m.last(m.gate2(m.second(x)) + F.pad(m.gate1(m.first(x)), (0, 0, 0, 0, 1, 1))),
        first=conv(3, 4),
        gate1=Gate(4),
        second=conv(3, 6),
        gate2=Gate(6),
        last=conv(6, 2),
    )


def hard_coded_halves() -> nn.Module:
    return Functional(
        lambda m, x: m.last(m.gate(m.first(x))[:, :3] * m.gate(m.first(x))[:, 3:6]),
        first=conv(3, 6),
        gate=Gate(6),
        last=conv(3, 2),
    )


def even_halves() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        a, b = m.gate(m.first(x)).chunk(2, 1)
        answer: Tensor = m.last(a) + m.other(b)
        return answer

    return Functional(forward, first=conv(3, 6), gate=Gate(6), last=conv(3, 2), other=conv(3, 2))


def shuffled_by_a_table() -> nn.Module:
    table = torch.tensor([2, 0, 3, 1])
    return Functional(
        lambda m, x: m.last(m.gate(m.first(x))[:, table]), first=conv(3, 4), gate=Gate(4), last=conv(4, 2)
    )


def pixel_shuffle() -> nn.Module:
    return nn.Sequential(conv(3, 8), Gate(8), nn.PixelShuffle(2), conv(2, 2))


def channel_attention_over_all() -> nn.Module:
    return Functional(
        lambda m, x: m.last(m.gate(m.first(x)) * torch.sigmoid(m.gate(m.first(x)).mean(1, keepdim=True))),
        first=conv(3, 4),
        gate=Gate(4),
        last=conv(4, 2),
    )


def divided_by_the_width() -> nn.Module:
    return Functional(
        lambda m, x: m.last(m.gate(m.first(x)).flatten(2).sum(1) / m.first.out_channels),
        first=conv(3, 4),
        gate=Gate(4),
        last=nn.Linear(36, 2),
    )


def squeeze_and_excitation() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = torch.relu(m.gate(m.norm(m.first(x))))
        weight = torch.sigmoid(m.rise(torch.relu(m.fall(x.mean((2, 3), keepdim=True)))))
        answer: Tensor = m.last(x * weight)
        return answer

    return Functional(
        forward,
        first=conv(3, 8),
        norm=nn.BatchNorm2d(8),
        gate=Gate(8),
        fall=conv(8, 2, 1),
        rise=conv(2, 8, 1),
        last=conv(8, 2),
    )


def tied_autoencoder() -> nn.Module:
    return Functional(
        lambda m, x: F.linear(torch.relu(m.gate(m.first(x.flatten(1)))), m.first.weight.t()),
        first=nn.Linear(192, 6),
        gate=Gate(6),
    )


def layer_called_twice() -> nn.Module:
    return Functional(
        lambda m, x: m.last(m.gate(torch.relu(m.shared(torch.relu(m.shared(m.first(x))))))),
        first=conv(3, 4),
        shared=conv(4, 4, padding=1),
        gate=Gate(4),
        last=conv(4, 2),
    )


def weight_normalised() -> nn.Module:
    norm = torch.nn.utils.parametrizations.weight_norm
    return nn.Sequential(norm(conv(3, 4)), Gate(4), nn.ReLU(), conv(4, 2))


def weight_normalised_after() -> nn.Module:
    norm = torch.nn.utils.parametrizations.weight_norm
    return nn.Sequential(conv(3, 4), Gate(4), nn.ReLU(), norm(conv(4, 2)))


def recurrent() -> nn.Module:
    return Functional(
        lambda m, x: m.last(m.gate(m.rnn(x.flatten(2).transpose(1, 2))[0])),
        rnn=nn.LSTM(3, 5, batch_first=True),
        gate=Gate(5, axis=-1),
        last=nn.Linear(5, 2),
    )


def einsum_heads() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = (layer(tokens).unflatten(-1, (-1, 2)) for layer in (m.q, m.k, m.v))
        weights = torch.einsum("bthd,bshd->bhts", q, k).softmax(-1)
        mixed = m.gate(torch.einsum("bhts,bshd->bthd", weights, v)).flatten(-2)
        answer: Tensor = m.last(mixed)
        return answer

    return Functional(
        forward,
        q=nn.Linear(3, 8),
        k=nn.Linear(3, 8),
        v=nn.Linear(3, 8),
        gate=Gate(4, axis=-2),
        last=nn.Linear(8, 2),
    )


def written_into() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.gate(m.first(x))
        y[:, 1:] += 1.0
        answer: Tensor = m.last(y)
        return answer

    return Functional(forward, first=conv(3, 4), gate=Gate(4), last=conv(4, 2))


def transposed_convolution() -> nn.Module:
    return nn.Sequential(nn.ConvTranspose2d(3, 6, 2), nn.BatchNorm2d(6), Gate(6), nn.ReLU(), conv(6, 2))


def gated_product_of_two() -> nn.Module:
    return Functional(
        lambda m, x: m.last(torch.sigmoid(m.a(x)) * m.gate(m.b(x))),
        a=conv(3, 4),
        b=conv(3, 4),
        gate=Gate(4),
        last=conv(4, 2),
    )


def fourier() -> nn.Module:
    return Functional(
        lambda m, x: m.last(torch.fft.fft(m.gate(m.first(x)), dim=1).real),
        first=conv(3, 4),
        gate=Gate(4),
        last=conv(4, 2),
    )


def batch_shape_in_a_view() -> nn.Module:
    return Functional(
        lambda m, x: m.last(m.gate(m.first(x)).view(x.shape[0], 4, 36).mean(-1)),
        first=conv(3, 4),
        gate=Gate(4),
        last=nn.Linear(4, 2),
    )


def constant_offset() -> nn.Module:
    offset = torch.linspace(1.0, 2.0, 4).view(1, 4, 1, 1)
    return Functional(
        lambda m, x: m.last(m.gate(m.first(x)) * offset), first=conv(3, 4), gate=Gate(4), last=conv(4, 2)
    )


def torch_transformer() -> nn.Module:
    model = Functional(
        lambda m, x: m.last(m.encoder(m.first(x.flatten(2).transpose(1, 2)))),
        first=nn.Linear(3, 8),
        encoder=nn.TransformerEncoderLayer(8, 2, 12, batch_first=True),
        last=nn.Linear(8, 2),
    )
    return insert_noise(model, torch.ones(2, 3, 4, 4), where="encoder.linear1")


REMOVABLE = [
    depthwise_with_multiplier,
    gate_after_depthwise,
    instance_norm_before_the_gate,
    flattened_pixels,
    channels_last,
    crelu,
    concatenated_with_the_input,
    squeeze_and_excitation,
    tied_autoencoder,
    weight_normalised,
    weight_normalised_after,
    einsum_heads,
    transposed_convolution,
    gated_product_of_two,
    torch_transformer,
]

RETAINED = {
    norm_after_the_gate: "0 becomes something else",
    group_norm_after_the_gate: "coupled to .*GroupNorm normalises over groups of 2 in '2'",
    added_to_the_input: "the model's input has an entry for each",
    residual_with_padded_shortcut: "they are padded|has an entry for each",
    hard_coded_halves: "coupled to structures of 'gate' that are not masked",
    shuffled_by_a_table: "picked by their positions",
    pixel_shuffle: "pixel_shuffle makes one channel of 4",
    channel_attention_over_all: "mean goes over them",
    divided_by_the_width: "counts on the width",
    layer_called_twice: "not 0 where 'shared' takes it",
    recurrent: "has an entry for each",
    written_into: "memory shared by several tensors is written to",
    fourier: "can't be followed",
    batch_shape_in_a_view: "counts on the width",
    constant_offset: "a constant has an entry for each",
}
