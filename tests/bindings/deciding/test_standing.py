"""How far structures are from going, without a decision."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bmrs_torch import MultiplicativeNoise, insert_noise, noise_layers, prune
from bmrs_torch.deciding.criteria import find_criterion
from bmrs_torch.deciding.standing import limit_of, standing
from tests.bindings.networks import images, mlp


@pytest.mark.parametrize(
    ("criterion", "options", "limit"),
    [
        ("bmrs_n", {"tolerance": 2.0}, -2.0),
        ("bmrs_n", {"strict": True}, 0.0),
        ("mean", {}, 0.1),
        ("bmrs_n", {"amount": 0.5}, None),
        ("l2", {"budget": {"macs": 0.5}}, None),
    ],
)
def test_the_limit_is_the_rules(criterion: str, options: dict[str, Any], limit: float | None) -> None:
    assert limit_of(criterion, options) == limit


@pytest.mark.parametrize("criterion", ["bmrs_n", "bmrs_u", "snr", "mean"])
def test_structures_go_in_the_order_that_is_told(criterion: str) -> None:
    model = insert_noise(mlp(), images(2))
    with torch.no_grad():
        for layer in noise_layers(model).values():
            layer.mu.uniform_(-18, 0, generator=torch.Generator().manual_seed(0))
            layer.log_sigma.uniform_(-3, 2, generator=torch.Generator().manual_seed(1))
    noise_layers(model)["1.noise"].mask[:2] = 0
    found = standing(model, find_criterion(criterion), {})
    distances = found.distances()
    assert distances is not None
    report = prune(model, criterion)
    gone = {(found.layers[i], int(j)) for i, j in zip(found.layer, found.structure, strict=True)}
    gone -= {(layer.name, int(j)) for layer in report.layers for j in layer.kept.nonzero()[0]}
    meeting = distances <= 0 if found.criterion.is_evidence else distances < 0
    assert 0 < len(gone) == report.pruned_now == meeting.sum()
    first = [(found.layers[i], int(j)) for i, j in zip(found.layer, found.structure, strict=True)][
        : len(gone)
    ]
    assert set(first) == gone


def test_a_layer_of_one_structure_has_nothing_that_can_go() -> None:
    found = standing(MultiplicativeNoise(1), find_criterion("bmrs_n"), {})
    assert found.layer.size == 0
    assert found.scores.size == 1
