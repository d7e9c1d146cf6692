"""Numbers that modules remember change where torch meets them as sizes of what is cut, and nowhere else."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bmrs_torch import MultiplicativeNoise, compact, insert_noise, noise_layers
from bmrs_torch.channels.network import follow
from bmrs_torch.surgery.verification import relative_difference

HEADS, SIZE, WIDTH = 4, 8, 32


class Attention(nn.Module):
    """Self-attention over tokens of 16 numbers; how its shapes are written is each test's own."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(16, WIDTH) for _ in range(3))
        self.gate = MultiplicativeNoise(HEADS, axis=2)
        self.out = nn.Linear(WIDTH, 3)
        self.heads, self.size, self.width = HEADS, SIZE, WIDTH
        self.limit = WIDTH  # of tokens: equal to the width by chance
        self.lookahead = HEADS  # tokens: its name holds "head", its value is the number of heads
        self.sizes = (HEADS, SIZE)
        self.config = SimpleNamespace(heads=HEADS, limit=WIDTH)
        self.table = {"heads": HEADS}

    def split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, self.size)

    def join(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.width)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, -self.limit :]
        q, k, v = (self.split(layer(x)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        weights = (q @ k.transpose(-1, -2)).softmax(-1)
        mixed = self.gate((weights @ v).transpose(1, 2))
        later = self.out(self.join(mixed))
        answer: Tensor = later[:, -self.lookahead :].mean(1)
        return answer


class ByProduct(Attention):
    def join(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads * self.size)


class ByDivision(Attention):
    def split(self, x: Tensor) -> Tensor:
        split: Tensor = x.unflatten(-1, (self.heads, self.width // self.heads))
        return split

    def join(self, x: Tensor) -> Tensor:
        return x.flatten(-2)


class OnlyInAProduct(Attention):
    """The number of heads is met only as a factor: it is what has to change."""

    def split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], -1, self.size)

    def join(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads * self.size)


class InATuple(Attention):
    def split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], *self.sizes)


class InAConfiguration(Attention):
    def split(self, x: Tensor) -> Tensor:
        split: Tensor = x.view(x.shape[0], x.shape[1], self.config.heads, -1)
        return split

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, -self.config.limit :])


class InADict(Attention):
    def split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.table["heads"], -1)


def tokens(number: int, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(batch, number, 16, dtype=torch.float64, generator=generator)


def half_of(kind: type[Attention]) -> Attention:
    torch.manual_seed(0)
    model = kind().double().eval()
    model.gate.mask[:2] = 0
    return model


KINDS = (Attention, ByProduct, ByDivision, OnlyInAProduct, InATuple, InAConfiguration, InADict)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 2, 4])
def test_sizes_follow_and_limits_stay(kind: type[Attention], batch: int) -> None:
    model = half_of(kind)
    smaller = compact(model, tokens(7, batch))
    assert smaller.gate.num_structures == HEADS // 2
    assert smaller.v.out_features == WIDTH // 2
    assert (smaller.limit, smaller.lookahead, smaller.config.limit) == (WIDTH, HEADS, WIDTH)
    for number in (3, 20, 40):  # up to beyond the limit
        assert relative_difference(model, smaller, tokens(number)) < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_left_with_plain_numbers(kind: type[Attention]) -> None:
    model = half_of(kind)
    follow(model, tokens(5))
    numbers = [model.heads, model.limit, *model.sizes, model.config.heads, model.table["heads"]]
    assert {type(number) for number in numbers} == {int}
    assert numbers == [HEADS, WIDTH, HEADS, SIZE, HEADS, HEADS]


def test_a_number_that_is_a_size_and_something_else_stays_and_so_do_its_channels() -> None:
    class Both(Attention):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x[:, : self.heads])

    model = half_of(Both)
    with pytest.warns(UserWarning, match="counts on the width"):
        smaller = compact(model, tokens(7))
    assert smaller.heads == HEADS
    assert relative_difference(model, smaller, tokens(9)) < 1e-12


def test_a_forward_method_that_wants_plain_numbers_is_followed_without() -> None:
    class Strict(Attention):
        def split(self, x: Tensor) -> Tensor:
            if type(self.heads) is not int:
                raise TypeError("not a number")
            return super().split(x)

    model = half_of(Strict)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        smaller = compact(model, tokens(7))
    assert relative_difference(model, smaller, tokens(9)) < 1e-12


def test_sizes_met_in_slices_splits_and_groups_follow() -> None:
    class Sliced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.gate = nn.Linear(4, 12), MultiplicativeNoise(12, axis=-1)
            self.conv, self.last = nn.Conv1d(12, 12, 3, 1, 1, 1, 12, bias=False), nn.Linear(12, 2)
            self.part, self.groups, self.window = 12, 12, 12

        def forward(self, x: Tensor) -> Tensor:
            x = self.gate(self.first(x[:, : self.window]))[..., : self.part].transpose(1, 2)
            weight: Any = self.conv.weight
            x = torch.conv1d(x, weight, None, 1, 1, 1, self.groups)
            answer: Tensor = self.last(x.transpose(1, 2))
            return answer

    model = Sliced().double().eval()
    model.gate.mask[[0, 5, 7]] = 0

    def x(length: int) -> Tensor:
        return torch.randn(2, length, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    smaller = compact(model, x(5))
    assert (smaller.part, smaller.groups, smaller.window) == (9, 9, 12)
    for length in (5, 20):
        assert relative_difference(model, smaller, x(length)) < 1e-12


def test_heads_of_a_layer_that_has_neurons_too_get_their_gate() -> None:
    """The output of `out` would bear noise as well, had it something after it."""

    class Longer(Attention):
        def __init__(self) -> None:
            super().__init__()
            self.gate: Any = nn.Identity()
            self.out, self.last = nn.Linear(WIDTH, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.last(torch.relu(super().forward(x)))
            return answer

    torch.manual_seed(0)
    model = insert_noise(Longer().double().eval(), tokens(7), where="heads")
    (layer,) = noise_layers(model).values()
    layer.mask[:2] = 0
    smaller: Any = compact(model, tokens(7))
    assert (smaller.heads, smaller.width, smaller.limit) == (HEADS // 2, WIDTH // 2, WIDTH)
    assert relative_difference(model, smaller, tokens(40)) < 1e-12
