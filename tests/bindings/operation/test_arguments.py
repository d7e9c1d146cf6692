"""Arguments of another kind are refused by name: numbers, whole numbers, switches, models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bmrs_torch import (
    MultiplicativeNoise,
    Pruner,
    Schedule,
    compact,
    default_kl_weight,
    elbo_loss,
    fold,
    insert_noise,
    kl_divergence,
    load_pruned,
    noise_layers,
    parameter_groups,
    prune,
    report,
    save_pruned,
    scores,
)
from bmrs_torch.operation.arguments import check_real, check_switch, check_whole
from tests.bindings.networks import images, mlp

NOT_NUMBERS = ["1", None, [1], 1j, True, np.bool_(True), torch.ones(2)]


@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_what_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="lr must be a number, got"):
        check_real("lr", value)
    with pytest.raises(TypeError, match="every must be a number of steps, a whole number, got"):
        check_whole("every", value, "a number of steps")


@pytest.mark.parametrize("value", [1, 2.5, np.float32(2.5), np.int64(3), torch.tensor(0.5), float("nan")])
def test_numbers_of_any_library_are_numbers(value: Any) -> None:
    check_real("lr", value)


def test_whole_numbers_are_whole_whatever_holds_them() -> None:
    for value in (3, 3.0, np.int64(3), np.float64(3), torch.tensor(3)):
        check_whole("every", value, "a number of steps", 3)
        with pytest.raises(ValueError, match="every must be a number of steps, at least 4, got"):
            check_whole("every", value, "a number of steps", 4)
    for broken in (2.5, float("nan"), float("inf"), np.float32(0.1)):
        with pytest.raises(ValueError, match="a whole number, got"):
            check_whole("every", broken, "a number of steps")


def test_switches_are_not_texts() -> None:
    for value in (True, False, 0, 1, np.bool_(True)):
        check_switch("strict", value)
    others: list[Any] = ["no", None, 2, 0.0, []]
    for wrong in others:
        with pytest.raises(TypeError, match="strict must be True or False, got"):
            check_switch("strict", wrong)


ASKING_FOR_A_MODEL: list[Callable[[Any], Any]] = [
    noise_layers,
    kl_divergence,
    prune,
    scores,
    lambda model: compact(model, images(2)),
    lambda model: fold(model, images(2)),
    lambda model: insert_noise(model, images(2)),
    lambda model: parameter_groups(model, 0.1),
    lambda model: elbo_loss(torch.zeros(()), model, num_samples=3),
    lambda model: Pruner(model, num_samples=3),
    lambda model: save_pruned(model, "m.safetensors"),
    lambda model: load_pruned(model, "m.safetensors"),
    lambda model: report(model, mlp(), images(1)),
]


@pytest.mark.parametrize("ask", ASKING_FOR_A_MODEL)
@pytest.mark.parametrize("model", [3, None, "model", [nn.Linear(2, 2)]])
def test_what_is_no_model_is_refused(ask: Callable[[Any], Any], model: Any) -> None:
    with pytest.raises(TypeError, match=r"model must be an nn\.Module.*, got"):
        ask(model)


@pytest.mark.parametrize("value", [float("nan"), 2.5, 0, -1, float("inf")])
def test_the_size_of_the_training_set_is_a_number_of_samples(value: Any) -> None:
    for ask in (
        lambda: default_kl_weight(value),
        lambda: elbo_loss(torch.zeros(()), MultiplicativeNoise(2), num_samples=value),
        lambda: Pruner(MultiplicativeNoise(2), num_samples=value),
    ):
        with pytest.raises(ValueError, match="num_samples must be the size of the training set"):
            ask()


@pytest.mark.parametrize("name", ["every", "start", "finetune_from", "kl_warmup"])
def test_a_schedule_is_of_whole_numbers(name: str) -> None:
    value: Any
    for value in ("2", True, [2]):
        with pytest.raises(TypeError, match=f"{name} must be a number of epochs, a whole number, got"):
            Schedule(**{name: value})
    for value in (1.5, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"{name} must be a number of epochs, a whole number, got"):
            Schedule(**{name: value})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"criterion": ["snr"]}, ValueError, "criterion must be one of"),
        ({"tolerance": "1"}, TypeError, "tolerance must be a number"),
        ({"amount": [0.5]}, TypeError, "amount must be a number"),
        ({"criterion": "snr", "threshold": "1"}, TypeError, "threshold must be a number"),
        ({"strict": "no"}, TypeError, "strict must be True or False"),
        ({"coupling": "sum"}, ValueError, "coupling must be 'all'"),
        ({"coupling": "all"}, ValueError, "needs example_inputs"),
        ({"criterion": "bmrs_u", "p1": 1.5}, ValueError, "p1 must be a number of bits"),
        ({"criterion": "bmrs_u", "p1": 30}, ValueError, "p1"),
        ({"criterion": "bmrs_u", "p2": "23"}, TypeError, "p2 must be a number of bits"),
        ({"criterion": "random", "amount": 0.5, "seed": -1}, ValueError, "seed must be a seed of NumPy"),
        ({"p1": 3}, ValueError, "has no use for p1"),
    ],
)
def test_options_of_a_rule_are_refused_at_once_by_prune_and_by_a_pruner(
    options: Any, error: Any, message: str
) -> None:
    model = insert_noise(mlp(), images(2))
    with pytest.raises(error, match=message):
        prune(model, **options)
    with pytest.raises(error, match=message):
        Pruner(model, num_samples=4, **options)
