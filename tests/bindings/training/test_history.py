"""What a pruner notes after every epoch: true numbers, plain ones, and asking for them changes nothing."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bmrs_torch import (
    HALF_LOG_2PI,
    Pruner,
    Schedule,
    insert_noise,
    kl_divergence,
    noise_layers,
    parameter_groups,
    prune,
    scores,
)
from tests.bindings.networks import hopeless, images, mlp

BATCHES = [(images(8, seed), torch.arange(8) % 10) for seed in range(3)]
Run = tuple[nn.Module, torch.optim.Optimizer, Pruner]


def begin(**options: Any) -> Run:
    torch.manual_seed(0)
    model = insert_noise(mlp(), images(2))
    optimizer = torch.optim.Adam(parameter_groups(model, lr=1e-3))
    return model, optimizer, Pruner(model, optimizer, num_samples=24, **options)


def train_epoch(run: Run, *, counts_steps: bool = True) -> list[float]:
    model, optimizer, pruner = run
    misfits = []
    for x, y in BATCHES:
        misfit = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        pruner.loss(misfit).backward()
        optimizer.step()
        misfits.append(misfit.item())
        if counts_steps:
            pruner.step()
    pruner.end_epoch()
    return misfits


def noise_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: torch.stack([layer.mu, layer.log_sigma]).detach().double()
        for name, layer in noise_layers(model).items()
    }


@pytest.mark.parametrize("criterion", ["bmrs_n", "bmrs_u"])
def test_an_entry_tells_what_the_model_is(criterion: str) -> None:
    run = begin(criterion=criterion, schedule=Schedule(every=9, kl_warmup=4), kl_weight=8.0)
    model, _, pruner = run
    hopeless(model, "3.noise", [2, 4])
    noise_layers(model)["1.noise"].mask[5] = 0
    train_epoch(run)
    before = noise_of(model)
    misfits = train_epoch(run)
    entry = pruner.history[-1]
    assert (entry["when"], entry["epoch"], entry["step"], entry["phase"]) == ("epoch", 2, 6, "pruning")
    assert (entry["due"], entry["pruned"], entry["num_kept"]) == (False, 0, 34)
    assert entry["kept"] == {"1.noise": 19, "3.noise": 15}
    assert entry["kl"] == kl_divergence(model).item()
    assert entry["kl_weight"] == 2.0
    assert entry["misfit"] == pytest.approx(np.mean(misfits), rel=1e-6)  # a float32 sum
    kept = {name: layer.kept().numpy() for name, layer in noise_layers(model).items()}
    values = {name: found[kept[name]] for name, found in scores(model, criterion).items()}
    quantiles = np.percentile(np.concatenate(list(values.values())), [5, 25, 50, 75, 95])
    assert list(entry["delta_f"].values()) == quantiles.tolist()
    assert {(first["layer"], first["structure"]) for first in entry["next"][:2]} == {
        ("3.noise", 2),
        ("3.noise", 4),
    }
    largest = values["3.noise"].max()
    assert entry["next"][0]["score"] == largest
    assert entry["nearest"] == (0.0 if criterion == "bmrs_u" else -HALF_LOG_2PI) - largest
    change = {
        name: (after - before[name]).abs().numpy()[:, kept[name]] for name, after in noise_of(model).items()
    }
    of_all = np.concatenate(list(change.values()), axis=1)
    assert entry["moved"] == {
        "mu_mean": of_all[0].mean(),
        "log_sigma_mean": of_all[1].mean(),
        "mu_max": of_all[0].max(),
        "log_sigma_max": of_all[1].max(),
    }


def test_nearest_is_what_a_decision_names_and_how_many_are_near_is_counted() -> None:
    model, _, pruner = begin(schedule=Schedule(every=9))
    layer = noise_layers(model)["1.noise"]
    with torch.no_grad():
        layer.mu[:4], layer.log_sigma[:4] = -3.0, torch.tensor([0.8, 1.4, 2.0, 2.2])
    pruner.end_epoch()
    entry, report = pruner.history[0], prune(copy.deepcopy(model))
    assert report.nearest is not None
    assert report.limit is not None
    assert entry["nearest"] == report.limit - report.nearest[1]
    away = report.limit - scores(model)["1.noise"]
    assert entry["near"] == {"within_1": (away <= 1).sum(), "within_10": (away <= 10).sum()}
    assert entry["near"] == {"within_1": 1, "within_10": 3}


def test_the_best_of_a_layer_is_never_next() -> None:
    model, _, pruner = begin()
    hopeless(model, "1.noise", list(range(20)))
    with pytest.warns(UserWarning, match="next to nothing is left"):
        pruner.end_epoch()
    entry = pruner.history[0]
    assert entry["kept"] == {"1.noise": 1, "3.noise": 15}
    assert entry["nearest"] > 0
    assert {first["layer"] for first in entry["next"]} == {"3.noise"}


@pytest.mark.parametrize("coupling", ["all", "joint"])
def test_coupled_structures_are_next_by_what_they_are_judged_by(coupling: Any) -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            answer: torch.Tensor = self.last(x + self.second(x))
            return answer

    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    model = insert_noise(Residual(), x, where=["first", "second"])
    hopeless(model, "first.noise", [1])
    hopeless(model, "second.noise", [1, 3])
    pruner = Pruner(model, num_samples=3, schedule=Schedule(every=9), coupling=coupling, example_inputs=x)
    state = torch.get_rng_state()
    pruner.end_epoch()
    assert torch.equal(torch.get_rng_state(), state)
    found = [(first["layer"], first["structure"]) for first in pruner.history[0]["next"]]
    assert set(found[:2]) == {("first.noise", 1), ("second.noise", 1)}
    assert pruner.history[0]["near"]["within_1"] == 2


@pytest.mark.parametrize(
    "options",
    [
        {"criterion": "l2", "amount": 0.3},
        {"criterion": "snr"},
        {"amount": 0.3},
        {"criterion": "random", "amount": 0.1},
    ],
)
def test_other_rules_tell_what_they_can(options: dict[str, Any]) -> None:
    run = begin(**options)
    train_epoch(run)
    entry = run[2].history[-1]
    json.dumps(entry, allow_nan=False)
    noise = options.get("criterion") in ("snr", None)
    assert (entry["nearest"] is not None) == (options.get("criterion") == "snr")
    assert entry["near"] is None
    assert len(entry["next"]) == (5 if noise else 0)


def test_a_budget_has_costs_and_no_rule_to_be_near_to() -> None:
    x = images(2)
    schedule = Schedule(every=2, finetune_from=4)
    run = begin(budget={"parameters": 0.5}, example_inputs=x, schedule=schedule)
    for _ in range(4):
        train_epoch(run)
    history = run[2].history
    json.dumps(history, allow_nan=False)
    assert [entry["costs"] is not None for entry in history] == [False, True, False, True]
    # In equal ratios, as near as a unit of 795 of 16,175 parameters allows.
    assert [history[i]["costs"]["parameters"] for i in (1, 3)] == pytest.approx([0.5**0.5, 0.5], abs=0.05)
    assert all((entry["nearest"], entry["near"], entry["next"]) == (None, None, []) for entry in history)
    assert history[0]["delta_f"] is not None
    assert "by bmrs_n, at most 0.5 of the parameters: fine-tuning" in repr(run[2])
    assert f"with {history[3]['costs']['parameters']:.3g} of the parameters left" in repr(run[2])
    assert "bmrs/costs/parameters" in run[2].scalars()


def test_the_scores_of_other_criteria_of_the_noise_have_their_own_name() -> None:
    run = begin(criterion="snr")
    run[2].end_epoch()
    assert run[2].history[0]["snr"]["q50"] > 1
    assert "bmrs/snr/q50" in run[2].scalars()


def test_a_schedule_in_steps_has_an_entry_for_each_pruning_and_each_epoch() -> None:
    run = begin(schedule=Schedule(every=2, unit="step"), amount=0.3)
    train_epoch(run)
    train_epoch(run)
    told = [(entry["when"], entry["epoch"], entry["step"], entry["due"]) for entry in run[2].history]
    assert told == [
        ("step", 0, 2, True),
        ("epoch", 1, 3, False),
        ("step", 1, 4, True),
        ("step", 1, 6, True),
        ("epoch", 2, 6, False),
    ]
    assert sum(entry["pruned"] for entry in run[2].history) == 35 - run[2].history[-1]["num_kept"]


def test_fine_tuning_has_a_misfit_and_nothing_that_goes_next() -> None:
    run = begin(schedule=Schedule(finetune_from=1))
    train_epoch(run)
    misfits = train_epoch(run)
    first, second = run[2].history
    assert (first["phase"], second["phase"]) == ("pruning", "finetuning")
    assert second["misfit"] == pytest.approx(np.mean(misfits), rel=1e-6)  # a float32 sum
    assert (second["kl_weight"], second["nearest"], second["next"]) == (0.0, None, [])
    assert set(second["moved"].values()) == {0.0}


def test_misfits_of_evaluation_and_of_half_precision_are_told_apart_from_training() -> None:
    _, _, pruner = begin()
    with torch.no_grad():
        pruner.loss(torch.tensor(100.0))
    for _ in range(1000):
        pruner.loss(torch.tensor(1.0, dtype=torch.bfloat16))
    pruner.end_epoch()
    assert pruner.history[0]["misfit"] == 1.0


@pytest.mark.parametrize("shrink", [False, True])
def test_movement_is_of_what_is_kept_also_when_the_network_shrinks(shrink: bool) -> None:
    def moved(shrink: bool) -> list[Any]:
        run = begin(shrink=shrink, example_inputs=images(2), schedule=Schedule(every=2))
        hopeless(run[0], "1.noise", [0, 3])
        for _ in range(3):
            train_epoch(run)
        return [entry["moved"] for entry in run[2].history]

    found = moved(shrink)
    assert None not in found
    # Up to the first pruning both trainings are the same.
    assert found[:2] == moved(not shrink)[:2]


@pytest.mark.parametrize("coupling", [None, "joint"])
def test_asking_changes_nothing(coupling: Any) -> None:
    """With entries after every step, the run is to the bit the one without any."""

    def parameters(asks: bool) -> list[torch.Tensor]:
        run = begin(schedule=Schedule(every=9), coupling=coupling, example_inputs=images(2))
        model, optimizer, pruner = run
        for x, y in BATCHES * 2:
            optimizer.zero_grad()
            pruner.loss(F.cross_entropy(model(x), y)).backward()
            optimizer.step()
            if asks:
                state = torch.get_rng_state()
                gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
                pruner._take_down("step", None)
                repr(pruner)
                assert torch.equal(torch.get_rng_state(), state)
                for p, gradient in zip(model.parameters(), gradients, strict=True):
                    assert (p.grad is None) if gradient is None else torch.equal(p.grad, gradient)  # type: ignore[arg-type]
        return [p.detach() for p in model.parameters()]

    assert all(map(torch.equal, parameters(asks=True), parameters(asks=False)))


def test_the_history_goes_on_to_the_bit_in_the_middle_of_an_epoch() -> None:
    def steps(run: Run, first: int, last: int) -> None:
        model, optimizer, pruner = run
        for number in range(first, last):
            x, y = BATCHES[number % 3]
            optimizer.zero_grad()
            pruner.loss(F.cross_entropy(model(x), y)).backward()
            optimizer.step()
            pruner.step()
            if number % 3 == 2:
                pruner.end_epoch()

    whole, first, second = begin(), begin(), begin()
    torch.manual_seed(1)
    steps(whole, 0, 9)
    torch.manual_seed(1)
    steps(first, 0, 5)
    states = copy.deepcopy([part.state_dict() for part in first])
    random = torch.get_rng_state()
    second[2].load_state_dict(states[2])
    second[0].load_state_dict(states[0])
    second[1].load_state_dict(states[1])
    torch.set_rng_state(random)
    steps(second, 5, 9)
    assert second[2].history == whole[2].history


def test_a_state_of_an_earlier_version_is_taken_up() -> None:
    run = begin(amount=0.3)
    train_epoch(run)
    state = run[2].state_dict()
    del state["noise"], state["misfits"]
    entry = {"epoch": 1, "step": 3, "pruned": 11, "kept": {"1.noise": 14, "3.noise": 10}}
    state["history"] = [entry]
    again = begin(amount=0.3)
    again[2].load_state_dict(state)
    assert "pruned last: 11 structures after epoch 1" in repr(again[2])
    assert again[2].scalars() == {"bmrs/epoch": 1.0, "bmrs/pruned": 11.0}
    train_epoch(again)
    assert again[2].history[0] == entry
    assert again[2].history[1]["moved"] is None
    train_epoch(again)
    assert again[2].history[2]["moved"]["mu_max"] > 0


@pytest.mark.parametrize("key", ["noise", "misfits"])
def test_a_damaged_state_is_refused(key: str) -> None:
    _, _, pruner = begin()
    with pytest.raises(ValueError, match=f"{key} of a pruner's state is damaged: got 3"):
        pruner.load_state_dict(pruner.state_dict() | {key: 3})


def test_noise_that_is_not_finite_is_left_to_the_training_to_refuse() -> None:
    _, _, pruner = begin(schedule=Schedule(every=9))
    with torch.no_grad():
        noise_layers(pruner.model)["1.noise"].mu[0] = torch.nan
    pruner.end_epoch()
    entry = pruner.history[0]
    assert (entry["kl"], entry["delta_f"], entry["moved"], entry["next"]) == (None, None, None, [])
    json.dumps(entry, allow_nan=False)


def test_loggers_get_plain_floats_and_a_number_of_steps() -> None:
    told: list[tuple[dict[str, float], int]] = []
    run = begin(log=lambda values, step: told.append((values, step)))
    train_epoch(run)
    train_epoch(run)
    assert [step for _, step in told] == [3, 6]
    assert all(type(value) is float for values, _ in told for value in values.values())
    assert told[1][0] == run[2].scalars()
    names = {
        "kl",
        "kl_weight",
        "misfit",
        "kept",
        "pruned",
        "delta_f/q50",
        "nearest",
        "near/within_1",
        "moved/mu_max",
    }
    assert {f"bmrs/{name}" for name in names} <= told[0][0].keys()


def test_without_steps_loggers_are_told_epochs() -> None:
    told: list[int] = []
    run = begin(log=lambda _, step: told.append(step))
    train_epoch(run, counts_steps=False)
    train_epoch(run, counts_steps=False)
    assert told == [1, 2]


def test_a_log_that_can_not_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match=r"log must be a function of a dict of floats.*got 'tensorboard'"):
        begin(log="tensorboard")


def test_the_pruner_says_where_it_stands() -> None:
    run = begin(schedule=Schedule(every=2, kl_warmup=4, finetune_from=3), kl_weight=8.0)
    model, _, pruner = run
    assert repr(pruner).split("\n  ") == [
        "Pruner of Sequential by bmrs_n: pruning",
        "0 epochs and 0 steps done; prunes next after epoch 2",
        "kept: 35 of 35 structures (100.0%)",
        "kl_weight: 8, of which 0% count in the warm-up",
        "pruned last: nothing so far",
    ]
    hopeless(model, "1.noise", [3])
    train_epoch(run)
    assert "nearest to the rule: structure 3 of '1.noise', meets it after epoch 1" in repr(pruner)
    train_epoch(run)
    said = repr(pruner)
    assert "kept: 34 of 35 structures (97.1%)" in said
    assert "pruned last: 1 structures after epoch 2" in said
    assert f"{pruner.history[-1]['nearest']:.3g} nats away after epoch 2" in said
    train_epoch(run)
    assert "fine-tuning\n  3 epochs and 9 steps done; prunes no more" in repr(pruner)
    pruner.finish(images(2))
    assert "prunes no more" in repr(pruner)
    assert "by bmrs_n, amount=0.3:" in repr(begin(amount=0.3)[2])
