"""The objective: the KL divergence of a model, both scales of it, and the learning rates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from bmrs_core import kl_divergence as kl_of_arrays
from bmrs_torch import (
    MultiplicativeNoise,
    compact,
    default_kl_weight,
    elbo_loss,
    insert_noise,
    kl_divergence,
    noise_layers,
    parameter_groups,
)


def two_layers() -> nn.Sequential:
    model = nn.Sequential(MultiplicativeNoise(2), MultiplicativeNoise(3, log_a=-10.0, log_b=-1.0)).double()
    with torch.no_grad():
        for i, layer in enumerate(noise_layers(model).values()):
            layer.mu.copy_(torch.linspace(-8.0, -2.0, layer.num_structures) - i)
            layer.log_sigma.copy_(torch.linspace(-1.0, 1.0, layer.num_structures))
    return model


def kl_by_hand(model: nn.Module) -> list[torch.Tensor]:
    return [
        torch.as_tensor(
            kl_of_arrays(
                layer.mu.detach().numpy(),
                layer.log_sigma.detach().exp().numpy(),
                log_a=layer.log_a,
                log_b=layer.log_b,
            )
        )[layer.kept()]
        for layer in noise_layers(model).values()
    ]


def test_kl_is_the_sum_over_layers_each_with_its_bounds() -> None:
    model = two_layers()
    # Two texts of one formula, both accurate to a few eps.
    torch.testing.assert_close(kl_divergence(model), torch.cat(kl_by_hand(model)).sum(), rtol=1e-13, atol=0.0)


class Divergence(nn.Module):
    """kl_divergence as a function of the parameters, for gradcheck."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self) -> torch.Tensor:
        return kl_divergence(self.model)


def test_kl_gradient_equals_finite_differences() -> None:
    objective = Divergence(two_layers())
    names, values = zip(
        *((n, p.detach().clone().requires_grad_()) for n, p in objective.named_parameters()), strict=True
    )

    def divergence(*parameters: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = torch.func.functional_call(
            objective, dict(zip(names, parameters, strict=True)), ()
        )
        return answer

    assert torch.autograd.gradcheck(divergence, values)


def test_a_pruned_structure_adds_nothing_and_gets_no_gradient() -> None:
    model = two_layers()
    first = noise_layers(model)["0"]
    first.mask[0] = 0
    torch.testing.assert_close(kl_divergence(model), torch.cat(kl_by_hand(model)).sum(), rtol=1e-13, atol=0.0)
    kl_divergence(model).backward()
    assert first.mu.grad is not None
    assert first.mu.grad[0] == 0
    assert first.mu.grad[1] != 0


def test_elbo_scale_is_the_sum_over_the_number_of_samples() -> None:
    model, nll = two_layers(), torch.tensor(0.5, dtype=torch.float64)
    expected = nll + 30.0 * torch.cat(kl_by_hand(model)).sum() / 1000
    loss = elbo_loss(nll, model, num_samples=1000, kl_weight=30.0)
    torch.testing.assert_close(loss, expected, rtol=1e-13, atol=0.0)


def published(model: nn.Module, **options: Any) -> torch.Tensor:
    nothing = torch.tensor(0.0, dtype=torch.float64)
    return elbo_loss(nothing, model, num_samples=1000, kl_scale="published", **options)


def test_published_scale_is_the_mean_over_layers_of_the_mean_over_all_structures() -> None:
    model = two_layers()
    noise_layers(model)["1"].mask[2] = 0
    first, second = kl_by_hand(model)
    expected = (first.sum() / 2 + second.sum() / 3) / 2
    torch.testing.assert_close(published(model), expected, rtol=1e-13, atol=0.0)


def test_published_scale_presses_no_structure_harder_because_others_are_pruned() -> None:
    model = two_layers()
    layer = noise_layers(model)["1"]
    (before,) = torch.autograd.grad(published(model), layer.mu)
    layer.mask[:2] = 0
    (after,) = torch.autograd.grad(published(model), layer.mu)
    assert after[2] == before[2]


def test_published_scale_counts_a_layer_without_structures_left() -> None:
    model = two_layers()
    noise_layers(model)["0"].mask.zero_()
    expected = kl_by_hand(model)[1].sum() / 3 / 2
    torch.testing.assert_close(published(model), expected, rtol=1e-13, atol=0.0)


def test_numbers_from_before_surgery_make_the_shrunk_network_count_as_the_masked_one() -> None:
    model = insert_noise(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)), torch.ones(2, 3))
    before = {name: layer.num_structures for name, layer in noise_layers(model).items()}
    next(iter(noise_layers(model).values())).mask[1:] = 0
    shrunk = compact(model, torch.ones(2, 3))
    # The same sum of float32 terms, each times the same number.
    torch.testing.assert_close(published(shrunk, num_structures=before), published(model))
    # Without them the one that is left stands for all eight.
    torch.testing.assert_close(published(shrunk), 8 * published(model))


@pytest.mark.parametrize("numbers", [{"0": 2}, {"0": 2, "1": 2}])
def test_numbers_from_before_that_can_not_be_are_refused(numbers: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"num_structures.*at least the 3 that '1' has now"):
        published(two_layers(), num_structures=numbers)


def test_published_scale_can_be_asked_for_in_inference_before_it_is_trained_with() -> None:
    # Sizes that no other test has, so that this one fills the cache.
    model = nn.Sequential(MultiplicativeNoise(17), MultiplicativeNoise(19))
    with torch.inference_mode():
        published(model)
    published(model).backward()


@pytest.mark.parametrize(
    ("num_samples", "kl_scale", "weight"),
    [(60_000, "elbo", 30.0), (2000, "elbo", 1.0), (1400, "elbo", 1.0), (60_000, "published", 1.0)],
)
def test_the_default_weight_lets_the_divergence_count_a_two_thousandth(
    num_samples: int, kl_scale: Any, weight: float
) -> None:
    assert default_kl_weight(num_samples, kl_scale) == weight
    model, nll = two_layers(), torch.tensor(0.5)
    options: dict[str, Any] = {"num_samples": num_samples, "kl_scale": kl_scale}
    assert elbo_loss(nll, model, **options) == elbo_loss(nll, model, kl_weight=weight, **options)


@pytest.mark.parametrize("options", [{"num_samples": 0}, {"num_samples": 9, "kl_scale": "mean"}])
def test_no_default_weight_for_what_the_objective_refuses(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"num_samples|kl_scale"):
        default_kl_weight(**options)


def test_loss_keeps_the_dtype_of_the_likelihood() -> None:
    assert elbo_loss(torch.tensor(0.5), two_layers(), num_samples=10).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kl_scale": "mean"}, "kl_scale must be 'elbo'"),
        ({"num_samples": 0}, "num_samples"),
        ({"kl_weight": -1.0}, "kl_weight"),
        ({"kl_weight": float("nan")}, "kl_weight"),
        ({"nll_mean": torch.ones(2)}, "scalar"),
        ({"model": nn.Linear(2, 2)}, "no MultiplicativeNoise layer"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, object], message: str) -> None:
    arguments = {"nll_mean": torch.tensor(0.5), "model": two_layers(), "num_samples": 10} | options
    with pytest.raises(ValueError, match=message):
        elbo_loss(**arguments)  # type: ignore[arg-type]


def test_parameters_that_are_not_finite_are_an_error_naming_the_layer() -> None:
    model = two_layers()
    with torch.no_grad():
        noise_layers(model)["1"].log_sigma[2] = float("nan")
    with pytest.raises(ValueError, match=r"^1: .*log_sigma=nan at structure 2"):
        kl_divergence(model)


def test_noise_learns_faster_than_the_weights() -> None:
    model = insert_noise(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.ones(2, 3))
    weights, noise = parameter_groups(model, 0.01)
    assert (weights["lr"], noise["lr"]) == (0.01, 0.1)
    assert {id(p) for p in weights["params"]} | {id(p) for p in noise["params"]} == {
        id(p) for p in model.parameters()
    }
    assert {id(p) for p in noise["params"]} == {
        id(p) for n in noise_layers(model).values() for p in n.parameters()
    }
    torch.optim.SGD([weights, noise], lr=1.0, weight_decay=0.1)


def test_frozen_parameters_are_left_out_of_the_groups() -> None:
    model = insert_noise(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.ones(2, 3))
    model[2].requires_grad_(False)  # type: ignore[index]
    assert [len(group["params"]) for group in parameter_groups(model, 0.01)] == [2, 2]


@pytest.mark.parametrize("rates", [(0.0, 10.0), (0.01, -1.0), (float("nan"), 10.0)])
def test_bad_learning_rates_are_refused(rates: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        parameter_groups(two_layers(), *rates)
