"""Averages of the weights: pruned, cut and finished along with the model, and resumed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bmrs_torch import Pruner, compact, insert_noise, noise_layers, parameter_groups
from tests.bindings.networks import LeNet5, images, mlp

X, Y = images(8), torch.arange(8) % 10


def begin(
    others: Any = None, network: Any = mlp, **options: Any
) -> tuple[nn.Module, torch.optim.Optimizer, Pruner, Any]:
    torch.manual_seed(0)
    model = insert_noise(network(), images(2))
    make = others or (lambda model: AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5)))
    average = make(model)
    optimizer = torch.optim.Adam(parameter_groups(model, lr=1e-3))
    settings: dict[str, Any] = {"criterion": "l2", "amount": 0.3, "num_samples": 8, "example_inputs": X}
    return model, optimizer, Pruner(model, optimizer, others=[average], **(settings | options)), average


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, pruner: Pruner, average: Any, epochs: int = 1
) -> None:
    for _ in range(epochs):
        optimizer.zero_grad()
        pruner.loss(F.cross_entropy(model(X), Y)).backward()
        optimizer.step()
        average.update_parameters(model)
        pruner.end_epoch()


def shapes(model: nn.Module) -> dict[str, Any]:
    return {name: value.shape for name, value in model.state_dict().items()}


@pytest.mark.parametrize("network", [mlp, LeNet5])
def test_an_average_shrinks_with_the_model_and_goes_on_averaging(network: Any) -> None:
    model, optimizer, pruner, average = begin(network=network, shrink=True)
    train(model, optimizer, pruner, average)
    assert shapes(average.module) == shapes(model)
    before = [p.clone() for p in average.module.parameters()]
    optimizer.zero_grad()
    pruner.loss(F.cross_entropy(model(X), Y)).backward()
    optimizer.step()
    average.update_parameters(model)
    after = list(average.module.parameters())
    assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert average.eval()(X).shape == (8, 10)


def test_without_shrinking_an_average_is_masked_as_the_model_is() -> None:
    model, optimizer, pruner, average = begin()
    train(model, optimizer, pruner, average)
    for name, layer in noise_layers(average.module).items():
        assert torch.equal(layer.mask, noise_layers(model)[name].mask)
        assert not layer.kept().all()


@pytest.mark.parametrize("others", [None, copy.deepcopy])
@pytest.mark.parametrize("shrink", [False, True])
def test_finish_makes_averages_small_and_plain_in_place(others: Any, shrink: bool) -> None:
    model, optimizer, pruner, average = begin(others, shrink=shrink)
    part = getattr(average, "module", average)
    optimizer.zero_grad()
    pruner.loss(F.cross_entropy(model(X), Y)).backward()
    optimizer.step()
    pruner.end_epoch()
    answers = average.eval()(X).detach()
    smaller = pruner.finish(X)
    assert shapes(part) == shapes(smaller)
    assert not any(name.endswith("mask") for name in shapes(part))
    assert torch.allclose(average(X), answers, atol=1e-5)
    assert part is getattr(average, "module", average)
    with pytest.raises(ValueError, match="finished already"):
        pruner.finish(X)


def test_averages_are_resumed_with_the_model() -> None:
    first = begin(shrink=True)
    train(*first, epochs=2)
    model, optimizer, pruner, average = first
    saved = copy.deepcopy(
        [pruner.state_dict(), model.state_dict(), average.state_dict(), optimizer.state_dict()]
    )
    random = torch.get_rng_state()
    train(*first, epochs=2)

    resumed = begin(shrink=True)
    for part, state in zip((resumed[2], resumed[0], resumed[3], resumed[1]), saved, strict=True):
        part.load_state_dict(state)
    torch.set_rng_state(random)
    train(*resumed, epochs=2)
    ours, theirs = resumed[3].state_dict(), average.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_state_loaded_before_the_shapes_names_the_order() -> None:
    first = begin(shrink=True)
    train(*first)
    _, _, _, average = begin(shrink=True)
    with pytest.raises(RuntimeError, match="load the pruner's state, then the model's, then the optimizer's"):
        average.load_state_dict(first[3].state_dict())


def test_the_average_of_another_network_is_refused_and_so_is_the_model_itself() -> None:
    with pytest.raises(ValueError, match="same structure"):
        begin(lambda _: AveragedModel(insert_noise(LeNet5(), X)))
    with pytest.raises(ValueError, match="got the model itself"):
        begin(lambda model: model)
    with pytest.raises(TypeError, match=r"such as \[ema\]"):
        Pruner(insert_noise(mlp(), X), num_samples=8, others=mlp())  # type: ignore[arg-type]


def test_a_failed_finish_leaves_averages_as_they_are() -> None:
    model, optimizer, pruner, average = begin()
    train(model, optimizer, pruner, average)
    before = shapes(average.module)
    noise_layers(average.module)["1.noise"].log_sigma.data.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"1\.noise"):
        pruner.finish(X)
    assert shapes(average.module) == before
    assert compact(model, X) is not model
