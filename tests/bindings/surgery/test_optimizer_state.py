"""Optimizers after surgery: state is cut where that is exact, begins anew, or is refused by name."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bmrs_torch import SurgeryError, compact, insert_noise, noise_layers

KEPT = slice(3, None)


def network() -> nn.Module:
    """A square weight among others, a convolution and one of groups."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)
    )
    return insert_noise(model, images())


def images() -> Tensor:
    return torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(1))


def take_a_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images()), torch.arange(4) % 3)
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]


def close_first_three(model: nn.Module) -> nn.Module:
    for layer in noise_layers(model).values():
        layer.mask[:3] = 0
    return model


class WithoutAxes(torch.optim.Optimizer):
    """Statistics of rows and columns without the axis averaged over, as in transformers' Adafactor."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.01})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        with torch.enable_grad():
            closure()
        for group in self.param_groups:
            for p in group["params"]:
                state, squares = self.state[p], p.grad.square()
                if not state and p.ndim > 1:
                    state["row"] = torch.zeros_like(squares.mean(-1))
                    state["column"] = torch.zeros_like(squares.mean(-2))
                elif not state:
                    state["all"] = torch.zeros_like(p)
                if p.ndim > 1:
                    state["row"].lerp_(squares.mean(-1), 0.1)
                    state["column"].lerp_(squares.mean(-2), 0.1)
                    scale = state["row"].unsqueeze(-1) * state["column"].unsqueeze(-2)
                else:
                    scale = state["all"].lerp_(squares, 0.1)
                p.sub_(group["lr"] * p.grad / (scale.sqrt() + 1e-3))


class Preconditioned(torch.optim.Optimizer):
    """A matrix for each axis, as Shampoo keeps them, in a list."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.01})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        with torch.enable_grad():
            closure()
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["of_axes"] = [torch.eye(size) for size in p.shape]
                gradient = p.grad
                for axis, matrix in enumerate(state["of_axes"]):
                    flat = p.grad.movedim(axis, 0).flatten(1) if p.ndim > 1 else p.grad[:, None]
                    matrix.add_(flat @ flat.T)
                    gradient = torch.tensordot(gradient, torch.linalg.inv(matrix), ([axis], [0])).movedim(
                        -1, axis
                    )
                p.sub_(group["lr"] * gradient)


class WithSlowWeights(torch.optim.SGD):
    """It keeps a list of the parameters for itself."""

    def __init__(self, params: Any) -> None:
        params = list(params)
        super().__init__(params, lr=0.01)
        self.slow = {"copies": [(p, p.detach().clone()) for p in params]}


ADAPTIVE: list[Callable[[Any], torch.optim.Optimizer]] = [
    lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    torch.optim.AdamW,
    torch.optim.Adagrad,
    torch.optim.Adafactor,
    WithoutAxes,
]


@pytest.mark.parametrize("make", ADAPTIVE)
def test_state_of_rows_and_columns_is_cut_as_the_parameter_is(make: Any) -> None:
    """An average over one axis loses entries on the others; a square weight's shape doesn't tell which."""
    model = network()
    optimizer = make(list(model.parameters()))
    take_a_step(model, optimizer)
    before = {name: copy.deepcopy(optimizer.state[p]) for name, p in model.named_parameters()}
    smaller = compact(close_first_three(model), images(), optimizer=optimizer)
    parameters = dict(smaller.named_parameters())
    assert parameters["2.weight"].shape == (5, 5, 1, 1)
    for key, value in before["2.weight"].items():
        if not isinstance(value, Tensor) or value.ndim < 2:
            continue
        rows = value[KEPT] if value.shape[0] == 8 else value
        whole = rows[:, KEPT] if rows.ndim > 1 and rows.shape[1] == 8 else rows
        assert torch.equal(optimizer.state[parameters["2.weight"]][key], whole), key
    take_a_step(smaller, optimizer)
    assert set(optimizer.state) == set(smaller.parameters())


def test_state_of_another_kind_begins_anew_and_that_is_said() -> None:
    model = network()
    optimizer = Preconditioned(list(model.parameters()))
    take_a_step(model, optimizer)
    with pytest.warns(UserWarning, match="state of Preconditioned for .*0.weight.* begins anew"):
        smaller = compact(close_first_three(model), images(), optimizer=optimizer)
    take_a_step(smaller, optimizer)
    last = smaller.get_parameter("5.bias")  # untouched by surgery, and so is its state
    assert not torch.equal(optimizer.state[last]["of_axes"][0], torch.eye(3))


def of_all_parameters(params: Any) -> torch.optim.Optimizer:
    return torch.optim.LBFGS(params)


@pytest.mark.parametrize(
    ("make", "name"), [(of_all_parameters, "LBFGS"), (WithSlowWeights, "WithSlowWeights")]
)
def test_what_cannot_go_on_is_refused_by_name_before_anything_changes(make: Any, name: str) -> None:
    model = network()
    optimizer = make(list(model.parameters()))
    if name == "LBFGS":
        take_a_step(model, optimizer)
    close_first_three(model)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=f"{name}.*Nothing was changed"):
        compact(model, images(), optimizer=optimizer)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert set(optimizer.param_groups[0]["params"]) == set(model.parameters())


def test_an_optimizer_that_has_not_stepped_is_taken_over_whatever_it_is() -> None:
    model = close_first_three(network())
    optimizer = torch.optim.LBFGS(list(model.parameters()))
    smaller = compact(model, images(), optimizer=optimizer)
    take_a_step(smaller, optimizer)


@pytest.mark.parametrize(
    ("optimizer", "error", "message"),
    [
        (
            torch.optim.Adam([nn.Parameter(torch.zeros(2))]),
            ValueError,
            "Adam given trains no parameter.*parameter_groups",
        ),
        (torch.optim.Adam, TypeError, "got the class Adam"),
        (3, TypeError, "got a int"),
    ],
)
def test_an_optimizer_of_another_model_is_refused(optimizer: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        compact(close_first_three(network()), images(), optimizer=optimizer)


def test_a_failed_surgery_leaves_the_optimizer_alone() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    take_a_step(model, optimizer)
    before = list(optimizer.state)
    with pytest.raises(SurgeryError):
        compact(close_first_three(model), images() * float("nan"), optimizer=optimizer)
    assert list(optimizer.state) == before


@pytest.mark.parametrize("sparse", [False, True])
def test_accumulated_gradients_are_cut_with_the_parameters(sparse: bool) -> None:
    torch.manual_seed(0)
    words = torch.randint(10, (4, 3))
    model = nn.Sequential(nn.Embedding(10, 8, sparse=sparse), nn.Linear(8, 8), nn.Flatten(), nn.Linear(24, 2))
    insert_noise(model, words)
    model(words).square().sum().backward()
    close_first_three(model)
    before = {name: p.grad for name, p in model.named_parameters()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about structures that can't be removed from a network this narrow
        smaller = compact(model, words)
    narrow, wide = smaller.get_parameter("1.weight"), before["1.weight"]
    assert narrow.grad is not None
    assert wide is not None
    columns = KEPT if narrow.shape[1] == 5 else slice(None)
    assert torch.equal(narrow.grad, wide[KEPT, columns])
    for name, parameter in smaller.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.shape == parameter.shape
        assert parameter.grad.is_sparse == (sparse and name == "0.weight")
        assert parameter.grad is not before[name]
