"""Criteria, rules and masks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bmrs_core import delta_f_normal, delta_f_uniform, mean, snr
from bmrs_torch import HALF_LOG_2PI, MultiplicativeNoise, insert_noise, kl_divergence, noise_layers, prune
from tests.bindings.networks import hopeless, images, mlp


def layer_with(mu: list[float], log_sigma: list[float], **options: Any) -> MultiplicativeNoise:
    layer = MultiplicativeNoise(len(mu), **options)
    with torch.no_grad():
        layer.mu.copy_(torch.tensor(mu))
        layer.log_sigma.copy_(torch.tensor(log_sigma))
    return layer


def arrays(layer: MultiplicativeNoise) -> tuple[np.ndarray, np.ndarray]:
    return layer.mu.detach().double().numpy(), layer.log_sigma.detach().double().exp().numpy()


SPREAD = ([0.0, -1.0, -3.0, -9.0, -12.0, -19.0], [-5.0, 0.0, 0.5, 1.0, 2.0, 3.0])


def test_scores_are_those_of_the_core_with_the_layers_bounds() -> None:
    layer = layer_with(*SPREAD, log_a=-25.0, log_b=1.0)
    bounds: dict[str, Any] = {"log_a": -25.0, "log_b": 1.0}
    mu, sigma = arrays(layer)
    expected = {
        "bmrs_n": delta_f_normal(mu, sigma, **bounds),
        "bmrs_u": delta_f_uniform(mu, sigma, **bounds),
        "snr": snr(mu, sigma, **bounds),
        "mean": mean(mu, sigma, **bounds),
    }
    for criterion, scores in expected.items():
        layer.mask.fill_(1)
        assert np.array_equal(prune(layer, criterion).layers[0].scores, scores)


@pytest.mark.parametrize(
    ("criterion", "options", "prunes"),
    [
        ("bmrs_n", {}, lambda mu, sigma: delta_f_normal(mu, sigma) >= -0.5 * math.log(2 * math.pi)),
        ("bmrs_n", {"strict": True}, lambda mu, sigma: delta_f_normal(mu, sigma) >= 0),
        ("bmrs_n", {"tolerance": 1e3}, lambda mu, sigma: delta_f_normal(mu, sigma) >= -1e3),
        ("bmrs_u", {}, lambda mu, sigma: delta_f_uniform(mu, sigma) >= 0),
        ("bmrs_u", {"p1": 4}, lambda mu, sigma: delta_f_uniform(mu, sigma, p1=4) >= 0),
        ("bmrs_u", {"p2": None}, lambda mu, sigma: delta_f_uniform(mu, sigma, p2=None) >= 0),
        ("bmrs_u", {"p2": 12}, lambda mu, sigma: delta_f_uniform(mu, sigma, p2=12) >= 0),
        ("snr", {}, lambda mu, sigma: snr(mu, sigma) < 1),
        ("snr", {"threshold": 2.0}, lambda mu, sigma: snr(mu, sigma) < 2),
        ("mean", {}, lambda mu, sigma: mean(mu, sigma) < 0.1),
        ("mean", {"threshold": 0.3}, lambda mu, sigma: mean(mu, sigma) < 0.3),
    ],
)
def test_the_rule_decides_the_mask(criterion: str, options: dict[str, Any], prunes: Any) -> None:
    layer = layer_with(*SPREAD)
    report = prune(layer, criterion, **options)
    expected = ~prunes(*arrays(layer))
    assert expected.any()
    assert np.array_equal(layer.kept().numpy(), expected)
    assert np.array_equal(report.layers[0].kept, expected)
    assert report.pruned_now == int((~expected).sum())


def test_structures_the_data_say_nothing_about_need_the_tolerance() -> None:
    """q = p has ΔF = 0 exactly; what training makes of it lies a hair below, within ½·log 2π."""
    layer = layer_with([0.0, -10.0], [-5.0, 6.0])
    assert -HALF_LOG_2PI < delta_f_normal(*arrays(layer))[1] < 0
    assert prune(layer, strict=True).pruned_now == 0
    assert prune(layer).pruned_now == 1


def test_l2_prunes_the_smallest_weights_of_each_layer_up_to_the_amount() -> None:
    model = insert_noise(mlp(), images(2))
    for name, amount in (("1", 0.25), ("3", 0.6)):
        layer = model.get_submodule(name)
        noise = noise_layers(model)[f"{name}.noise"]
        noise.mask.fill_(1)
        prune(model, "l2", amount=amount)
        norms = layer.weight.detach().norm(dim=1)  # type: ignore[operator]
        pruned = ~noise.kept()
        assert int(pruned.sum()) == round(amount * len(norms))
        assert norms[pruned].max() < norms[~pruned].min()
        assert prune(model, "l2", amount=amount).pruned_now == 0


def test_a_pruned_structure_stays_pruned_and_leaves_the_kl() -> None:
    layer = layer_with([-18.0, 0.0, -18.0], [1.0, -5.0, 1.0])
    assert prune(layer).num_kept == 1
    kl = kl_divergence(layer)
    with torch.no_grad():
        layer.mu.fill_(0.0)
        layer.log_sigma.fill_(-5.0)
    assert prune(layer).pruned_now == 0
    assert layer.mask.tolist() == [0.0, 1.0, 0.0]
    assert kl_divergence(layer) == kl


@pytest.mark.parametrize(
    ("criterion", "options"),
    [
        ("bmrs_n", {"tolerance": 1e9}),
        ("bmrs_u", {"tolerance": 1e9}),
        ("snr", {"threshold": 1e9}),
        ("mean", {"threshold": 2}),
    ],
)
def test_a_layer_keeps_its_best_structure(criterion: str, options: dict[str, Any]) -> None:
    layer = layer_with([-3.0, 0.0, -6.0], [-1.0, -5.0, -1.0])
    report = prune(layer, criterion, **options)
    assert layer.mask.tolist() == [0.0, 1.0, 0.0]
    assert report.layers[0].spared == 1
    assert "structure 1 spared" in str(report)


def test_the_report_reads_well() -> None:
    model = insert_noise(mlp(), images(2))
    hopeless(model, "3.noise", [2, 5])
    assert str(prune(model)).splitlines() == [
        "prune where ΔF_N ≥ -0.9189: 2 pruned",
        "1.noise: 20 of 20 kept, 0 pruned now",
        "3.noise: 13 of 15 kept, 2 pruned now",
    ]


@pytest.mark.parametrize("parameter", ["mu", "log_sigma"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_parameters_that_are_not_finite_are_an_error_and_nothing_is_pruned(
    parameter: str, value: float
) -> None:
    model = insert_noise(mlp(), images(2))
    hopeless(model, "1.noise", [0])
    with torch.no_grad():
        getattr(noise_layers(model)["3.noise"], parameter)[4] = value
    with pytest.raises(
        ValueError, match=f"'3.noise' can't be judged: {parameter} has 1 non-finite.*structure 4"
    ):
        prune(model)
    assert all(bool(layer.kept().all()) for layer in noise_layers(model).values())


@pytest.mark.parametrize(
    ("criterion", "options", "message"),
    [
        ("bmrs", {}, "criterion must be one of 'bmrs_n'"),
        ("bmrs_n", {"threshold": 1.0}, "takes tolerance, strict or an amount, got threshold"),
        ("bmrs_n", {"p1": 4}, "no use for p1"),
        ("bmrs_n", {"p2": None}, "no use for p2"),
        ("snr", {"tolerance": 1.0}, "got tolerance"),
        ("mean", {"strict": True}, "got strict"),
        ("bmrs_n", {"tolerance": -1.0}, "tolerance is in nats"),
        ("bmrs_n", {"tolerance": float("nan")}, "tolerance is in nats"),
        ("bmrs_n", {"tolerance": 0.5, "strict": True}, "give one of them"),
        ("bmrs_u", {"p1": 9, "p2": 4}, "p1"),
        ("snr", {"threshold": 0.0}, "threshold must be positive"),
        ("l2", {}, "amount"),
        ("l2", {"amount": 1.0}, "amount"),
    ],
)
def test_bad_options_are_refused(criterion: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prune(insert_noise(mlp(), images(2)), criterion, **options)


def test_a_model_without_noise_is_an_error() -> None:
    with pytest.raises(ValueError, match="no MultiplicativeNoise layer"):
        prune(nn.Linear(2, 2))
