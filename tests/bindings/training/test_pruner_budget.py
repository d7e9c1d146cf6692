"""A pruner comes down to its budget, which is of the network as it was, by when fine-tuning begins."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from bmrs_torch import (
    Budget,
    BudgetError,
    Pruner,
    Schedule,
    insert_noise,
    noise_layers,
    parameter_groups,
)
from bmrs_torch.costs.counting import count_macs, count_plain_parameters
from tests.bindings.budgets import CountsOnItsWidth, scattered
from tests.bindings.networks import conv_with_norm, images

LAST = 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return scattered(insert_noise(conv_with_norm(), images(2)))


def pruner_of(model: nn.Module, budget: Any = None, **options: Any) -> Pruner:
    optimizer = torch.optim.SGD(parameter_groups(model, lr=1e-4))
    budget = Budget(macs=0.3) if budget is None else budget
    given = {"schedule": Schedule(finetune_from=LAST), "example_inputs": images(2), **options}
    return Pruner(model, optimizer, num_samples=64, budget=budget, **given)


def epoch(pruner: Pruner) -> Any:
    assert pruner.optimizer is not None
    torch.manual_seed(pruner.epochs)  # of the noise
    pruner.optimizer.zero_grad()
    pruner.loss(pruner.model.train()(images(4)).square().mean()).backward()
    pruner.optimizer.step()
    return pruner.end_epoch()


def macs(model: nn.Module) -> int:
    return count_macs(model.eval(), images(2))[""]


@pytest.mark.parametrize("shrink", [False, True])
def test_each_pruning_takes_the_costs_down_and_the_last_meets_the_budget(shrink: bool) -> None:
    model = network()
    whole = macs(model)
    pruner = pruner_of(model, shrink=shrink)
    spent = [epoch(pruner).spending for _ in range(LAST)]
    aims = [0.3 ** (done / LAST) for done in range(1, LAST + 1)]
    for found, aim in zip(spent, aims, strict=True):
        assert found.before == {"macs": whole}
        assert 0.5 * aim < found.fractions["macs"] <= aim  # of eight filters, each takes an eighth and more
    assert [found.measured for found in spent] == [False, False, True]
    assert pruner.phase == "finetuning"
    small = pruner.finish()
    assert macs(small) == spent[-1].reached["macs"] <= 0.3 * whole


def test_without_fine_tuning_the_first_pruning_meets_it_and_the_next_prunes_no_more() -> None:
    pruner = pruner_of(network(), {"parameters": 0.5}, schedule=Schedule())
    whole = count_plain_parameters(pruner.model)
    first, second = epoch(pruner), epoch(pruner)
    assert first.spending.measured
    assert first.pruned_now > 0
    assert second.pruned_now == 0
    assert count_plain_parameters(pruner.finish()) == first.spending.reached["parameters"] <= 0.5 * whole


@pytest.mark.parametrize("resumed_at", [1, 2])
def test_a_resumed_run_keeps_to_the_network_as_it_was_at_first(resumed_at: int) -> None:
    straight = pruner_of(network(), shrink=True)
    for _ in range(LAST):
        epoch(straight)
    first = pruner_of(network(), shrink=True)
    for _ in range(resumed_at):
        epoch(first)
    assert first.optimizer is not None
    saved = first.state_dict(), first.model.state_dict(), first.optimizer.state_dict()
    second = pruner_of(network(), shrink=True)
    second.load_state_dict(saved[0])
    second.model.load_state_dict(saved[1])
    assert second.optimizer is not None
    second.optimizer.load_state_dict(saved[2])
    for _ in range(LAST - resumed_at):
        report = epoch(second)
    assert straight.last_report is not None
    assert report.spending == straight.last_report.spending
    for ours, theirs in zip(
        noise_layers(straight.model).values(), noise_layers(second.model).values(), strict=True
    ):
        assert torch.equal(ours.mu, theirs.mu)


def test_what_does_not_go_together_and_what_is_out_of_reach_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="takes the place of tolerance"):
        pruner_of(network(), tolerance=1.0)
    with pytest.raises(ValueError, match="a budget needs example_inputs"):
        pruner_of(network(), example_inputs=None)
    with pytest.raises(ValueError, match="at least one cost"):
        pruner_of(network(), {})
    with pytest.raises(BudgetError, match="out of reach"):
        pruner_of(network(), Budget(macs=0.001))


def test_a_budget_that_is_met_from_the_start_is_the_reason_why_nothing_goes() -> None:
    pruner = pruner_of(network(), Budget(parameters="1 M"), schedule=Schedule())
    assert epoch(pruner).pruned_now == 0
    with pytest.warns(UserWarning, match=r"nothing was pruned .* \(1\) for at most 1 M parameters"):
        pruner.finish()


def test_no_pruning_on_the_way_masks_what_surgery_would_retain() -> None:
    torch.manual_seed(0)
    model = CountsOnItsWidth(12)
    model.gate1.mu.data.fill_(-6.0)  # these would go first
    model.gate1.log_sigma.data.fill_(0.5)
    pruner = pruner_of(model, Budget(macs=0.5), example_inputs=torch.ones(2, 4))
    first = pruner.end_epoch()
    assert first is not None
    assert first.pruned_now > 0
    assert model.gate1.kept().all()


def test_options_of_scores_go_along() -> None:
    pruner = pruner_of(network(), criterion="random", seed=3, schedule=Schedule())
    assert epoch(pruner).pruned_now > 0
