"""Budgets of latency, on a clock that goes by the multiply-adds: no test waits for a machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bmrs_torch import (
    Budget,
    BudgetError,
    Pruner,
    Schedule,
    compact,
    fold,
    insert_noise,
    noise_layers,
    parameter_groups,
    prune,
)
from bmrs_torch.costs.counting import count_macs
from bmrs_torch.costs.latency import latency_terms, module_times
from bmrs_torch.costs.terms import Formula
from bmrs_torch.deciding import trial
from tests.bindings.budgets import scattered, search
from tests.bindings.networks import LeNet5, images

SECONDS = 1e-9
"""Of a multiply-add on this clock."""

WHOLE = 833_040
"""Multiply-adds of LeNet-5 for two images."""

ALWAYS = 1e-4
"""Seconds that every call takes besides."""


class Clock:
    """Stands in for both stopwatches.

    Parameters
    ----------
    bends : float
        Power of the multiply-adds that a network takes as a whole: less than 1, no formula foresees it.
    """

    def __init__(self, bends: float = 1.0) -> None:
        self.bends, self.timed, self.slow = bends, 0, 1.0

    def take_times(self, models: Sequence[nn.Module], inputs: Any, *, seconds: float) -> list[list[float]]:
        assert seconds > 0
        self.timed += 1
        return [[self.slow * self.time(model, inputs)] * 5 for model in models]

    def time(self, model: nn.Module, inputs: Any) -> float:
        left = float(count_macs(model, inputs)[""] / WHOLE)
        return ALWAYS + SECONDS * WHOLE * math.pow(left, self.bends)

    def module_times(self, model: nn.Module, inputs: Any, *, seconds: float) -> dict[str, float]:
        assert seconds > 0
        names = [name for name, module in model.named_modules() if not any(module.children())]
        macs = count_macs(model, inputs)
        return {name: self.slow * SECONDS * macs.get(name, 0) for name in names}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(trial, "take_times", found.take_times)
    monkeypatch.setattr(trial, "module_times", found.module_times)
    return found


def network() -> nn.Module:
    torch.manual_seed(0)
    return scattered(insert_noise(LeNet5(), images(2))).eval()


@pytest.mark.parametrize("bends", [1.0, 0.9, 0.7])
@pytest.mark.parametrize("fraction", [0.7, 0.4])
def test_the_time_of_what_is_shipped_is_within_the_budget_and_near_it(
    clock: Clock, bends: float, fraction: float
) -> None:
    clock.bends = bends
    model = network()
    plain = fold(model, images(2))
    report = prune(model, budget=Budget(latency=fraction), example_inputs=images(2))
    small = fold(compact(model, images(2)), images(2))
    left = clock.time(small, images(2)) / clock.time(plain, images(2))
    assert report.spending is not None
    assert report.spending.fractions["latency"] == pytest.approx(left, rel=1e-12)  # the same ratio
    assert 0.85 * fraction < left <= fraction  # one filter of the first layer takes up to 0.13
    assert clock.timed < 10


def test_figures_and_other_costs_can_be_asked_for_too(clock: Clock) -> None:
    model = network()
    limit = 0.6 * clock.time(fold(model, images(2)), images(2))
    budget = Budget(latency=f"{1e6 * limit} us", parameters=0.5)
    report = prune(model, budget=budget, example_inputs=images(2))
    assert report.spending is not None
    assert report.spending.reached["latency"] <= limit
    assert report.spending.fractions["parameters"] <= 0.5
    assert "ms of latency (0." in str(report) or "µs of latency (0." in str(report)


@pytest.mark.parametrize("resumed", [False, True])
def test_a_pruner_compares_with_the_network_as_it_was_on_a_machine_that_gets_slower(
    clock: Clock, resumed: bool
) -> None:
    def made() -> Pruner:
        model = network()
        optimizer = torch.optim.SGD(parameter_groups(model, lr=1e-3))
        schedule, budget = Schedule(finetune_from=3), Budget(latency=0.5)
        return Pruner(
            model,
            optimizer,
            num_samples=8,
            schedule=schedule,
            budget=budget,
            shrink=True,
            example_inputs=images(2),
        )

    whole = clock.time(fold(network(), images(2)), images(2))
    pruner, left = made(), []
    for _ in range(3):
        report = pruner.end_epoch()
        assert report is not None
        assert report.spending is not None
        left.append(report.spending.fractions["latency"])
        clock.slow *= 1.7
        if resumed:
            saved, weights = pruner.state_dict(), pruner.model.state_dict()
            pruner = made()
            pruner.load_state_dict(saved)
            pruner.model.load_state_dict(weights)
    assert left[0] > left[1] > left[2]
    small = clock.time(pruner.finish(), images(2))
    assert small / whole == pytest.approx(left[2], rel=1e-12)  # the same ratio
    assert 0.85 * 0.5 < left[2] <= 0.5


def test_a_time_out_of_reach_is_said(clock: Clock) -> None:
    model = network()
    with pytest.raises(BudgetError, match="µs of latency is the least that can be reached"):
        prune(model, budget=Budget(latency="90 us"), example_inputs=images(2))
    assert clock.timed < 10
    assert all(bool(layer.kept().all()) for layer in noise_layers(model).values())


def test_terms_of_latency_add_up_to_what_was_measured_wherever_it_was(clock: Clock) -> None:
    model = network()
    found = search(model, images(2), Budget(macs=0.5))
    (limit,) = found._limits.values()
    gone = found._choose(np.array([limit])).gone
    small = fold(found._try(gone)[0], images(2))
    times, total = clock.module_times(small, images(2), seconds=1.0), clock.time(small, images(2))
    terms = latency_terms(found._selection.network, times, gone, total)
    formula = Formula(found._selection.network, {"latency": terms})
    whole = clock.time(fold(model, images(2)), images(2))
    assert formula.costs(gone)[0] == pytest.approx(total, rel=1e-12)  # sums of ten float64
    assert formula.costs(np.zeros_like(gone))[0] == pytest.approx(whole, rel=1e-12)


def test_every_module_is_timed_without_those_inside_it() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 4)))
    times = module_times(model, torch.ones(2, 4), seconds=0.001)
    assert times.keys() == {"", "0", "1", "1.0", "1.1"}
    assert all(seconds > 0 for seconds in times.values())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
