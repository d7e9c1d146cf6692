"""Layers that compute their weights, by weight_norm or spectral_norm, of old or new, shrink as others do."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm

from bmrs_torch import compact, fold, insert_noise, noise_layers
from bmrs_torch.surgery.computed_weights import put
from bmrs_torch.surgery.verification import relative_difference

EXACT = 1e-12
"""Of float64 sums in another order."""

Norm = Callable[[nn.Module], nn.Module]


def quietly_old_weight_norm(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that it is deprecated
        return old_weight_norm(layer)


class Doubled(nn.Module):
    """A parametrization that can't be turned round, and goes entry by entry."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x.tanh()


def doubled(layer: nn.Module) -> nn.Module:
    return parametrize.register_parametrization(layer, "weight", Doubled())


NORMS: dict[str, tuple[Norm, bool]] = {  # and whether the smaller layer still computes its weight
    "weight_norm": (parametrizations.weight_norm, True),
    "weight_norm of all": (lambda layer: parametrizations.weight_norm(layer, dim=-1), True),
    "spectral_norm": (parametrizations.spectral_norm, False),
    "old weight_norm": (quietly_old_weight_norm, True),
    "old spectral_norm": (old_spectral_norm, False),
    "entry by entry": (doubled, True),
    "orthogonal": (parametrizations.orthogonal, False),
}
LAYERS: dict[str, Callable[[], tuple[nn.Module, ...]]] = {
    "linear": lambda: (nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2)),
    "convolution": lambda: (nn.Conv1d(6, 8, 1), nn.Conv1d(8, 8, 3), nn.Conv1d(8, 2, 1)),
    "grouped": lambda: (nn.Conv1d(6, 8, 1), nn.Conv1d(8, 8, 3, groups=4), nn.Conv1d(8, 2, 1)),
    "transposed": lambda: (nn.ConvTranspose1d(6, 8, 1), nn.ConvTranspose1d(8, 8, 3), nn.Conv1d(8, 2, 1)),
}


def example(kind: str, number: int, seed: int = 0) -> Tensor:
    shape = (number, 6) if kind == "linear" else (number, 6, 9)
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def network(norm: Norm, kind: str) -> nn.Module:
    torch.manual_seed(0)
    first, second, last = map(norm, LAYERS[kind]())
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last).double().eval()


def halved(model: nn.Module) -> nn.Module:
    for layer in noise_layers(model).values():
        with torch.no_grad():
            layer.mu.uniform_(-2.0, 0.0)
        layer.mask[: layer.num_structures // 2] = 0
    return model


def is_computed(layer: nn.Module) -> bool:
    return "weight" not in layer._parameters


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("norm", NORMS)
def test_a_layer_that_computes_its_weight_shrinks_exactly(norm: str, kind: str) -> None:
    make, stays = NORMS[norm]
    model = halved(insert_noise(network(make, kind), example(kind, 3)))
    model.train()(example(kind, 3)).sum().backward()  # what hooks of old computed holds a graph now
    model.eval()
    smaller: Any = compact(model, example(kind, 3))
    assert [layer.weight.shape[:2].numel() for layer in smaller[::2]] == [
        6 * 4,
        4 * (2 if kind == "grouped" else 4),
        4 * 2,
    ]
    assert is_computed(smaller[2]) == stays
    for number in (1, 5):
        assert relative_difference(model, smaller, example(kind, number, seed=9)) < EXACT
        folded = fold(smaller, example(kind, 3))
        assert relative_difference(model, folded, example(kind, number, seed=9)) < EXACT
    smaller.train()(example(kind, 3)).sum().backward()


@pytest.mark.parametrize("norm", NORMS)
def test_an_optimizer_goes_on_with_such_layers(norm: str) -> None:
    x = example("linear", 3)
    model = halved(insert_noise(network(NORMS[norm][0], "linear"), x))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(2):
        model(x).square().sum().backward()
        optimizer.step()
    smaller = compact(model, x, optimizer=optimizer)
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in smaller.parameters()}
    before = copy.deepcopy(smaller.state_dict())
    optimizer.zero_grad()
    smaller(x).square().sum().backward()
    optimizer.step()
    assert any(not torch.equal(before[key], value) for key, value in smaller.state_dict().items())


@pytest.mark.parametrize("norm", NORMS)
def test_a_weight_that_is_put_is_the_weight(norm: str) -> None:
    torch.manual_seed(0)
    layer = NORMS[norm][0](nn.Linear(4, 3).double()).eval()
    layer(torch.zeros(1, 4, dtype=torch.float64))
    value = torch.randn(3, 4, dtype=torch.float64)
    put(layer, "weight", value)
    identity = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(layer(identity) - layer(0 * identity), value.T, rtol=1e-12, atol=1e-12)
