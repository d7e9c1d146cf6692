"""Pruning a network that was trained without noise."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bmrs_torch import (
    MultiplicativeNoise,
    NotFoldableError,
    default_kl_weight,
    insert_noise,
    noise_layers,
    prune_trained,
)
from tests.bindings.networks import conv_with_norm, images, mlp

NUM_SAMPLES = 256
STRANGER = mlp()


def misfit(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def separable() -> tuple[nn.Sequential, TensorDataset]:
    """A network of 24 hidden units trained on two of sixteen inputs, which a few units can serve."""
    torch.manual_seed(0)
    x = torch.randn(NUM_SAMPLES, 16)
    y = (x[:, 0] > 0).long()
    model = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, TensorDataset(x, y)


def test_a_trained_network_loses_units_and_no_accuracy() -> None:
    model, data = separable()
    before = copy.deepcopy(model.state_dict())
    x, y = data.tensors
    torch.manual_seed(1)
    result = prune_trained(
        model, DataLoader(data, batch_size=64), misfit, epochs=0, steps=500, noise_lr=0.05, fixed_weights=True
    )
    assert 0 < result.decision.num_kept < 20
    assert result.model[0].out_features == result.decision.num_kept  # type: ignore[index]
    # Alike to float32 rounding: the shrunk network sums fewer terms, the folded one rounds its weights again.
    torch.testing.assert_close(result.model.eval()(x), result.masked.eval()(x), rtol=1e-4, atol=1e-4)
    right = (result.model(x).argmax(1) == y).float().mean()
    assert right > (model(x).argmax(1) == y).float().mean() - 0.03
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(isinstance(module, MultiplicativeNoise) for module in result.model.modules())


BATCHES = [(images(8, seed), torch.arange(8) % 10) for seed in range(3)]


def quickly(model: nn.Module, batches: Any = BATCHES, loss: Any = misfit, **options: Any) -> Any:
    settings: dict[str, Any] = {"num_samples": 24, "steps": 5, "epochs": 0, "fixed_weights": True}
    settings |= {"criterion": "l2", "amount": 0.5}
    return prune_trained(model, batches, loss, **(settings | options))


@pytest.mark.parametrize("training", [True, False])
def test_weights_and_statistics_stay_and_the_network_learns_again_afterwards(training: bool) -> None:
    model = conv_with_norm().train(training)
    model[0].requires_grad_(False)
    model[1].train(not training)
    result = quickly(model)
    plain = dict(model.state_dict())
    for name, value in result.masked.state_dict().items():
        if "noise" not in name:
            assert torch.equal(value, plain[name])
    assert [m.training for m in result.model.modules()] == [m.training for m in model.modules()]
    assert [p.requires_grad for p in result.model.parameters()] == [
        p.requires_grad for p in model.parameters()
    ]
    assert all(layer.mu.requires_grad for layer in noise_layers(result.masked).values())


def test_noise_that_is_there_already_is_used() -> None:
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 8), nn.ReLU(), MultiplicativeNoise(8), nn.Linear(8, 6), nn.Linear(6, 10)
    )
    result = quickly(model)
    assert list(noise_layers(result.masked)) == ["3"]
    assert result.decision.num_kept == 4


def test_inputs_are_found_in_batches_of_other_kinds() -> None:
    def autoencoding(model: nn.Module, batch: Tensor) -> Tensor:
        answer: Tensor = model(batch)
        return (answer**2).mean()

    assert quickly(mlp(), [images(4)], autoencoding).decision.num_kept == 17
    given = quickly(mlp(), [{"x": images(4)}], lambda m, b: (m(b["x"]) ** 2).mean(), example_inputs=images(2))
    assert given.decision.num_kept == 17


def test_batches_are_gone_through_again_and_each_is_used() -> None:
    seen: list[int] = []

    def noting(model: nn.Module, batch: Any) -> Tensor:
        seen.append(next(i for i, (x, _) in enumerate(BATCHES) if x is batch[0]))
        return misfit(model, batch)

    assert quickly(mlp(), loss=noting, steps=7).steps == 7
    assert seen[:7] == [0, 1, 2, 0, 1, 2, 0]
    assert set(seen[7:]) == {0}  # by surgery, on copies, to see that training stays as it was


def test_an_iterator_which_ends_is_refused() -> None:
    with pytest.raises(TypeError, match=r"must have a length.*got a list_iterator"):
        quickly(mlp(), iter(BATCHES))


def test_nothing_pruned_is_said() -> None:
    with pytest.warns(UserWarning, match="nothing was pruned in 5 minibatches with kl_weight=3 and lr=0.05"):
        quickly(mlp(), criterion="bmrs_n", amount=None, kl_weight=3)


def test_without_a_weight_it_has_the_default_of_the_objective() -> None:
    weight = default_kl_weight(60_000)
    with pytest.warns(UserWarning, match=f"kl_weight={weight:g} "):
        quickly(mlp(), criterion="bmrs_n", amount=None, num_samples=60_000)


def test_a_batch_that_is_no_input_is_found_before_any_step() -> None:
    steps = []

    def noting(model: nn.Module, batch: Any) -> Tensor:
        steps.append(batch)
        return misfit(model, (batch["x"], batch["y"]))

    batches = [{"x": x, "y": y} for x, y in BATCHES]
    for network in (mlp(), insert_noise(mlp(), BATCHES[0][0])):
        with pytest.raises(ValueError, match=r"first minibatch.*give example_inputs=.*keyword argument 'x'"):
            quickly(network, batches, loss=noting)
        with pytest.raises(
            ValueError, match=r"Called with a tensor of shape \(3, 5\) it raised RuntimeError"
        ):
            quickly(network, batches, loss=noting, example_inputs=torch.zeros(3, 5))
        assert not steps
        assert quickly(network, batches, loss=noting, example_inputs=BATCHES[0][0]).steps == 5
        steps.clear()


def test_noise_that_can_not_be_folded_is_found_before_any_step() -> None:
    def never(*_: Any) -> Tensor:
        raise AssertionError

    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 20), nn.Tanh(), MultiplicativeNoise(20))
    with pytest.raises(NotFoldableError):
        quickly(model, loss=never)


@pytest.mark.parametrize(
    "loss",
    [
        lambda model, batch: misfit(model, batch).detach(),
        lambda _model, batch: misfit(STRANGER, batch),
        lambda model, batch: misfit(model, batch) if not torch.is_grad_enabled() else torch.tensor(1.0),
    ],
)
def test_a_loss_that_teaches_the_noise_nothing_is_refused(loss: Any) -> None:
    with pytest.raises(ValueError, match="doesn't depend on the noise"):
        quickly(mlp(), loss=loss)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batches": 3}, "batches must be minibatches"),
        ({"loss": None}, "loss must be a function of a network and a minibatch"),
        ({"loss": nn.CrossEntropyLoss()}, "loss must be a function of a network and a minibatch"),
        ({"steps": "many"}, r"steps must be the number of steps, a whole number.*, got 'many'"),
        ({"steps": True}, "a whole number, got True"),
        ({"lr": "fast"}, "lr must be a number, got 'fast'"),
        ({"teacher": 3}, "teacher must be True .*, got 3"),
        ({"optimizer": 3}, "optimizer must be a function that makes one"),
        ({"validate": 3}, "validate must be a function of a network"),
        ({"fixed_weights": "yes"}, "fixed_weights must be True or False"),
    ],
)
def test_arguments_of_another_kind_are_refused(options: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        quickly(mlp(), **options)


def test_collapse_is_said() -> None:
    with pytest.warns(
        UserWarning, match="next to nothing is left: '1.noise' has 1 of 20.*take a smaller one"
    ):
        quickly(mlp(), criterion="bmrs_n", amount=None, kl_weight=1e7, steps=200, noise_lr=0.1)


def not_finite(model: nn.Module, batch: Any) -> Tensor:
    return misfit(model, batch) * float("nan")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batches": []}, "batches holds no minibatch"),
        ({"num_samples": None}, "num_samples, the size of the training set, must be given.*a list"),
        ({"steps": 0}, "steps must be the number of steps, at least 1"),
        ({"steps": 2.5}, "a whole number, got 2.5"),
        ({"lr": float("nan")}, "lr must be positive and finite"),
        ({"epochs": -1}, "epochs must be at least 0"),
        ({"patience": 2}, "patience waits for a better network"),
        ({"budget": {"macs": 0.5}}, "a budget takes the place of amount"),
        ({"loss": not_finite}, "must be finite, got nan at step 1"),
        ({"loss": lambda m, b: m(b[0])}, "must be a scalar"),
        ({"criterion": "bmrs"}, "criterion must be one of"),
    ],
)
def test_what_can_not_be_done_is_refused_and_the_model_is_untouched(options: Any, message: str) -> None:
    model = mlp()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        quickly(model, **options)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
