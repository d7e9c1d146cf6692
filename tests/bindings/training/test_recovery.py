"""From a trained network to a smaller one that is good again, in one call."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bmrs_torch import Budget, Distillation, prune_trained, range_test
from bmrs_torch.training.effort import usual_effort
from bmrs_torch.training.recovery import one_cycle

NUM_SAMPLES = 192


def misfit(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def trained() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        misfit(model, DATA.tensors).backward()
        optimizer.step()
    return model


def _data() -> TensorDataset:
    x = torch.randn(NUM_SAMPLES, 6, generator=torch.Generator().manual_seed(1))
    return TensorDataset(x, (x[:, 0] * x[:, 1] > 0).long())


DATA = _data()


def accuracy(model: nn.Module) -> float:
    x, y = DATA.tensors
    return float((model(x).argmax(1) == y).float().mean())


def shrink(model: nn.Module, loss: Any = misfit, **options: Any) -> Any:
    torch.manual_seed(2)
    loader = DataLoader(DATA, batch_size=32, shuffle=True)
    settings: dict[str, Any] = {"budget": Budget(macs=0.5), "epochs": 12}
    return prune_trained(model, loader, loss, **(settings | options))


def test_the_budget_is_met_and_what_was_lost_comes_back() -> None:
    model = trained()
    result = shrink(model, validate=accuracy)
    assert result.decision.spending.fractions["macs"] <= 0.5
    assert sum(m.weight.numel() for m in result.model if isinstance(m, nn.Linear)) <= 0.5 * (96 + 128 + 16)
    assert result.score == max(record["score"] for record in result.history) == accuracy(result.model.eval())
    assert result.score_before == accuracy(model.eval())
    # In twelve epochs: 18 steps of noise, a quarter of 72, and what remains of these in epochs of six.
    assert result.steps == 18
    assert [record["step"] for record in result.history] == [0, *range(6, 55, 6)]
    told = str(result).splitlines()
    assert "parameters left" in told[0]
    assert "given up; reached" in told[2]
    assert told[-1].startswith("validated: ")


def test_the_best_epoch_stays_and_patience_ends_it() -> None:
    scores = itertools.chain([0.5, 0.1, 0.3, 0.9, 0.2, 0.1], itertools.repeat(0.0))
    states: list[dict[str, Tensor]] = []

    def validate(model: nn.Module) -> float:
        assert not model.training
        states.append({name: value.clone() for name, value in model.state_dict().items()})
        return next(scores)

    result = shrink(trained(), validate=validate, patience=2)
    assert [record["score"] for record in result.history] == [0.1, 0.3, 0.9, 0.2, 0.1]
    assert (result.score_before, result.score) == (0.5, 0.9)
    for name, value in result.model.state_dict().items():
        assert torch.equal(value, states[3][name])


def interrupted(after: int) -> Callable[[nn.Module], float]:
    """Measures nothing, and fails when it is called for so many a time."""
    times = itertools.count()

    def validate(_: nn.Module) -> float:
        if next(times) == after:
            raise KeyboardInterrupt
        return 0.0

    return validate


@pytest.mark.parametrize("after", [1, 2, 4])
def test_a_run_that_was_cut_off_goes_on_to_the_bit(tmp_path: Path, after: int) -> None:
    whole = shrink(trained(), validate=lambda _: 0.0)
    with pytest.raises(KeyboardInterrupt):
        shrink(trained(), validate=interrupted(after), folder=tmp_path)
    again = shrink(trained(), validate=lambda _: 0.0, folder=tmp_path)
    for result in (again, shrink(trained(), validate=interrupted(1), folder=tmp_path)):  # returned at once
        for (name, value), own in zip(
            whole.model.state_dict().items(), result.model.state_dict().values(), strict=True
        ):
            assert torch.equal(value, own), name
        assert result.losses == whole.losses
        assert str(result.decision) == str(whole.decision)
        assert [r["step"] for r in result.history] == [r["step"] for r in whole.history]


def test_a_folder_with_another_run_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    shrink(trained(), folder=tmp_path, epochs=2)
    with pytest.raises(ValueError, match=r"other settings: epochs=2, now 4; lr=None, now 0.01. Give those"):
        shrink(trained(), folder=tmp_path, epochs=4, lr=0.01)
    (tmp_path / "run.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="can't be read as the state of a run"):
        shrink(trained(), folder=tmp_path, epochs=2)


def test_modes_and_frozen_parameters_are_those_of_the_network_given() -> None:
    model = trained()
    model[0].requires_grad_(False)
    model[1].eval()
    result = shrink(model, epochs=3)
    assert [m.training for m in result.model.modules()] == [m.training for m in model.modules()]
    assert not result.model[0].weight.requires_grad
    weight, whole = result.model[0].weight, model[0].weight
    assert isinstance(whole, Tensor)
    rows = {tuple(row) for row in whole.tolist()}
    assert {tuple(row) for row in weight.tolist()} <= rows


def test_noise_that_leaves_no_time_to_recover_is_refused() -> None:
    with pytest.raises(ValueError, match="steps=12 with noise leave nothing of the 12 that epochs=2 make"):
        shrink(trained(), epochs=2, steps=12)


def test_the_optimizer_is_the_users() -> None:
    made: list[torch.optim.SGD] = []

    def sgd(parameters: Iterator[nn.Parameter]) -> torch.optim.SGD:
        made.append(torch.optim.SGD(parameters, 0.1, momentum=0.9))
        return made[-1]

    result = shrink(trained(), optimizer=sgd)
    assert {p for group in made[0].param_groups for p in group["params"]} == set(result.model.parameters())
    assert result.history[-1]["lr"] < result.history[1]["lr"] <= 0.1


def test_a_teacher_is_learnt_from_instead_of_the_labels() -> None:
    contrary = trained()
    with torch.no_grad():
        for parameter in contrary[-1].parameters():
            parameter.neg_()
    states = {name: value.clone() for name, value in contrary.state_dict().items()}
    ample: dict[str, Any] = {"budget": Budget(macs=0.8), "epochs": 40, "lr": 0.02}
    result = shrink(trained(), teacher=Distillation(contrary, weight=1.0), **ample)
    assert accuracy(shrink(trained(), **ample).model.eval()) > 0.75
    assert accuracy(result.model.eval()) < 0.25
    assert all(torch.equal(value, states[name]) for name, value in contrary.state_dict().items())


def test_a_teacher_that_the_loss_never_asks_is_an_error() -> None:
    other = trained()
    with pytest.raises(ValueError, match="never called the network"):
        Distillation(other).of(lambda _, batch: misfit(other, batch))(trained(), DATA.tensors)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weight": 0.0}, ValueError, "weight must be in"),
        ({"weight": "half"}, TypeError, "weight must be a number"),
        ({"temperature": -1.0}, ValueError, "temperature must be positive"),
        ({"teacher": 3}, TypeError, "model"),
    ],
)
def test_bad_distillation_is_refused(options: Any, error: type[Exception], message: str) -> None:
    given: dict[str, Any] = {"teacher": trained()}
    with pytest.raises(error, match=message):
        Distillation(**(given | options))


def test_answers_of_one_class_have_no_probabilities() -> None:
    line = nn.Linear(3, 1)
    x = torch.ones(2, 3)
    with pytest.raises(ValueError, match="mse_loss"):
        Distillation(line).penalty(line(x), x)
    assert Distillation(line, compare=F.mse_loss).penalty(line(x) + 2, x).item() == pytest.approx(4)


def test_the_divergence_is_between_classes_where_they_are() -> None:
    torch.manual_seed(0)
    for shape, axis in (((4, 3), 1), ((2, 5, 3), -1), ((2, 3, 4, 4), 1)):
        student, told = torch.randn(shape), torch.randn(shape)
        p, q = (torch.softmax(t / 2, axis).movedim(axis, -1).reshape(-1, 3) for t in (told, student))
        expected = 4 * (p * (p / q).log()).sum(1).mean()
        penalty = Distillation(nn.Identity()).penalty(student, told)
        torch.testing.assert_close(penalty, expected)


def test_rates_rise_and_fall_in_one_cycle() -> None:
    rates = [one_cycle(step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 25)
    assert max(rates) == rates[10] == 1.0
    assert rates == sorted(rates[:10]) + sorted(rates[10:], reverse=True)
    assert rates[100] == 0.0


def test_weights_learn_in_one_cycle_from_the_noise_to_the_end() -> None:
    rates: list[float] = []

    class Noting(torch.optim.Adam):
        def step(self, closure: Any = None) -> Any:
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    shrink(trained(), optimizer=lambda parameters: Noting(parameters, lr=0.01), epochs=10)
    # Of 60 steps 15 are with noise, by an optimizer of its own.
    assert rates == pytest.approx([0.01 * one_cycle(step, 60) for step in range(15, 60)])
    rates.clear()
    shrink(trained(), optimizer=lambda parameters: Noting(parameters, lr=0.01), epochs=10, fixed_weights=True)
    assert rates == pytest.approx([0.01 * one_cycle(step, 45) for step in range(45)])


def test_the_usual_effort_follows_the_number_of_samples() -> None:
    digits = usual_effort(22, lr=2e-3, to_budget=False)
    assert (digits.steps, digits.noise_steps) == (22 * 114, 200)
    images = usual_effort(1_000_000 // 128, lr=2e-3, to_budget=True)
    assert (images.steps, images.noise_steps) == (6 * 7812, 1000)
    assert (images.noise_lr, digits.noise_lr) == (0.01, 0.05)
    assert usual_effort(100, lr=2e-3, epochs=4, to_budget=True).noise_steps == 100
    assert usual_effort(100, lr=2e-3, epochs=1, to_budget=True).noise_steps == 25
    assert usual_effort(100, lr=2e-3, epochs=0, to_budget=True).steps == 200


def more_sensitive(model: nn.Sequential) -> nn.Module:
    """The same function, in which a step of the last layer changes the logits a thousand times as much."""
    small = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in small[-1].parameters():
            parameter.div_(1000)
    return nn.Sequential(*small, Times(1000.0))


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def test_the_learning_rate_is_what_the_network_bears() -> None:
    model = trained()
    states = {name: value.clone() for name, value in model.state_dict().items()}
    batches = [tuple(t[i : i + 32] for t in DATA.tensors) for i in range(0, NUM_SAMPLES, 32)]
    rate = range_test(model, batches, misfit)
    assert rate == 1e-2
    assert 1e-4 < range_test(more_sensitive(model), batches, misfit) < rate / 2
    assert all(torch.equal(value, states[name]) for name, value in model.state_dict().items())

    # A network that learns nothing bears anything.
    assert range_test(model, batches, lambda net, batch: 0 * misfit(net, batch)) == 1e-2


def test_the_rate_that_was_found_is_kept_in_the_folder(tmp_path: Path) -> None:
    first = shrink(trained(), folder=tmp_path, epochs=4)
    torch.manual_seed(5)
    assert [r["lr"] for r in shrink(trained(), folder=tmp_path, epochs=4).history] == [
        r["lr"] for r in first.history
    ]
