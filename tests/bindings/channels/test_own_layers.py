"""Layers of one's own are known by what they do with their weights, not by their class."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bmrs_torch import compact, fold, insert_noise, noise_layers, scores
from bmrs_torch.channels.behaviour import linear_axes
from bmrs_torch.channels.weights import is_plain, is_weighted
from bmrs_torch.surgery.verification import relative_difference


class Own(nn.Module):
    """A layer that multiplies its input by a weight in any way."""

    def __init__(
        self, before: int, after: int, how: Callable[[Any, Tensor], Tensor], inputs_first: bool
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.how = before, after, how
        self.weight = nn.Parameter(torch.randn((before, after) if inputs_first else (after, before)))
        self.bias = nn.Parameter(torch.randn(after))

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self, x)


class Inherited(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


def batches(m: Any, x: Tensor) -> Tensor:
    return torch.baddbmm(m.bias[None, None], x[:, None], m.weight.T[None].expand(len(x), -1, -1))[:, 0]


# How it multiplies, and whether its weight is stored inputs first.
LINEAR: dict[str, tuple[Callable[[Any, Tensor], Tensor], bool]] = {
    "linear": (lambda m, x: F.linear(x, m.weight, m.bias), False),
    "matmul": (lambda m, x: x @ m.weight.T + m.bias, False),
    "matmul, inputs first": (lambda m, x: x @ m.weight + m.bias, True),
    "addmm": (lambda m, x: torch.addmm(m.bias, x, m.weight), True),
    "addmm of a width that it keeps": (
        lambda m, x: torch.addmm(m.bias, x, m.weight).view(-1, m.out_features),
        True,
    ),
    "einsum": (lambda m, x: torch.einsum("...i,oi->...o", x, m.weight) + m.bias, False),
    "baddbmm": (batches, False),
    "with an activation": (lambda m, x: F.linear(x, m.weight, m.bias).relu(), False),
}
OTHER: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "distances": lambda m, x: torch.cdist(x, m.weight) + m.bias,
    "weights standardised": lambda m, x: F.linear(x, F.normalize(m.weight), m.bias),
    "a table": lambda m, x: m.weight[(x[..., 0] > 0).long()],
}


def rows(number: int, seed: int = 0) -> Tensor:
    return torch.randn(number, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def assert_half_goes(model: nn.Module) -> nn.Module:
    for name, layer in noise_layers(model).items():
        with torch.no_grad():
            layer.mu.uniform_(-2.0, 0.0)
            layer.mask[torch.randperm(layer.num_structures)[: layer.num_structures // 2]] = 0
        assert scores(model, "l2", example_inputs=rows(3))[name].shape == (layer.num_structures,)
    smaller = compact(model, rows(3))
    for number in (1, 5):  # float64 sums in another order
        assert relative_difference(model, smaller, rows(number, seed=9)) < 1e-12
        assert relative_difference(model, fold(smaller, rows(3)), rows(number, seed=9)) < 1e-12
    return smaller


@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize("how", LINEAR)
def test_neurons_of_a_linear_layer_of_ones_own_get_noise_and_go(how: str, square: bool) -> None:
    torch.manual_seed(0)
    width = 6 if square else 8
    layers = [Own(a, b, *LINEAR[how]) for a, b in ((6, width), (width, width), (width, 2))]
    net = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    model = insert_noise(net.double().eval(), rows(3))
    assert list(noise_layers(model)) == ["0.noise", "2.noise"]
    smaller: Any = assert_half_goes(model)
    assert [(m.in_features, m.out_features) for m in smaller[::2]] == [
        (6, width // 2),
        (width // 2, width // 2),
        (width // 2, 2),
    ]


def test_a_subclass_with_a_forward_method_of_its_own_is_tried() -> None:
    torch.manual_seed(0)
    model = insert_noise(nn.Sequential(Inherited(6, 8), nn.GELU(), Inherited(8, 2)).double().eval(), rows(3))
    assert_half_goes(model)


@pytest.mark.parametrize("what", OTHER)
def test_what_is_no_linear_layer_is_not_taken_for_one(what: str) -> None:
    layer = Own(6, 6, OTHER[what], inputs_first=False)
    assert linear_axes(layer) is None
    assert not is_weighted(layer)


def test_an_activation_that_bends_is_weighted_but_takes_no_factor() -> None:
    layer = Own(6, 8, lambda m, x: torch.tanh(F.linear(x, m.weight, m.bias)), inputs_first=False)
    assert is_weighted(layer)
    assert not is_plain(layer)
    torch.manual_seed(0)
    assert_half_goes(insert_noise(nn.Sequential(layer, nn.Linear(8, 2)).double().eval(), rows(3)))


class Same(nn.Conv2d):
    """Padded as much as its input needs."""

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self._conv_forward(F.pad(x, (1, 1, 1, 1)), self.weight, self.bias)
        return answer


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        answer: Tensor = self._conv_forward(x, self.weight - mean, self.bias)
        return answer


def test_convolutions_of_ones_own_are_tried_too() -> None:
    assert is_plain(Same(3, 4, 3))
    assert is_plain(Same(4, 4, 3, groups=2))
    assert is_plain(Standardised(3, 4, 3))  # linear in its weights all the same


def test_asking_draws_no_random_numbers() -> None:
    layer = Own(6, 8, lambda m, x: F.dropout(F.linear(x, m.weight, m.bias)), inputs_first=False)
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not is_plain(layer)
    assert torch.equal(torch.get_rng_state(), state)
