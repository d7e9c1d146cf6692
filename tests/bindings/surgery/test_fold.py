"""Folding: the same answers from an ordinary network."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from bmrs_torch import (
    MultiplicativeNoise,
    NotFoldableError,
    compact,
    fold,
    insert_noise,
    noise_layers,
)
from bmrs_torch.surgery.verification import RELATIVE_TOLERANCE, relative_difference
from tests.bindings.networks import NETWORKS, LeNet5, images, noisy


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("compacted", [False, True])
def test_folded_answers_as_evaluated_and_is_plain(name: str, compacted: bool) -> None:
    model = noisy(name)
    if compacted:
        model = compact(model, images(4))
    before = copy.deepcopy(model.state_dict())
    folded = fold(model, images(4))
    assert relative_difference(model, folded, images(16, seed=9)) <= RELATIVE_TOLERANCE
    assert not any(type(module).__module__.startswith("bmrs_torch") for module in folded.modules())
    assert list(folded.state_dict()) == list(NETWORKS[name]().state_dict())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert folded.training == model.training


def test_a_folded_network_can_be_saved_and_loaded_as_any_other() -> None:
    folded = fold(noisy("lenet5"), images(2))
    restored = LeNet5()
    restored.load_state_dict(folded.state_dict())
    assert torch.equal(restored(images(3)), folded(images(3)))


def noise(number: int, axis: int = 1) -> MultiplicativeNoise:
    layer = MultiplicativeNoise(number, axis=axis)
    with torch.no_grad():
        layer.mu.uniform_(-3.0, 0.0)
    return layer


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.noise, self.last = nn.Linear(4, 3), noise(3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.last(torch.relu(self.noise(self.first(x))))
        return answer


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Sequential(nn.Linear(4, 3), noise(3), nn.ReLU(), nn.Linear(3, 2)),
        lambda: nn.Sequential(
            nn.Linear(4, 3, bias=False), nn.ReLU(), nn.Dropout(0.5), noise(3), nn.Linear(3, 2)
        ),
        lambda: nn.Sequential(nn.Linear(4, 3), noise(3), nn.Linear(3, 3), noise(3, axis=-1), nn.Linear(3, 2)),
        Named,
    ],
)
def test_noise_placed_by_hand_folds_too(build: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model, x = build(), torch.randn(5, 4)
    folded = fold(model, x)
    assert relative_difference(model, folded, x) <= RELATIVE_TOLERANCE
    assert not any(isinstance(module, MultiplicativeNoise) for module in folded.modules())


def test_items_of_a_sequence_keep_their_names() -> None:
    from collections import OrderedDict

    items = OrderedDict([("a", nn.Linear(4, 3)), ("n", noise(3)), ("b", nn.Linear(3, 2))])
    assert list(dict(fold(nn.Sequential(items), torch.ones(2, 4)).named_children())) == ["a", "b"]


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (nn.Sequential(nn.Linear(4, 3), nn.Tanh(), noise(3), nn.LayerNorm(3)), (2, 4), "noise layer '2'"),
        (
            nn.Sequential(nn.Conv2d(1, 3, 2), noise(3, axis=2), nn.Flatten(), nn.Linear(81, 2)),
            (2, 1, 4, 10),
            "noise layer '1'",
        ),
    ],
)
def test_noise_that_can_not_be_folded_is_an_error_that_names_it(
    model: nn.Module, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(NotFoldableError, match=message):
        fold(model, torch.ones(shape))


def test_shared_weights_fold_into_weights_of_their_own() -> None:
    model = nn.Sequential(nn.Linear(3, 3), noise(3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2))
    model[3].weight = model[0].weight
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    folded = fold(model.eval(), x)
    assert relative_difference(model, folded, 3 * x.flip(0)) <= RELATIVE_TOLERANCE
    first, second = folded[0].state_dict()["weight"], folded[2].state_dict()["weight"]
    assert not torch.equal(first, second)


def test_a_noise_layer_called_twice_folds_where_both_factors_go_the_same_way() -> None:
    shared = noise(3)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    twice = nn.Sequential(nn.Linear(3, 3), shared, nn.Linear(3, 3), shared, nn.Linear(3, 2)).eval()
    assert relative_difference(twice, fold(twice, x), 3 * x.flip(0)) <= RELATIVE_TOLERANCE
    bent = nn.Sequential(
        nn.Linear(3, 3), shared, nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), shared, nn.LayerNorm(3)
    )
    with pytest.raises(NotFoldableError, match="noise layer '1'"):
        fold(bent.eval(), x)


def test_noise_on_an_axis_of_positions_is_not_folded_into_neurons_of_the_same_number() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), noise(3, axis=1), nn.Linear(3, 2))
    with pytest.raises(NotFoldableError, match="noise layer '1'"):
        fold(model, torch.randn(5, 3, 4))


def test_a_fold_that_would_be_wrong_is_caught_on_the_example(monkeypatch: pytest.MonkeyPatch) -> None:
    model = insert_noise(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.randn(5, 4))
    for end in ("outputs", "inputs"):
        monkeypatch.setattr(f"bmrs_torch.surgery.ways.scale_{end}", lambda _layer, _factor: None)
    monkeypatch.setattr("bmrs_torch.surgery.ways.scale_parameter", lambda _parameter, _axis, _factor: None)
    noise_layers(model)["0.noise"].mask[0] = 0
    with pytest.raises(NotFoldableError, match=r"'0\.noise'"):
        fold(model)


def test_noise_before_a_layer_folds_into_its_inputs() -> None:
    torch.manual_seed(0)
    for layer, x, number in (
        (nn.Linear(6, 2), torch.randn(5, 6), 6),
        (nn.Conv2d(4, 6, 3, groups=2), torch.randn(2, 4, 5, 5), 4),
        (nn.ConvTranspose2d(4, 6, 3), torch.randn(2, 4, 5, 5), 4),
    ):
        model = nn.Sequential(noise(number), layer).eval()
        folded = fold(model, x)
        assert [type(module) for module in folded] == [type(layer)]
        assert relative_difference(model, folded, x) <= RELATIVE_TOLERANCE


def test_noise_after_a_transposed_convolution_of_groups_folds() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2), noise(6)).eval(), torch.randn(2, 4, 5, 5)
    assert relative_difference(model, fold(model, x), x) <= RELATIVE_TOLERANCE


def test_a_layer_with_an_activation_of_its_own_leaves_its_noise_to_the_next() -> None:
    class NormAndSwish(nn.BatchNorm2d):
        def __init__(self, number: int) -> None:
            super().__init__(number)
            self.act = nn.SiLU()

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.act(super().forward(x))
            return answer

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), NormAndSwish(4), noise(4), nn.Conv2d(4, 2, 1)).eval()
    x = torch.randn(2, 3, 4, 4)
    folded = fold(model, x)
    assert relative_difference(model, folded, x) <= RELATIVE_TOLERANCE
    assert torch.equal(folded.get_parameter("1.weight"), model.get_parameter("1.weight"))


def test_parameters_that_are_not_finite_are_an_error_that_names_the_layer() -> None:
    x = torch.ones(2, 4)
    model = insert_noise(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), x)
    noise_layers(model)["0.noise"].mu.data[1] = float("nan")
    with pytest.raises(ValueError, match=r"'0\.noise' can't be folded.*structure 1"):
        fold(model, x)
