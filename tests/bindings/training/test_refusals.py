"""What a pruner refuses, or warns of, when it is made and when states are loaded."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bmrs_torch import Pruner, insert_noise, noise_layers, parameter_groups
from tests.bindings.networks import conv_with_norm, images, mlp

X, Y = images(8), torch.arange(8) % 10


def begin(make: Any = torch.optim.Adam, **options: Any) -> tuple[nn.Module, Any, Pruner]:
    torch.manual_seed(0)
    model = insert_noise(mlp(), images(2))
    optimizer = make(parameter_groups(model, lr=1e-3))
    settings: dict[str, Any] = {"criterion": "l2", "amount": 0.3, "num_samples": 8}
    settings |= {"shrink": True, "example_inputs": X}
    return model, optimizer, Pruner(model, optimizer, **(settings | options))


def step(model: nn.Module, optimizer: Any, pruner: Pruner) -> None:
    optimizer.zero_grad()
    pruner.loss(F.cross_entropy(model(X), Y)).backward()
    optimizer.step()


def test_an_optimizer_made_before_the_noise_is_warned_of() -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    insert_noise(model, images(2))
    with pytest.warns(
        UserWarning, match=r"Adam given doesn't train the noise of 1\.noise, 3\.noise.*parameter_groups"
    ):
        Pruner(model, optimizer, num_samples=8)


def test_noise_that_is_fixed_or_excluded_on_purpose_is_not() -> None:
    """Warnings are errors in this suite."""
    model = insert_noise(mlp(), images(2))
    first, second = noise_layers(model).values()
    first.fix()
    second.requires_grad_(False)
    optimizer = torch.optim.Adam([p for name, p in model.named_parameters() if "noise" not in name])
    Pruner(model, optimizer, num_samples=8)


def test_noise_that_lost_its_hook_when_batchnorm_was_made_synchronous_is_refused() -> None:
    late = nn.SyncBatchNorm.convert_sync_batchnorm(insert_noise(conv_with_norm(), images(2)))
    with pytest.raises(ValueError, match=r"noise on '1', a SyncBatchNorm, is never applied.*Convert first"):
        Pruner(late, num_samples=8)
    before = nn.SyncBatchNorm.convert_sync_batchnorm(conv_with_norm())
    Pruner(insert_noise(before, images(2)), num_samples=8)


@pytest.mark.parametrize("shrink", [False, True])
def test_the_optimizer_of_another_model_is_refused(shrink: bool) -> None:
    options: Any = {"num_samples": 8, "shrink": shrink, "example_inputs": X}
    model = insert_noise(mlp(), images(2))
    with pytest.raises(
        ValueError, match=r"SGD given trains no parameter of this Sequential.*parameter_groups"
    ):
        Pruner(model, torch.optim.SGD(mlp().parameters(), lr=0.1), **options)
    wrong: Any
    for wrong in (torch.optim.Adam, "adam", [torch.optim.Adam(model.parameters())], model):
        with pytest.raises(TypeError, match=r"optimizer must be a torch\.optim\.Optimizer"):
            Pruner(model, wrong, **options)


def test_a_schedule_of_another_kind_is_refused() -> None:
    for wrong in (3, "epoch", 0, {"every": 3}):
        with pytest.raises(TypeError, match=r"schedule must be a bmrs_torch\.Schedule"):
            begin(schedule=wrong)


def test_an_example_that_the_model_can_not_take_is_refused() -> None:
    for wrong in (torch.zeros(3, 5), {"y": X}, 3, (X, X)):
        with pytest.raises(ValueError, match=r"example_inputs must be what Sequential takes.*it raised"):
            begin(example_inputs=wrong)


def test_an_optimizer_that_can_not_go_on_stops_a_shrink_before_anything_is_pruned() -> None:
    def lbfgs(groups: Any) -> torch.optim.Optimizer:
        return torch.optim.LBFGS([p for group in groups for p in group["params"]], max_iter=2)

    model, optimizer, pruner = begin(lbfgs)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = pruner.loss(F.cross_entropy(model(X), Y))
        loss.backward()
        return loss

    optimizer.step(closure)
    with pytest.raises(ValueError, match=r"state of LBFGS can't be cut.*Nothing was changed"):
        pruner.end_epoch()
    assert all(bool(layer.kept().all()) for layer in noise_layers(model).values())
    assert pruner.history == []


def test_accumulated_gradients_survive_a_shrink() -> None:
    model, optimizer, pruner = begin()
    pruner.loss(F.cross_entropy(model(X), Y)).backward()
    whole = {name: p.grad for name, p in model.named_parameters()}
    pruner.end_epoch()
    for name, parameter in model.named_parameters():
        before = whole[name]
        assert parameter.grad is not None
        assert before is not None
        assert parameter.grad.shape == parameter.shape
        assert set(parameter.grad.flatten().tolist()) <= set(before.flatten().tolist())
    optimizer.step()


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.Adafactor])
def test_states_loaded_in_another_order_name_the_right_one(make: Any) -> None:
    first = begin(make)
    step(*first)
    first[2].end_epoch()
    step(*first)
    model_state, optimizer_state, state = copy.deepcopy([part.state_dict() for part in first])

    model, optimizer, pruner = begin(make)
    optimizer.load_state_dict(copy.deepcopy(optimizer_state))
    with pytest.raises(
        ValueError, match=r"load the pruner's state first.*then the model's.*then the optimizer's"
    ):
        pruner.load_state_dict(state)
    assert [p.shape for p in model.parameters()] == [p.shape for p in mlp_with_noise().parameters()]

    model, optimizer, pruner = begin(make)
    with pytest.raises(
        RuntimeError, match=r"load the pruner's state, then the model's, then the\s+optimizer's"
    ):
        model.load_state_dict(model_state)

    model, optimizer, pruner = begin(make)
    step(model, optimizer, pruner)  # its own state, of the shapes as they are, may go
    pruner.load_state_dict(state)
    model.load_state_dict(model_state)
    optimizer.load_state_dict(optimizer_state)
    step(model, optimizer, pruner)
    assert len(optimizer.state) == len(first[1].state)


def test_states_of_layers_of_one_structure_are_told_apart_too() -> None:
    """(1, 784) could be an average over the rows of (20, 784)."""
    first = begin(amount=0.95)
    step(*first)
    first[2].end_epoch()
    assert first[0].get_parameter("1.weight").shape[0] == 1
    step(*first)
    _, optimizer, pruner = begin(amount=0.95)
    optimizer.load_state_dict(copy.deepcopy(first[1].state_dict()))
    with pytest.raises(ValueError, match=r"load the pruner's state first"):
        pruner.load_state_dict(first[2].state_dict())


def mlp_with_noise() -> nn.Module:
    return insert_noise(mlp(), images(2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "a pruner's state holds"),
        ([], "a pruner's state holds"),
        ({"steps": 1}, r"a pruner's state holds.*got \['steps'\]"),
        ("history", "history of a pruner's state is damaged"),
        ("num_structures", "num_structures of a pruner's state is damaged"),
        ("buffers", "buffers of a pruner's state is damaged"),
        ("layout", "a layout must hold"),
    ],
)
def test_a_damaged_state_is_refused(change: Any, message: str) -> None:
    _, _, pruner = begin()
    state = pruner.state_dict() | {change: 3} if isinstance(change, str) else change
    with pytest.raises(ValueError, match=message):
        pruner.load_state_dict(state)


def test_what_is_done_is_counted_in_whole_numbers_from_0() -> None:
    _, _, pruner = begin()
    for counts, error in (
        ((-1, 0), ValueError),
        ((0, -1), ValueError),
        ((1.5, 0), ValueError),
        (("1", 0), TypeError),
    ):
        epochs, steps = counts
        with pytest.raises(error, match="must be the number done"):
            pruner.resume_at(epochs=epochs, steps=steps)  # type: ignore[arg-type]
