"""Scores and ranks: what each criterion reads, and which way it points."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bmrs_torch import MultiplicativeNoise, insert_noise, noise_layers, ranks, scores
from bmrs_torch.deciding.criteria import CRITERIA
from tests.bindings.networks import conv_with_norm, hopeless, images, mlp, noisy

WEIGHT_CRITERIA = ["l2", "gradient", "l2_gradient", "taylor"]


def with_gradients(name: str) -> nn.Module:
    model = noisy(name).eval()
    F.cross_entropy(model(images(32)), torch.arange(32) % 10).backward()
    return model


def by_hand(criterion: str, layer: Any) -> Tensor:
    """A score written out, of a layer whose weights have the structures on their first axis."""
    w, g = (t.detach().double().reshape(len(t), -1) for t in (layer.weight, layer.weight.grad))
    change = (w * g).sum(1)
    if layer.bias is not None:
        change = change + layer.bias.detach().double() * layer.bias.grad.double()
    norms: dict[str, Tensor] = {"l2": w.norm(dim=1), "gradient": g.norm(dim=1)}
    norms["l2_gradient"] = norms["l2"] * norms["gradient"]
    norms["taylor"] = change.abs()
    return norms[criterion]


@pytest.mark.parametrize("criterion", WEIGHT_CRITERIA)
@pytest.mark.parametrize("network", ["mlp", "lenet5", "conv_with_norm"])
def test_scores_of_weights_are_those_of_the_layer_before_the_noise(network: str, criterion: str) -> None:
    model = with_gradients(network)
    found = scores(model, criterion)
    for name, values in found.items():
        expected = by_hand(criterion, model.get_submodule(name.removesuffix(".noise")))
        # The same float64 operations: only the order of a sum may differ.
        np.testing.assert_allclose(values, expected.numpy(), rtol=1e-12, atol=1e-15)


def test_taylor_is_the_derivative_by_the_gate_times_the_gate() -> None:
    """h = θ·(wx + b): the loss knows w and b of a structure only by their product with its θ."""
    torch.manual_seed(0)
    layer, gate = nn.Linear(5, 3), torch.ones(3, dtype=torch.float64, requires_grad=True)
    model, x = nn.Sequential(layer, nn.Tanh(), nn.Linear(3, 2)).double(), torch.randn(16, 5).double()
    insert_noise(model, x)
    loss = (model[2](torch.tanh(F.linear(x, layer.weight, layer.bias) * gate)) ** 2).mean()
    loss.backward()
    assert gate.grad is not None
    # float64 sums of a few products, taken in another order.
    np.testing.assert_allclose(scores(model, "taylor")["0.noise"], gate.grad.abs().numpy(), rtol=1e-12)


def test_gradients_add_up_over_batches() -> None:
    model = with_gradients("mlp")
    once = scores(model, "gradient")
    F.cross_entropy(model(images(32)), torch.arange(32) % 10).backward()
    for name, values in scores(model, "gradient").items():
        np.testing.assert_allclose(values, 2 * once[name], rtol=1e-5)  # float32 gradients, summed


@pytest.mark.parametrize("criterion", ["gradient", "l2_gradient", "taylor"])
def test_missing_gradients_are_an_error_that_says_how_to_get_them(criterion: str) -> None:
    model = insert_noise(mlp(), images(2))
    with pytest.raises(ValueError, match=r"'1' has no gradient: .*loss.backward\(\)"):
        scores(model, criterion)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="frozen"):
        scores(model, criterion)


@pytest.mark.parametrize("criterion", WEIGHT_CRITERIA)
def test_weights_that_are_not_finite_are_an_error_naming_the_layer(criterion: str) -> None:
    model = with_gradients("mlp")
    layer: Any = model.get_submodule("3")
    with torch.no_grad():
        layer.weight[2, 0] = layer.weight.grad[2, 0] = float("nan")
    with pytest.raises(ValueError, match=r"'3' can't be judged.*structure 2 is nan"):
        scores(model, criterion)


def test_noise_on_an_activation_is_scored_by_the_layer_that_feeds_it() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), MultiplicativeNoise(3), nn.Linear(3, 2))
    layer: Any = model[0]
    expected = layer.weight.detach().double().norm(dim=1)
    found = scores(model, "l2", example_inputs=torch.ones(2, 4))
    assert np.array_equal(found["2"], expected.numpy())
    with pytest.raises(ValueError, match=r"'2' doesn't sit on the output.*give example_inputs"):
        scores(model, "l2")


def test_random_scores_depend_on_the_seed_only() -> None:
    first, again = (scores(insert_noise(mlp(), images(2)), "random") for _ in range(2))
    other = scores(insert_noise(mlp(), images(2)), "random", seed=1)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not any(np.array_equal(first[name], other[name]) for name in first)
    assert all(((values >= 0) & (values < 1)).all() for values in first.values())


@pytest.mark.parametrize("criterion", ["bmrs_n", "bmrs_u", "snr", "mean"])
def test_hopeless_structures_rank_first(criterion: str) -> None:
    model = insert_noise(conv_with_norm(), images(2))
    first, second = noise_layers(model)
    hopeless(model, first, [3, 5])
    hopeless(model, second, [0])
    together, within = (ranks(scores(model, criterion), within_layers=flag) for flag in (False, True))
    assert {*together[first][[3, 5]].tolist(), int(together[second][0])} == {0, 1, 2}
    assert sorted(np.concatenate(list(together.values())).tolist()) == list(range(14))
    assert set(within[first][[3, 5]].tolist()) == {0, 1}
    assert within[second][0] == 0


@pytest.mark.parametrize("criterion", sorted(CRITERIA))
def test_scoring_changes_nothing(criterion: str) -> None:
    model = with_gradients("lenet5")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scores(model, criterion)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("criterion", "options", "message"),
    [
        ("snrr", {}, "criterion must be one of"),
        ("snr", {"p1": 4}, "no use for p1"),
        ("bmrs_n", {"seed": 3}, "no use for seed"),
    ],
)
def test_bad_options_are_refused(criterion: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scores(insert_noise(mlp(), images(2)), criterion, **options)
