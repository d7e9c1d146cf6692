"""Algorithm 1 in a loop of one's own: when it prunes, what it adds to the loss, how it is resumed."""

from __future__ import annotations

import io
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bmrs_torch import (
    LayoutError,
    Pruner,
    Schedule,
    default_kl_weight,
    elbo_loss,
    insert_noise,
    kl_divergence,
    noise_layers,
    parameter_groups,
    prune,
)
from tests.bindings.networks import LeNet5, hopeless, images, mlp

BATCHES = [(images(8, seed), torch.arange(8) % 10) for seed in range(3)]
NUM_SAMPLES = 24


def begin(
    network: Any = mlp, example: Tensor | None = None, **options: Any
) -> tuple[nn.Module, torch.optim.Optimizer, Pruner]:
    torch.manual_seed(0)
    model = insert_noise(network(), images(2) if example is None else example)
    optimizer = torch.optim.Adam(parameter_groups(model, lr=1e-3))
    settings: dict[str, Any] = {"criterion": "l2", "amount": 0.3, "num_samples": NUM_SAMPLES}
    return model, optimizer, Pruner(model, optimizer, **(settings | options))


def train_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, pruner: Pruner) -> list[float]:
    losses = []
    for x, y in BATCHES:
        loss = pruner.loss(F.cross_entropy(model(x), y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pruner.step()
        losses.append(loss.item())
    pruner.end_epoch()
    return losses


def kept(model: nn.Module) -> list[int]:
    return [int(layer.kept().sum()) for layer in noise_layers(model).values()]


@pytest.mark.parametrize(
    ("schedule", "due"),
    [
        (Schedule(), [1, 2, 3, 4, 5, 6, 7, 8]),
        (Schedule(every=3), [3, 6]),
        (Schedule(every=2, start=5), [6, 8]),
        (Schedule(every=4, finetune_from=6), [4, 6]),
        (Schedule(start=3, finetune_from=3), [3]),
    ],
)
def test_it_prunes_when_it_is_due(schedule: Schedule, due: list[int]) -> None:
    model, _, pruner = begin(schedule=schedule)
    reports = [pruner.end_epoch() for _ in range(8)]
    assert [i for i, report in enumerate(reports, 1) if report is not None] == due
    assert [entry["epoch"] for entry in pruner.history if entry["due"]] == due
    assert [schedule.next_due(done) for done in range(due[-1])] == [
        next(date for date in due if date > done) for done in range(due[-1])
    ]
    assert kept(model) == [14, 10]


def test_steps_are_counted_instead_of_epochs_on_request() -> None:
    _, _, pruner = begin(schedule=Schedule(every=2, start=3, unit="step"))
    reports = [pruner.step() for _ in range(5)]
    assert [report is not None for report in reports] == [False, False, False, True, False]
    assert pruner.end_epoch() is None


def test_a_schedule_in_steps_of_which_none_is_counted_says_what_to_call() -> None:
    _, _, pruner = begin(schedule=Schedule(unit="step"))
    with pytest.warns(UserWarning, match=r"call pruner\.step\(\) after each optimizer\.step\(\)"):
        assert pruner.end_epoch() is None
    with pytest.warns(UserWarning, match=r"call pruner\.step\(\) after each optimizer\.step\(\)"):
        pruner.finish(BATCHES[0][0])


@pytest.mark.parametrize(("schedule", "steps"), [(Schedule(), 0), (Schedule(unit="step"), 1)])
def test_a_schedule_whose_unit_is_counted_says_nothing(schedule: Schedule, steps: int) -> None:
    _, _, pruner = begin(schedule=schedule)
    for _ in range(steps):
        pruner.step()
    # Warnings are errors in this suite.
    pruner.end_epoch()
    pruner.finish(BATCHES[0][0])


def test_the_loss_is_the_objective_with_the_divergence_warming_up() -> None:
    model, _, pruner = begin(schedule=Schedule(every=9, kl_warmup=4), kl_weight=8.0)
    kl = kl_divergence(model).item() / NUM_SAMPLES
    added = []
    for _ in range(6):
        added.append(pruner.loss(torch.tensor(1.0)).item() - 1.0)
        pruner.end_epoch()
    # float32 sums of numbers around 100.
    assert added == pytest.approx([factor * 8.0 * kl for factor in (0, 0.25, 0.5, 0.75, 1, 1)], rel=1e-6)


@pytest.mark.parametrize("kl_scale", ["elbo", "published"])
def test_the_penalty_is_what_the_loss_adds(kl_scale: Any) -> None:
    model, _, pruner = begin(kl_scale=kl_scale, kl_weight=3.0)
    expected = elbo_loss(torch.tensor(0.0), model, num_samples=NUM_SAMPLES, kl_scale=kl_scale, kl_weight=3.0)
    penalty = pruner.penalty()
    assert penalty is not None
    assert penalty.item() == expected.item()


@pytest.mark.parametrize(("kl_scale", "weight"), [("elbo", 30.0), ("published", 1.0)])
def test_without_a_weight_it_has_the_default_of_the_objective(kl_scale: Any, weight: float) -> None:
    _, _, pruner = begin(kl_scale=kl_scale, num_samples=60_000)
    assert pruner.kl_weight == default_kl_weight(60_000, kl_scale) == weight


def test_shrinking_leaves_what_the_published_objective_presses_for() -> None:
    x = BATCHES[0][0]
    shrinking = begin(kl_scale="published", shrink=True, example_inputs=x)[2]
    masking = begin(kl_scale="published")[2]
    for pruner in (shrinking, masking):
        pruner.end_epoch()
    resumed = begin(kl_scale="published", shrink=True, example_inputs=x)[2]
    resumed.load_state_dict(shrinking.state_dict())
    resumed.model.load_state_dict(shrinking.model.state_dict())
    assert [layer.num_structures for layer in noise_layers(resumed.model).values()] == [14, 10]
    nothing = torch.tensor(0.0)
    # The same terms, summed in the same order.
    assert shrinking.loss(nothing) == masking.loss(nothing) == resumed.loss(nothing)


def test_fine_tuning_fixes_the_noise_and_leaves_the_loss_alone() -> None:
    model, optimizer, pruner = begin(schedule=Schedule(finetune_from=1))
    train_epoch(model, optimizer, pruner)
    assert pruner.phase == "finetuning"
    assert pruner.penalty() is None
    nll = torch.tensor(1.0)
    assert pruner.loss(nll) is nll
    before = [layer.mu.clone() for layer in noise_layers(model).values()]
    weight = model.get_parameter("1.weight").clone()
    train_epoch(model, optimizer, pruner)
    assert all(
        torch.equal(layer.mu, mu) for layer, mu in zip(noise_layers(model).values(), before, strict=True)
    )
    assert not torch.equal(model.get_parameter("1.weight"), weight)
    assert torch.equal(model.train()(images(2)), model.eval()(images(2)))


def test_shrinking_keeps_the_model_object_and_trains_on_what_is_left() -> None:
    model, optimizer, pruner = begin(LeNet5, shrink=True, example_inputs=images(4))
    train_epoch(model, optimizer, pruner)
    assert pruner.model is model
    assert [layer.num_structures for layer in noise_layers(model).values()] == [4, 11, 84, 59]
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters()}
    before = [p.detach().clone() for p in model.parameters()]
    train_epoch(model, optimizer, pruner)
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def save(model: nn.Module, optimizer: torch.optim.Optimizer, pruner: Pruner) -> io.BytesIO:
    file = io.BytesIO()
    state = {"pruner": pruner.state_dict(), "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({**state, "random": torch.get_rng_state()}, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("shrink", [False, True])
@pytest.mark.parametrize("epochs_before", [1, 3])
@pytest.mark.parametrize("network", [mlp, LeNet5])
def test_a_resumed_run_goes_on_to_the_bit(network: Any, epochs_before: int, shrink: bool) -> None:
    options: dict[str, Any] = {
        "schedule": Schedule(every=2, finetune_from=3, kl_warmup=2),
        "shrink": shrink,
        "example_inputs": images(4),
    }
    first = begin(network, **options)
    for _ in range(epochs_before):
        train_epoch(*first)
    file = save(*first)
    expected = [train_epoch(*first) for _ in range(3)]

    model, optimizer, pruner = begin(network, **options)
    state = torch.load(file, weights_only=True)
    pruner.load_state_dict(state["pruner"])
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    assert [train_epoch(model, optimizer, pruner) for _ in range(3)] == expected
    ours, theirs = model.state_dict(), first[0].state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert pruner.history == first[2].history


@pytest.mark.parametrize("evaluates", [False, True])
@pytest.mark.parametrize("step", [0, 1, 4, 5])
def test_a_run_resumed_at_any_step_is_the_uninterrupted_one(step: int, evaluates: bool) -> None:
    """Also in the middle of an epoch, evaluated and asked for its divergence there or not."""
    schedule = Schedule(every=2, unit="step", kl_warmup=3)

    def go_on(run: tuple[nn.Module, torch.optim.Optimizer, Pruner], first: int, last: int) -> list[Tensor]:
        model, optimizer, pruner = run
        seen = []
        for x, y in (BATCHES * 3)[first:last]:
            optimizer.zero_grad()
            loss = pruner.loss(F.cross_entropy(model(x), y))
            loss.backward()
            optimizer.step()
            pruner.step()
            seen += [loss.detach(), *(p.detach().clone() for p in model.parameters())]
        return seen

    whole = begin(schedule=schedule, criterion="bmrs_n", amount=None)
    expected = go_on(whole, 0, 9)
    first = begin(schedule=schedule, criterion="bmrs_n", amount=None)
    before = go_on(first, 0, step)
    if evaluates:
        first[0].eval()(images(4))
        first[0].train()
        kl_divergence(first[0])
    file = save(*first)
    model, optimizer, pruner = resumed = begin(schedule=schedule, criterion="bmrs_n", amount=None)
    state = torch.load(file, weights_only=True)
    pruner.load_state_dict(state["pruner"])
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    after = go_on(resumed, step, 9)
    assert all(torch.equal(a, b) for a, b in zip(before + after, expected, strict=True))


class Shifted(nn.Module):
    """A hidden layer with a constant per unit in a buffer that no state_dict holds."""

    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)
        self.register_buffer("shift", torch.arange(6.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.last(torch.relu(self.first(x)) * self.shift)
        return answer


def test_buffers_that_no_state_dict_holds_are_resumed_too() -> None:
    _, _, pruner = begin(Shifted, torch.ones(2, 4))
    pruner.model.shift = pruner.model.get_buffer("shift")[:4]
    pruner.model.last = nn.Linear(4, 2)  # as surgery might leave it
    _, _, resumed = begin(Shifted, torch.ones(2, 4))
    state = pruner.state_dict()
    state["buffers"]["shift"] += 10
    resumed.load_state_dict(state)
    assert resumed.model.get_buffer("shift").tolist() == [10, 11, 12, 13]


def test_the_state_of_another_network_is_refused() -> None:
    _, _, pruner = begin()
    _, _, other = begin(LeNet5)
    with pytest.raises(LayoutError, match="is missing here"):
        pruner.load_state_dict(other.state_dict())


def test_finish_gives_a_smaller_plain_network() -> None:
    model, optimizer, pruner = begin()
    train_epoch(model, optimizer, pruner)
    plain = pruner.finish(images(4))
    assert [m.out_features for m in plain if isinstance(m, nn.Linear)] == [14, 10, 10]  # type: ignore[attr-defined]
    assert torch.allclose(plain.eval()(images(4)), model.eval()(images(4)), atol=1e-5)


def test_finish_says_if_nothing_was_pruned() -> None:
    _, _, pruner = begin(criterion="bmrs_n", amount=None)
    pruner.end_epoch()
    with pytest.warns(UserWarning, match="nothing was pruned in 1 epochs.*larger kl_weight"):
        pruner.finish(images(4))


def test_masks_set_by_hand_count_as_pruned() -> None:
    model, _, pruner = begin(criterion="bmrs_n", amount=None)
    hopeless(model, "1.noise", [3])
    prune(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pruner.finish(images(4))


def test_coupled_structures_are_judged_together() -> None:
    model, _, pruner = begin(criterion="bmrs_n", amount=None, coupling="joint", example_inputs=images(4))
    hopeless(model, "1.noise", [3])
    report = pruner.end_epoch()
    assert report is not None
    assert report.pruned_now == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"treshold": 1.0}, TypeError, "got treshold"),
        ({"tolerance": 1.0}, ValueError, "takes threshold or an amount"),
        ({"amount": 2.0}, ValueError, "amount is the fraction"),
        ({"shrink": True}, ValueError, "needs the optimizer.*example_inputs"),
        ({"kl_weight": -1.0}, ValueError, "kl_weight must be finite"),
        ({"num_samples": 0}, ValueError, "num_samples must be the size"),
        ({"kl_scale": "sum"}, ValueError, "kl_scale must be"),
    ],
)
def test_bad_options_are_refused_before_training(options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        begin(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every must be at least 1"),
        ({"start": -1}, "start must be at least 0"),
        ({"kl_warmup": -1}, "kl_warmup must be at least 0"),
        ({"unit": "batch"}, "unit must be 'epoch' or 'step'"),
        ({"start": 5, "finetune_from": 4}, "leaves nothing to prune"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule(**options)


def test_a_model_without_noise_is_an_error() -> None:
    with pytest.raises(ValueError, match="no MultiplicativeNoise layer"):
        Pruner(nn.Linear(2, 2), num_samples=1)


def test_a_tensor_that_is_no_mean_is_refused() -> None:
    _, _, pruner = begin()
    per_sample: Tensor = torch.zeros(3)
    with pytest.raises(ValueError, match="must be a scalar"):
        pruner.loss(per_sample)
