"""Structures go by what is lost for what is saved until a budget is just met."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bmrs_torch import (
    Budget,
    BudgetError,
    compact,
    coupled_gates,
    fold,
    insert_noise,
    noise_layers,
    prune,
)
from bmrs_torch.channels.calling import in_mode
from bmrs_torch.costs.counting import count_bytes, count_macs, count_plain_parameters
from bmrs_torch.deciding.greedy import Choice, dearness
from bmrs_torch.deciding.removals import find_removals
from bmrs_torch.deciding.trial import made_smaller
from tests.bindings.budgets import CountsOnItsWidth, any_worth, scattered, search
from tests.bindings.costs.test_terms import PICTURES, grouped, residual
from tests.bindings.networks import NETWORKS, images


def small_mlp() -> nn.Module:
    layers = (nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 2))
    return insert_noise(nn.Sequential(*layers), torch.ones(2, 4))


def cost(model: nn.Module, inputs: Tensor, name: str) -> float:
    with in_mode(model, training=False):
        macs = count_macs(model, inputs)[""]
    return {"macs": macs, "parameters": count_plain_parameters(model), "bytes": count_bytes(model)}[name]


def by_trying(model: nn.Module, inputs: Tensor, name: str, limit: float, worth: Any) -> list[dict[str, Any]]:
    """The order in which units go if each is cut out by itself, every time, to see what it saves."""
    units = [{layer: list(gates) for layer, gates in each.items()} for each in coupled_gates(model, inputs)]
    kept = {layer: np.ones(values.size, dtype=bool) for layer, values in worth.items()}
    now, order = cost(model, inputs, name), []
    while now > limit:
        prices = []
        for unit in units:
            without = {layer: each.copy() for layer, each in kept.items()}
            for layer, gates in unit.items():
                without[layer][gates] = False
            if not all(each.any() for each in without.values()):
                continue
            small, plan = made_smaller(model, without, inputs, None)
            if not plan.retained:
                left = cost(small, inputs, name)
                if left < now:
                    dear = max(float(dearness(float(kept[layer].sum()), kept[layer].size)) for layer in unit)
                    prices.append((loss(worth, unit) * dear / (now - left), left, unit))
        _, now, unit = min(prices, key=lambda each: each[0])
        for layer, gates in unit.items():
            kept[layer][gates] = False
        order.append(unit)
        units.remove(unit)
    return given_back(model, inputs, name, limit, worth, order, kept)


def given_back(
    model: nn.Module,
    inputs: Tensor,
    name: str,
    limit: float,
    worth: Any,
    order: list[dict[str, Any]],
    kept: dict[str, Any],
) -> list[dict[str, Any]]:
    """What stays away after all that isn't needed has been put back, most lost first."""
    for unit in sorted(order[:-1], key=lambda each: -loss(worth, each)):
        more = {layer: each.copy() for layer, each in kept.items()}
        for layer, gates in unit.items():
            more[layer][gates] = True
        if cost(made_smaller(model, more, inputs, None)[0], inputs, name) <= limit:
            kept = more
            order.remove(unit)
    return order


def loss(worth: Any, unit: dict[str, Any]) -> float:
    return float(sum(worth[layer][gates].sum() for layer, gates in unit.items()))


def taken_by(found: Any, choice: Choice) -> list[set[int]]:
    """The classes of each removal in turn."""
    removals = find_removals(found._selection, found._selection.possible, found._losses)
    return [set(removals.classes[number].tolist()) for number in choice.taken]


def gates_of(found: Any, classes: set[int]) -> dict[str, list[int]]:
    network = found._selection.network
    gates = {
        name: [i for i, root in enumerate(network.labels.roots(labels).tolist()) if root in classes]
        for name, labels in network.gates.items()
    }
    return {name: structures for name, structures in gates.items() if structures}


@pytest.mark.parametrize(
    ("network", "name"),
    [(small_mlp, "macs"), (small_mlp, "parameters"), (small_mlp, "bytes"), (residual, "macs")],
)
def test_the_order_is_that_of_trying_every_structure_at_every_step(network: Any, name: str) -> None:
    torch.manual_seed(0)
    model = network().eval()
    inputs = PICTURES[:1] if network is residual else torch.ones(2, 4)
    worth, share = any_worth(model), 0.6 if network is residual else 0.4
    limit = share * cost(model, inputs, name)
    found = search(model, inputs, Budget(**{name: share}), worth)
    choice = found._choose(np.array([limit]))
    expected = by_trying(model, inputs, name, limit, worth)
    assert len(expected) > 3
    assert [gates_of(found, classes) for classes in taken_by(found, choice)] == expected


@pytest.mark.parametrize("name", NETWORKS)
def test_a_budget_is_met_by_what_is_shipped(name: str) -> None:
    torch.manual_seed(0)
    model = scattered(insert_noise(NETWORKS[name](), images(2))).eval()
    budget = Budget(parameters=0.6, macs=0.7)
    report = prune(model, budget=budget, example_inputs=images(2))
    plain = fold(compact(model, images(2)), images(2))
    assert report.spending is not None
    reached, fractions = report.spending.reached, report.spending.fractions
    assert reached == {each: cost(plain, images(2), each) for each in ("macs", "parameters")}
    assert fractions["parameters"] <= 0.6
    assert fractions["macs"] <= 0.7


def test_nothing_that_was_taken_could_be_given_back() -> None:
    torch.manual_seed(0)
    found = search(residual().eval(), PICTURES, Budget(macs=0.5))
    (limit,) = found._limits.values()
    choice = found._choose(np.array([limit]))
    removals = find_removals(found._selection, found._selection.possible, found._losses)
    assert choice.costs[0] <= limit
    for number in choice.taken:
        but_for_it = choice.gone.copy()
        but_for_it[removals.classes[number]] = False
        assert found._formula.costs(but_for_it)[0] > limit


def test_structures_against_which_the_evidence_is_go_first() -> None:
    torch.manual_seed(0)
    model = small_mlp()
    worth = any_worth(model)
    worth["2.noise"][1] = -5.0
    found = search(model, torch.ones(2, 4), Budget(macs=0.99), worth)
    kept = found.kept_without(found.run()[0])
    assert not kept["2.noise"][1]
    assert kept["0.noise"].all()


def test_no_structure_goes_that_saves_nothing_of_what_is_too_much() -> None:
    """A budget of multiply-adds that are all before the last stage leaves that stage alone."""
    torch.manual_seed(0)
    model = insert_noise(NETWORKS["lenet5"](), images(2))
    worth = {name: np.full(v.size, 1.0) for name, v in any_worth(model).items()}
    found = search(model, images(2), Budget(macs=0.9), worth)
    kept = found.kept_without(found.run()[0])
    assert kept["fc1.noise"].all()
    assert kept["fc2.noise"].all()


def test_groups_of_a_grouped_convolution_stay_even() -> None:
    torch.manual_seed(0)
    model = scattered(grouped().double()).eval()
    pictures = PICTURES.double()
    prune(model, budget={"macs": 0.45}, example_inputs=pictures)
    smaller: Any = compact(model, pictures)  # would warn of what is masked and can't go
    assert cost(smaller, pictures, "macs") <= 0.45 * cost(model, pictures, "macs")
    assert smaller[3].weight.numel() < model[3].weight.numel()  # type: ignore[index]


@pytest.mark.parametrize("criterion", ["snr", "mean", "l2", "taylor", "random", "bmrs_u"])
def test_every_criterion_can_rank(criterion: str) -> None:
    torch.manual_seed(0)
    model = scattered(small_mlp())
    model(torch.ones(2, 4)).sum().backward()
    report = prune(model, criterion, budget=Budget(parameters=0.5), example_inputs=torch.ones(2, 4))
    assert report.spending is not None
    assert report.spending.fractions["parameters"] <= 0.5
    gone = {layer.name: ~layer.kept for layer in report.layers}
    sign = -1 if criterion == "bmrs_u" else 1
    lost = sum(sign * layer.scores[gone[layer.name]].sum() for layer in report.layers)
    assert report.spending.lost == pytest.approx(lost, rel=1e-12)  # the same sum


def test_the_report_reads_well() -> None:
    torch.manual_seed(0)
    model = scattered(insert_noise(NETWORKS["mlp"](), images(2)))
    text = str(prune(model, budget=Budget(macs=0.5, bytes="60 kB"), example_inputs=images(2)))
    first = text.splitlines()[0]
    assert first.startswith("prune by the smallest −ΔF_N per cost saved: ")
    assert "nats of evidence given up" in first
    assert "for at most 0.5 of the multiply-adds and 60 kB" in first


def test_a_budget_that_is_met_already_prunes_nothing() -> None:
    model = scattered(small_mlp())
    prune(model, budget=Budget(macs=0.5), example_inputs=torch.ones(2, 4))
    masks = {name: layer.mask.clone() for name, layer in noise_layers(model).items()}
    report = prune(model, budget=Budget(macs=0.6), example_inputs=torch.ones(2, 4))
    assert report.pruned_now == 0
    assert report.spending is not None
    assert report.spending.fractions["macs"] <= 0.5
    assert all(torch.equal(layer.mask, masks[name]) for name, layer in noise_layers(model).items())


def test_what_is_out_of_reach_is_said_and_nothing_is_masked() -> None:
    model = scattered(small_mlp())
    with pytest.raises(
        BudgetError, match=r"1 multiply-adds asked for, 14 multiply-adds is the least"
    ) as error:
        prune(model, budget=Budget(macs=1), example_inputs=torch.ones(2, 4))
    assert "At least one structure stays in every layer" in str(error.value)
    assert all(bool(layer.kept().all()) for layer in noise_layers(model).values())
    assert issubclass(BudgetError, ValueError)


def test_a_layer_that_stores_less_when_it_was_cut_is_not_cut_further_than_needed() -> None:
    """With spectral_norm the vectors of its estimate go, which no formula foresees."""
    torch.manual_seed(0)
    first = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 16))
    inputs = torch.randn(2, 8)
    model = scattered(insert_noise(nn.Sequential(first, nn.ReLU(), nn.Linear(16, 4)).eval(), inputs))
    whole, each = count_bytes(model), 4 * (8 + 1 + 4)
    prune(model, budget=Budget(bytes=0.6), example_inputs=inputs)
    left = count_bytes(compact(model, inputs))
    assert left <= 0.6 * whole < left + each


def test_worth_without_end_is_only_given_up_last() -> None:
    torch.manual_seed(0)
    model = small_mlp()
    worth = any_worth(model)
    worth["0.noise"][:] = np.inf
    found = search(model, torch.ones(2, 4), Budget(macs=0.6), worth)
    kept = found.kept_without(found.run()[0])
    assert kept["0.noise"].sum() == 5 - 1
    assert kept["2.noise"].sum() == 1


def test_evidence_of_what_surgery_retains_is_not_given_up() -> None:
    torch.manual_seed(0)
    model = CountsOnItsWidth(8)
    with torch.no_grad():
        model.gate1.mu.fill_(-6.0)  # these would go first
        model.gate1.log_sigma.fill_(0.5)
    report = prune(model, budget=Budget(macs=0.7), example_inputs=torch.ones(2, 4))
    assert model.gate1.kept().all()
    assert report.pruned_now == 8 - int(model.gate2.kept().sum()) > 0
    with pytest.raises(BudgetError, match="6 structures stay: without it the model answers differently"):
        prune(model, budget=Budget(macs=0.2), example_inputs=torch.ones(2, 4))
