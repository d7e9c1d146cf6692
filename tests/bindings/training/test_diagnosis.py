"""What a pruner says when nothing goes, or nearly everything: figures, and the advice that fits the cause."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bmrs_torch import Pruner, Schedule, insert_noise, parameter_groups, prune
from bmrs_torch.layer import INITIAL_LOG_SIGMA, noise_layers
from bmrs_torch.training.diagnosis import LOG_SIGMA_TO_GO
from tests.bindings.networks import hopeless, images, mlp

X = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def trained(
    lr: float, kl_weight: float, steps: int, epochs: int = 1, settings: Any = None, **options: Any
) -> tuple[nn.Module, Pruner]:
    torch.manual_seed(0)
    model = insert_noise(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)), X)
    optimizer = torch.optim.Adam(parameter_groups(model, lr=lr, **(settings or {})))
    pruner = Pruner(model, optimizer, num_samples=64, kl_weight=kl_weight, **options)
    for _ in range(epochs):
        for _ in range(steps):
            optimizer.zero_grad()
            pruner.loss(F.cross_entropy(model(X), Y)).backward()
            optimizer.step()
        pruner.end_epoch()
    return model, pruner


def finished(pruner: Pruner) -> str:
    with pytest.warns(UserWarning, match="nothing was pruned") as caught:
        pruner.finish(X)
    return str(caught[0].message)


def test_too_few_steps_are_told_by_the_way_that_the_noise_has_come() -> None:
    model, pruner = trained(lr=1e-4, kl_weight=30.0, steps=5)
    said = finished(pruner)
    report = prune(model)
    assert report.nearest is not None
    layer, score = report.nearest
    assert layer == "0.noise"
    assert score == report.layers[0].scores.max()
    assert f"nearest to the rule is {score:.4g}, in '0.noise'" in said
    assert "prune where ΔF_N ≥ -0.9189" in said
    moved = (noise_layers(model)["0.noise"].log_sigma.detach() - INITIAL_LOG_SIGMA).abs().max().item()
    assert f"at most {moved:.2g} from its beginning at log σ = -5" in said
    assert "5 steps at lr=0.001 lead 0.005 of the way" in said
    assert "More steps, or a larger learning rate" in said


def test_noise_that_had_the_time_needs_a_larger_weight() -> None:
    said = finished(trained(lr=0.02, kl_weight=1e-4, steps=50)[1])
    assert re.search(r"a larger\s+kl_weight prunes more \(the default.*is 1\)", said)


def test_noise_that_does_not_learn_is_named_as_the_cause() -> None:
    model, pruner = trained(lr=0.02, kl_weight=1.0, steps=1)
    noise_layers(model)["0.noise"].requires_grad_(False)
    assert "none of its parameters requires a gradient" in finished(pruner)


def test_a_schedule_that_was_never_due_is_named_as_the_cause() -> None:
    _, pruner = trained(lr=0.02, kl_weight=1.0, steps=1, schedule=Schedule(start=30))
    assert "it was never due. It is by Schedule(every=1, start=30" in finished(pruner)


def test_criteria_without_noise_are_not_told_to_train_it() -> None:
    said = finished(trained(lr=1e-3, kl_weight=1.0, steps=1, criterion="l2", threshold=1e-3)[1])
    assert "The ‖w‖₂ nearest to the rule is" in said
    assert "kl_weight=1" in said
    assert "learning rate" not in said
    said = finished(trained(lr=1e-3, kl_weight=1.0, steps=1, criterion="l2", amount=0.01)[1])
    assert "rounds to no structure more" in said


@pytest.mark.parametrize(
    ("course", "advice"),
    [
        ({"lr": 0.05, "kl_weight": 1e4, "steps": 20}, "kl_weight is 1e+04 times the default"),
        ({"lr": 0.1, "kl_weight": 1.0, "steps": 40}, "The noise learns with lr=1, so fast"),
    ],
)
def test_collapse_is_said_once_with_its_cause(course: Any, advice: str) -> None:
    with pytest.warns(UserWarning, match="next to nothing is left") as caught:
        model, _ = trained(epochs=3, **course)
    assert len(caught) == 1
    said = str(caught[0].message)
    assert noise_layers(model)["0.noise"].kept().sum() == 1
    assert "'0.noise' has 1 of 16 structures left, ΔF_N = " in said
    assert advice in said


def test_a_loss_without_a_gradient_is_named_as_the_cause() -> None:
    torch.manual_seed(0)
    model = insert_noise(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)), X)
    optimizer = torch.optim.Adam(parameter_groups(model, lr=0.05))
    pruner = Pruner(model, optimizer, num_samples=64, kl_weight=1.0)
    for _ in range(100):
        optimizer.zero_grad()
        pruner.loss(F.cross_entropy(model(X), Y).detach()).backward()
        optimizer.step()
    with pytest.warns(UserWarning, match=r"next to nothing is left.*The loss has no gradient"):
        pruner.end_epoch()


def test_a_threshold_of_weights_is_told_to_be_smaller() -> None:
    with pytest.warns(UserWarning, match=r"next to nothing is left.*a smaller threshold, or an amount"):
        trained(lr=1e-3, kl_weight=1.0, steps=1, criterion="l2", threshold=100.0)


def test_an_amount_that_leaves_one_is_no_collapse() -> None:
    """Warnings are errors in this suite."""
    trained(lr=1e-3, kl_weight=1.0, steps=1, criterion="l2", amount=0.95)


def test_without_an_optimizer_the_weight_and_the_noise_are_told_all_the_same() -> None:
    pruner = Pruner(insert_noise(mlp(), images(2)), num_samples=8)
    pruner.end_epoch()
    with pytest.warns(UserWarning, match=f"It takes about {LOG_SIGMA_TO_GO:g} in log σ: train longer"):
        pruner.finish(images(2))


def test_a_report_of_nothing_names_what_was_nearest() -> None:
    model = insert_noise(mlp(), images(2))
    assert re.search(r"0 pruned; the nearest is ΔF_N = -\d.*, in '1\.noise'", str(prune(model)))
    hopeless(model, "1.noise", [3])
    assert "nearest" not in str(prune(model))
