"""What a budget takes, and what it says of what it doesn't."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from bmrs_torch import Budget, insert_noise, noise_layers, prune
from bmrs_torch.deciding.budget import Limit, as_budget, shown
from bmrs_torch.deciding.prune import check_rule
from tests.bindings.networks import images, mlp


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"macs": "2.5 M"}, 2.5e6),
        ({"macs": "1.2G"}, 1.2e9),
        ({"parameters": "100 k"}, 1e5),
        ({"parameters": 100_000}, 1e5),
        ({"parameters": "1_000"}, 1e3),
        ({"bytes": "4 MB"}, 4e6),
        ({"bytes": "512 kB"}, 512e3),
        ({"bytes": "2 MiB"}, 2.0**21),
        ({"bytes": "1e3 B"}, 1e3),
        ({"latency": "5 ms"}, 5e-3),
        ({"latency": "0.3ms"}, 3e-4),
        ({"latency": "200 us"}, 2e-4),
        ({"latency": "200 µs"}, 2e-4),
    ],
)
def test_figures_have_units(given: dict[str, Any], value: float) -> None:
    ((_, limit),) = Budget(**given).limits().items()
    assert not limit.is_fraction
    assert math.isclose(limit.value, value, rel_tol=1e-15)  # one product of two float64


@pytest.mark.parametrize("half", [0.5, "50 %", "50%"])
@pytest.mark.parametrize("name", ["macs", "parameters", "bytes", "latency"])
def test_fractions_are_of_any_cost(name: str, half: Any) -> None:
    assert Budget(**{name: half}).limits() == {name: Limit(0.5, is_fraction=True)}


@pytest.mark.parametrize("name", ["macs", "parameters", "bytes", "latency"])
@pytest.mark.parametrize(
    "amount", [0, 0.0, -1, 1.0, 1.5, 2e6, math.nan, math.inf, "5 parsecs", "half", "", "100 %", "0 %", "-3 M"]
)
def test_what_is_no_amount_is_refused_and_what_is_is_shown(name: str, amount: Any) -> None:
    with pytest.raises(ValueError, match=rf"{name} of a budget.*0\.5"):
        Budget(**{name: amount})


@pytest.mark.parametrize("amount", [True, [0.5], torch.ones(2), b"4 MB"])
def test_other_kinds_of_amounts_are_refused(amount: Any) -> None:
    with pytest.raises(TypeError, match="macs of a budget must be"):
        Budget(macs=amount)


@pytest.mark.parametrize("given", [{"macs": "5 ms"}, {"latency": "4 MB"}, {"bytes": "3 s"}, {"latency": 3}])
def test_units_of_another_cost_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(given))}.*(units|unit)"):
        Budget(**given)


def test_an_empty_budget_and_unknown_costs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at least one cost to limit: macs=0\.5"):
        Budget()
    with pytest.raises(ValueError, match="at least one"):
        as_budget({})
    with pytest.raises(TypeError, match="limits 'macs', 'parameters', 'bytes', 'latency', got 'flops'"):
        as_budget({"flops": 0.5})
    with pytest.raises(TypeError, match=r"Budget\(macs=0.5\).*got 0.5"):
        as_budget(0.5)


@pytest.mark.parametrize(
    "options",
    [{"tolerance": 1.0}, {"strict": True}, {"amount": 0.5}, {"coupling": "all"}, {"scope": "global"}],
)
def test_a_budget_takes_the_place_of_a_rule_and_of_coupling(options: dict[str, Any]) -> None:
    model = insert_noise(mlp(), images(2))
    (name,) = options
    with pytest.raises(ValueError, match=f"takes the place of {name}"):
        prune(model, budget=Budget(macs=0.5), example_inputs=images(2), **options)
    with pytest.raises(ValueError, match=f"takes the place of {name}"):
        check_rule("bmrs_n", {"budget": {"macs": 0.5}, **options})
    assert all(bool(layer.kept().all()) for layer in noise_layers(model).values())


def test_a_budget_needs_an_example_and_lets_every_criterion_rank() -> None:
    model = insert_noise(mlp(), images(2))
    with pytest.raises(ValueError, match="a budget needs example_inputs"):
        prune(model, budget=Budget(macs=0.5))
    with pytest.raises(ValueError, match="a budget needs example_inputs"):
        check_rule("l2", {"budget": Budget(macs=0.5)}, model)
    check_rule("l2", {"budget": Budget(macs=0.5)})  # which has no rule of its own
    check_rule("l2", {"budget": Budget(macs=0.5)}, model, images(2))


def test_figures_are_shown_with_units() -> None:
    assert shown("latency", 1.5) == "1.5 s of latency"
    values = {"macs": 950.0, "parameters": 1.5e3, "bytes": 999.0, "latency": 2e-4}
    assert [shown(name, value) for name, value in values.items()] == [
        "950 multiply-adds",
        "1.5 k parameters",
        "999 bytes",
        "200 µs of latency",
    ]
