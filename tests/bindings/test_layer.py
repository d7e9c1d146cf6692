"""The layer: training and evaluation, its state, and what it refuses."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bmrs_core import mean
from bmrs_torch import MultiplicativeNoise, noise_layers


def test_parameters_start_where_the_paper_starts_them() -> None:
    layer = MultiplicativeNoise(3)
    assert layer.mu.tolist() == [0.0] * 3
    assert layer.log_sigma.tolist() == [-5.0] * 3
    assert layer.mask.tolist() == [1.0] * 3


def test_training_draws_new_noise_each_time_and_evaluation_none() -> None:
    layer, x = MultiplicativeNoise(3), torch.ones(4, 3)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_evaluation_multiplies_by_the_expected_noise_of_now() -> None:
    layer = MultiplicativeNoise(2).eval()
    x = torch.ones(1, 2)
    before = layer(x)
    with torch.no_grad():
        layer.mu.copy_(torch.tensor([-1.0, -3.0]))
    after = layer(x)
    expected = mean(layer.mu.detach().double().numpy(), layer.log_sigma.detach().double().exp().numpy())
    torch.testing.assert_close(after[0].double(), torch.from_numpy(expected), rtol=1e-6, atol=0.0)  # float32
    assert not torch.equal(before, after)
    layer.load_state_dict(MultiplicativeNoise(2).state_dict())
    assert torch.equal(layer(x), before)


def test_evaluation_is_the_mean_of_training() -> None:
    torch.manual_seed(3)
    layer = MultiplicativeNoise(2)
    with torch.no_grad():
        layer.mu.copy_(torch.tensor([-1.0, -2.0]))
        layer.log_sigma.copy_(torch.tensor([-1.0, 0.5]))
    draws = layer(torch.ones(40_000, 2))
    standard_errors = draws.std(0) / len(draws) ** 0.5
    assert bool(((draws.mean(0) - layer.eval()(torch.ones(1, 2))[0]).abs() < 6 * standard_errors).all())


def test_evaluation_is_differentiable_in_the_parameters() -> None:
    layer = MultiplicativeNoise(2).double().eval()
    x = torch.tensor([[0.7, -1.3]], dtype=torch.float64)

    def evaluate(mu: torch.Tensor, log_sigma: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = torch.func.functional_call(layer, {"mu": mu, "log_sigma": log_sigma}, (x,))
        return answer

    mu = torch.tensor([-1.0, -4.0], dtype=torch.float64, requires_grad=True)
    log_sigma = torch.tensor([-1.0, 0.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(evaluate, (mu, log_sigma))


@pytest.mark.parametrize("training", [True, False])
def test_a_pruned_structure_gives_zero(training: bool) -> None:
    layer = MultiplicativeNoise(3).train(training)
    layer.mask[1] = 0
    y = layer(torch.ones(5, 3, 2, 2))
    assert not y[:, 1].any()
    assert bool((y[:, [0, 2]] > 0).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("training", [True, False])
def test_output_has_shape_and_dtype_of_the_input(dtype: torch.dtype, training: bool) -> None:
    layer = MultiplicativeNoise(4, axis=-1).train(training)
    y = layer(torch.ones(2, 5, 4, dtype=dtype))
    assert y.shape == (2, 5, 4)
    assert y.dtype == dtype


def test_it_survives_deepcopy_state_dict_and_dtype_changes() -> None:
    layer = MultiplicativeNoise(3, axis=-1, share="batch", log_a=-10.0, log_b=-1.0)
    layer.mask[0] = 0
    layer.eval()(torch.ones(2, 3)).sum().backward()
    copied = copy.deepcopy(layer)
    restored = MultiplicativeNoise(3, axis=-1, share="batch", log_a=-10.0, log_b=-1.0).eval()
    restored.load_state_dict(layer.state_dict())
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(copied(x), layer(x))
    assert torch.equal(restored(x), layer(x))
    assert layer.double()(x.double()).dtype == torch.float64


def test_it_says_what_it_is() -> None:
    layer = MultiplicativeNoise(3, share="batch")
    layer.mask[1] = 0
    assert repr(layer) == ("MultiplicativeNoise(3, pruned=1, axis=1, share='batch', log_a=-20, log_b=0)")


def test_evaluation_checks_its_input_as_training_does() -> None:
    layer = MultiplicativeNoise(3)
    for mode in (True, False):
        with pytest.raises(ValueError, match="2 structures on axis 1"):
            layer.train(mode)(torch.ones(4, 2))
        with pytest.raises(TypeError, match="float32"):
            layer.train(mode)(torch.ones(4, 3, dtype=torch.int64))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"num_structures": 0}, "at least 1"), ({"share": "row"}, "share"), ({"log_a": 0.0}, "log_a < log_b")],
)
def test_bad_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiplicativeNoise(**({"num_structures": 2} | arguments))  # type: ignore[arg-type]


def test_layers_are_found_by_name_subclasses_too_and_shared_ones_once() -> None:
    class Special(MultiplicativeNoise):
        pass

    shared = Special(2)
    model = nn.Sequential(nn.Linear(2, 2), shared, nn.Linear(2, 2), shared, MultiplicativeNoise(2))
    assert list(noise_layers(model)) == ["1", "4"]


def test_a_model_without_noise_is_an_error() -> None:
    with pytest.raises(ValueError, match="insert_noise"):
        noise_layers(nn.Linear(2, 2))
