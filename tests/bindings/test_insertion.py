"""Where noise is inserted, where it isn't, and what is said about it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bmrs_torch import MultiplicativeNoise, fold, insert_noise, noise_layers, plan_insertion
from tests.bindings.networks import LeNet5, conv_with_norm, images, mlp


def test_mlp_gets_noise_after_each_hidden_layer() -> None:
    layers = noise_layers(insert_noise(mlp(), share="batch", log_a=-10.0, log_b=-1.0))
    assert [(name, n.num_structures, n.axis) for name, n in layers.items()] == [
        ("1.noise", 20, -1),
        ("3.noise", 15, -1),
    ]
    assert {(n.share, n.log_a, n.log_b) for n in layers.values()} == {("batch", -10.0, -1.0)}


def test_lenet_gets_noise_on_filters_and_neurons() -> None:
    layers = noise_layers(insert_noise(LeNet5()))
    assert [(name, n.num_structures, n.axis) for name, n in layers.items()] == [
        ("conv1.noise", 6, 1),
        ("conv2.noise", 16, 1),
        ("fc1.noise", 120, -1),
        ("fc2.noise", 84, -1),
    ]


def test_noise_multiplies_the_preactivation() -> None:
    model = insert_noise(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)))
    noise = noise_layers(model)["0.noise"]
    with torch.no_grad():
        noise.mu.fill_(-1.0)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    linear = model.get_submodule("0.layer")
    expected = model.get_submodule("2")(torch.tanh(linear(x) * noise.expected_noise().float()))
    assert torch.equal(model.eval()(x), expected)


def test_noise_goes_after_a_batch_norm_that_follows_the_layer() -> None:
    assert list(noise_layers(insert_noise(conv_with_norm()))) == ["1.noise", "5.noise"]


def test_the_plan_says_what_is_passed_over_and_touches_nothing() -> None:
    model = mlp()
    names = list(model.state_dict())
    assert str(plan_insertion(model)).splitlines() == [
        "1: noise on 20 structures (axis -1)",
        "3: noise on 15 structures (axis -1)",
        "5: none, it is an output layer",
    ]
    assert list(model.state_dict()) == names


def test_layers_that_have_noise_get_no_more() -> None:
    model = insert_noise(mlp())
    with pytest.raises(ValueError, match="it already has noise"):
        insert_noise(model)


def test_a_layer_called_twice_is_passed_over() -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(nn.Linear(3, 4), shared, shared, nn.Linear(4, 2))
    assert dict(plan_insertion(model).passed_over)["1"].startswith("it is called more than once")
    assert list(noise_layers(insert_noise(model))) == ["0.noise"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(3, 2)), "0: it is an output layer"),
        (nn.Sequential(nn.ReLU()), "it calls no Linear or Conv layer"),
        (nn.Linear(3, 2), "no noise could be inserted"),
    ],
)
def test_nothing_to_insert_is_an_error(model: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        insert_noise(model)


def test_a_forward_method_that_branches_on_values_is_an_error() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.layer(x) if x.sum() > 0 else x
            return answer

    with pytest.raises(ValueError, match=r"torch\.fx can't follow.*Branching"):
        insert_noise(Branching())


def test_noise_takes_dtype_and_mode_of_its_layer() -> None:
    model = insert_noise(mlp().double().eval())
    assert all(n.mu.dtype == torch.float64 and not n.training for n in noise_layers(model).values())


def test_folding_undoes_the_insertion() -> None:
    model = LeNet5().eval()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    insert_noise(model)
    folded = fold(model)
    assert list(folded.state_dict()) == list(weights)
    assert not any(isinstance(m, MultiplicativeNoise) for m in folded.modules())
    torch.testing.assert_close(folded(images(2)), model(images(2)), rtol=1e-5, atol=1e-6)  # float32 sums
