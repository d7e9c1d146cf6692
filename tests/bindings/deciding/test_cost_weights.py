"""Weights of the divergence by what structures cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bmrs_torch import (
    Pruner,
    compact,
    cost_weights,
    coupled_gates,
    elbo_loss,
    fold,
    insert_noise,
    kl_divergence,
    noise_layers,
)
from bmrs_torch.costs.counting import count_macs, count_plain_parameters
from tests.bindings.costs.test_terms import PICTURES, residual
from tests.bindings.networks import conv_with_norm, images, mlp


def saved_by_cutting(model: nn.Module, inputs: Tensor, cost: str) -> dict[str, float]:
    """What the first structure of each layer saves, with what goes with it, for each gate of that."""

    def of(network: nn.Module) -> float:
        if cost == "parameters":
            return count_plain_parameters(network)
        return count_macs(network.eval(), inputs)[""]

    layers, whole = noise_layers(model), of(model)
    found: dict[str, float] = {}
    for group in coupled_gates(model, inputs):
        if (
            0 not in [i for structures in group.values() for i in structures]
            or not group.keys() - found.keys()
        ):
            continue
        for name, structures in group.items():
            layers[name].mask[list(structures)] = 0
        small = of(fold(compact(model, inputs), inputs))
        found |= dict.fromkeys(group, (whole - small) / sum(map(len, group.values())))
        for layer in layers.values():
            layer.mask.fill_(1)
    return found


@pytest.mark.parametrize("cost", ["macs", "parameters"])
@pytest.mark.parametrize("build", [mlp, conv_with_norm, residual])
def test_weights_are_what_cutting_saves(build: Any, cost: str) -> None:
    inputs = PICTURES if build is residual else images(2)
    model = build() if build is residual else insert_noise(build(), inputs)
    expected = saved_by_cutting(model, inputs, cost)
    weights = cost_weights(model, inputs, cost)
    sizes = {name: layer.num_structures for name, layer in noise_layers(model).items()}
    total = sum(sizes.values())
    assert sum(weights[each] * sizes[each] for each in sizes) / total == pytest.approx(1)
    mean = sum(expected[each] * sizes[each] for each in sizes) / total
    assert weights == pytest.approx({each: value / mean for each, value in expected.items()})


def two_layers() -> nn.Module:
    layers = nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)
    return insert_noise(nn.Sequential(*layers), torch.ones(2, 4))


@pytest.mark.parametrize("scale", ["elbo", "published"])
def test_the_objective_weighs_the_layers(scale: Any) -> None:
    model = two_layers().requires_grad_(False)
    options: dict[str, Any] = {"num_samples": 10, "kl_scale": scale, "kl_weight": 2.0}
    nothing = torch.zeros((), dtype=torch.float64)
    alone = [
        float(
            elbo_loss(
                nothing, model, layer_weights={**dict.fromkeys(noise_layers(model), 0.0), one: 1.0}, **options
            )
        )
        for one in noise_layers(model)
    ]
    assert sum(alone) == pytest.approx(float(elbo_loss(nothing, model, **options)))
    if scale == "elbo":
        assert sum(alone) == pytest.approx(2.0 * float(kl_divergence(model)) / 10)
    weights = dict(zip(noise_layers(model), (3.0, 0.5), strict=True))
    weighed = 3.0 * alone[0] + 0.5 * alone[1]
    assert float(elbo_loss(nothing, model, layer_weights=weights, **options)) == pytest.approx(weighed)
    pruner = Pruner(model, layer_weights=weights, **options)
    assert float(pruner.loss(nothing)) == pytest.approx(weighed)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ({"0.noise": 1.0}, ValueError, "'2.noise' has none, got those of '0.noise'"),
        ({"0.noise": 1.0, "2.noise": -1.0}, ValueError, "must be finite and at least 0"),
        ({"0.noise": 1.0, "2.noise": "much"}, TypeError, "must be a number"),
    ],
)
def test_weights_that_are_none_are_refused(weights: Any, error: type[Exception], message: str) -> None:
    for call in (Pruner, lambda model, **options: elbo_loss(torch.zeros(()), model, **options)):
        with pytest.raises(error, match=message):
            call(two_layers(), num_samples=10, layer_weights=weights)


def test_an_unknown_cost_is_refused() -> None:
    with pytest.raises(ValueError, match="cost must be one of macs, parameters, bytes, got 'latency'"):
        cost_weights(two_layers(), torch.ones(2, 4), "latency")
