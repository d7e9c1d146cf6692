"""Surgery: what is masked goes, the answers stay, and nothing is touched when that fails."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bmrs_torch import (
    MultiplicativeNoise,
    SurgeryError,
    compact,
    coupled_gates,
    elbo_loss,
    insert_noise,
    noise_layers,
    parameter_groups,
    plan_compaction,
)
from bmrs_torch.surgery.verification import RELATIVE_TOLERANCE, relative_difference
from tests.bindings.networks import NETWORKS, images, noisy


def parameters_of(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def widths(model: nn.Module) -> list[int]:
    return [layer.num_structures for layer in noise_layers(model).values()]


def modes(model: nn.Module) -> dict[str, bool]:
    return {name: module.training for name, module in model.named_modules()}


def frozen(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def assert_alike(first: nn.Module, second: nn.Module) -> None:
    """On images that the surgery has not seen; float32 sums over fewer terms differ by less than this."""
    assert relative_difference(first, second, images(16, seed=9)) <= RELATIVE_TOLERANCE


@pytest.mark.parametrize("name", NETWORKS)
def test_shrunk_answers_as_masked(name: str) -> None:
    model = noisy(name)
    smaller = compact(model, images(4))
    assert widths(smaller) == [int(layer.kept().sum()) for layer in noise_layers(model).values()]
    assert parameters_of(smaller) < parameters_of(model)
    assert_alike(model, smaller)


@pytest.mark.parametrize("name", NETWORKS)
def test_all_but_one_structure_can_go(name: str) -> None:
    model = noisy(name)
    for layer in noise_layers(model).values():
        layer.mask.zero_()
        layer.mask[-1] = 1
    smaller = compact(model, images(4))
    assert [layer.num_structures for layer in noise_layers(smaller).values()] == [1] * len(
        noise_layers(model)
    )
    assert_alike(model, smaller)
    assert compact(smaller, images(4)).state_dict().keys() == smaller.state_dict().keys()


def test_a_layer_masked_entirely_keeps_one() -> None:
    model = noisy("lenet5")
    noise_layers(model)["fc1.noise"].mask.zero_()
    with pytest.warns(UserWarning, match="1 masked structures are not removable"):
        smaller = compact(model, images(4))
    assert noise_layers(smaller)["fc1.noise"].num_structures == 1
    assert_alike(model, smaller)


def test_nothing_masked_removes_nothing() -> None:
    model = noisy("lenet5")
    for layer in noise_layers(model).values():
        layer.mask.fill_(1)
    assert plan_compaction(model, images(2)).removed == 0
    assert parameters_of(compact(model, images(2))) == parameters_of(model)


def test_the_model_given_is_left_as_it_was() -> None:
    model = noisy("lenet5").train()
    before, flags = copy.deepcopy(model.state_dict()), [p.requires_grad for p in model.parameters()]
    compact(model, images(4))
    plan_compaction(model, images(4))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("training", [True, False])
def test_training_mode_and_frozen_parameters_are_kept(training: bool) -> None:
    model = noisy("lenet5").train(training)
    for kind in ("weight", "bias"):
        model.get_parameter(f"conv1.{kind}").requires_grad_(False)
    model.get_submodule("fc2").eval()
    smaller = compact(model, images(4))
    assert {n: m.training for n, m in smaller.named_modules()} == {
        n: m.training for n, m in model.named_modules()
    }
    assert {n: p.requires_grad for n, p in smaller.named_parameters()} == {
        n: p.requires_grad for n, p in model.named_parameters()
    }


def test_inputs_may_be_positional_or_named() -> None:
    model = noisy("lenet5")
    for inputs in ((images(1),), [images(1)], {"x": images(1)}):
        assert widths(compact(model, inputs)) == widths(compact(model, images(1)))
    with pytest.raises(TypeError, match="example_inputs must be a tensor"):
        compact(model, 3)


def test_subclasses_of_the_layer_shrink_too() -> None:
    class Special(MultiplicativeNoise):
        pass

    model = nn.Sequential(nn.Linear(4, 3), Special(3), nn.ReLU(), nn.Linear(3, 2))
    noise_layers(model)["1"].mask[1] = 0
    smaller = compact(model, torch.randn(5, 4, generator=torch.Generator().manual_seed(0)))
    assert noise_layers(smaller)["1"].num_structures == 2
    assert type(smaller[1]) is Special


@pytest.mark.parametrize(("kind", "options"), [(torch.optim.Adam, {}), (torch.optim.SGD, {"momentum": 0.9})])
def test_training_goes_on_as_it_would_have_masked(kind: Any, options: dict[str, float]) -> None:
    model, x = noisy("lenet5").double().eval(), images(8).double()
    optimizer = kind(parameter_groups(model, 1e-3), **options)

    def train(network: nn.Module, by: torch.optim.Optimizer) -> None:
        for _ in range(3):
            by.zero_grad()
            elbo_loss(network(x).square().mean(), network, num_samples=100).backward()
            by.step()

    train(model, optimizer)
    masked, masked_optimizer = copy.deepcopy((model, optimizer))
    smaller = compact(model, x, optimizer=optimizer)
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {
        id(p) for p in smaller.parameters()
    }
    assert optimizer.state.keys() == set(smaller.parameters())
    train(smaller, optimizer)
    train(masked, masked_optimizer)
    # float64 sums in another order, through three steps; a moment of a wrong entry would show at 1e-3.
    torch.testing.assert_close(smaller(x), masked(x), rtol=1e-9, atol=1e-9)


def test_what_an_activation_makes_nonzero_stays_and_the_reason_is_given() -> None:
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    layers = nn.Sequential(nn.Linear(4, 3), nn.Sigmoid(), nn.Linear(3, 2))
    model = insert_noise(layers, x, where="hidden")
    noise_layers(model)["0.noise"].mask[1] = 0
    with pytest.warns(UserWarning, match=r"not 0 where '2' takes it: in '1' 0 becomes .* \(f\(0\) ≠ 0"):
        same = compact(model, x)
    assert widths(same) == [3]


def test_a_model_that_answers_differently_each_time_is_refused() -> None:
    class Restless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = insert_noise(
                nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.ones(2, 4)
            )

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.inner(x) + torch.rand(2)
            return answer

    model = Restless()
    noise_layers(model)["inner.0.noise"].mask[1] = 0
    optimizer = torch.optim.Adam(parameter_groups(model, 1e-3))
    with pytest.raises(SurgeryError, match="from one evaluation to the next"):
        compact(model, torch.ones(5, 4), optimizer=optimizer)
    assert widths(model) == [3]
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {id(p) for p in model.parameters()}


class Residual(nn.Module):
    """Two branches added: a channel may go only if it is masked in both, or nothing else feeds it."""

    def __init__(self, noise_on_both: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(4, 3)
        self.first_noise = MultiplicativeNoise(3)
        self.second_noise = MultiplicativeNoise(3) if noise_on_both else nn.Identity()
        self.last = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        both = self.first_noise(self.first(x)) + self.second_noise(self.second(x))
        answer: Tensor = self.last(torch.relu(both))
        return answer


def test_coupled_structures_go_only_together() -> None:
    model, x = Residual(noise_on_both=True), torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    layers = noise_layers(model)
    layers["first_noise"].mask[[0, 1]] = 0
    layers["second_noise"].mask[[1, 2]] = 0
    plan = plan_compaction(model, x)
    assert [layer.removed for layer in plan.layers] == [(1,), (1,)]
    assert [[i for i, _ in layer.retained] for layer in plan.layers] == [[0], [2]]
    with pytest.warns(UserWarning, match="2 masked structures are not removable"):
        smaller = compact(model, x)
    assert widths(smaller) == [2, 2]
    assert relative_difference(model, smaller, x) <= RELATIVE_TOLERANCE


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Residual(noise_on_both=False), "a layer without noise adds to the same structures"),
        (nn.Sequential(nn.Linear(4, 3), MultiplicativeNoise(3)), "it is the model's output"),
        (
            nn.Sequential(nn.Linear(4, 3), MultiplicativeNoise(3), nn.LayerNorm(3), nn.Linear(3, 2)),
            "LayerNorm normalises over the structures",
        ),
    ],
)
def test_what_can_not_be_removed_stays_and_the_reason_is_given(model: nn.Module, reason: str) -> None:
    next(iter(noise_layers(model).values())).mask[1] = 0
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert reason in str(plan_compaction(model, x))
    with pytest.warns(UserWarning, match=reason):
        smaller = compact(model, x)
    assert parameters_of(smaller) == parameters_of(model)


def test_a_layer_outside_the_forward_pass_is_reported() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used = insert_noise(
                nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.ones(2, 4)
            )
            self.idle = MultiplicativeNoise(3)

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.used(x)
            return answer

    model = Idle()
    noise_layers(model)["idle"].mask[0] = 0
    assert "idle: remove 0 of 3; 1 masked but not removable: it takes no part" in str(
        plan_compaction(model, torch.ones(1, 4))
    )


def test_no_warning_where_everything_masked_goes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compact(noisy("mlp"), images(2))


def test_a_model_without_noise_is_an_error() -> None:
    with pytest.raises(ValueError, match="no MultiplicativeNoise layer"):
        compact(nn.Linear(2, 2), torch.ones(1, 2))


def test_an_average_of_the_weights_shrinks_alike() -> None:
    model = noisy("lenet5")
    average = torch.optim.swa_utils.AveragedModel(model)
    twin = copy.deepcopy(model)
    smaller = compact(model, images(4), others=[average, twin])
    for other in (average.module, twin):
        assert {n: p.shape for n, p in other.named_parameters()} == {
            n: p.shape for n, p in smaller.named_parameters()
        }
        assert_alike(smaller, other)
    average.update_parameters(smaller)


def test_an_average_of_another_model_is_an_error_and_nothing_changes() -> None:
    model, other = noisy("lenet5"), noisy("mlp")
    with pytest.raises(ValueError, match="others must be models of the same structure as the LeNet5"):
        compact(model, images(4), others=[other])
    assert widths(other) == [20, 15]


def test_answers_without_numbers_to_compare_are_refused() -> None:
    class Deciding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = insert_noise(
                nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.ones(2, 4)
            )

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.inner(x).argmax(1)
            return answer

    with pytest.raises(SurgeryError, match="no tensor of floating-point numbers"):
        compact(Deciding(), torch.ones(5, 4))


def test_answers_that_are_infinite_in_both_agree() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = insert_noise(
                nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.ones(2, 4)
            )

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.inner(x).masked_fill(torch.tensor([True, False]), float("-inf"))
            return answer

    model = Masked()
    noise_layers(model)["inner.0.noise"].mask[1] = 0
    assert widths(compact(model, torch.ones(5, 4))) == [2]


def test_coupled_gates_are_listed_together() -> None:
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    pairs = [{"first_noise": (i,), "second_noise": (i,)} for i in range(3)]
    assert coupled_gates(Residual(noise_on_both=True), x) == pairs
    alone = [{"first_noise": (i,)} for i in range(3)]
    assert coupled_gates(Residual(noise_on_both=False), x) == alone


def test_gradients_and_tied_weights_shrink_with_their_parameters() -> None:
    model = noisy("lenet5").eval()
    model(images(4)).sum().backward()
    model.twin = model.get_submodule("fc2")
    smaller = compact(model, images(4))
    assert smaller.twin is smaller.get_submodule("fc2")
    for name, parameter in smaller.named_parameters():
        if parameter.grad is not None:
            assert parameter.grad.shape == parameter.shape, name


def test_a_branch_that_only_training_takes_shrinks_too() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 6)
            self.noise = MultiplicativeNoise(6)
            self.last, self.extra = nn.Linear(6, 2), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.noise(self.first(x)))
            answer: Tensor = self.last(x) + self.extra(x) if self.training else self.last(x)
            return answer

    model = Auxiliary()
    model.noise.mask[[1, 4]] = 0
    smaller = compact(model, torch.randn(5, 4, generator=torch.Generator().manual_seed(0)))
    assert smaller.extra.in_features == 4


def test_rounding_magnified_by_a_deep_network_is_told_from_wrong_surgery() -> None:
    """In float64 the answers agree; in float32 each layer of this network magnifies differences fivefold."""
    torch.manual_seed(0)
    linear = [nn.Linear(20, 20) for _ in range(12)]
    for each in linear:
        nn.init.normal_(each.weight, std=5.0 / 20**0.5)
    x = torch.randn(6, 20)
    model = nn.Sequential(*(m for each in linear for m in (each, nn.Tanh())), nn.Linear(20, 2))
    insert_noise(model, x, where="hidden")
    for layer in noise_layers(model).values():
        layer.mask[::3] = 0
    smaller = compact(model, x)
    assert relative_difference(copy.deepcopy(model).double(), smaller.double(), x.double()) < 1e-9
