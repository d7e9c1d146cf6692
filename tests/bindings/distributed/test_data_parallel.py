"""Two processes train one network through DistributedDataParallel (gloo, CPU)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from bmrs_core import mean, variance
from bmrs_torch import elbo_loss, parameter_groups
from tests.bindings.distributed import checks_data_parallel as checks
from tests.bindings.distributed.launching import run_on_ranks

FILE = Path(checks.__file__)

Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return run_on_ranks(FILE, 2, tmp_path_factory.mktemp("ranks"))


def test_ranks_draw_different_noise_and_the_same_again(found: Found) -> None:
    first, second = (result["noise"] for result in found)
    for size in ("few", "many"):
        assert not (first[size] == second[size]).any()
        assert first[f"{size} again"]
        assert second[f"{size} again"]


def test_rank_0_draws_what_a_process_alone_draws(found: Found) -> None:
    alone = checks.noise()
    assert alone["few"].equal(found[0]["noise"]["few"])
    assert alone["many"].equal(found[0]["noise"]["many"])


def test_compiled_graphs_draw_the_noise_of_their_rank(found: Found) -> None:
    for result in found:
        torch.testing.assert_close(result["noise"]["compiled"], result["noise"]["few"])


def test_ranks_that_are_given_one_number_draw_the_same_noise(found: Found) -> None:
    for result in found:
        assert result["noise"]["by number 0"].equal(found[0]["noise"]["few"])


def test_noise_of_several_ranks_has_the_moments_of_theta_and_is_uncorrelated(found: Found) -> None:
    many = torch.stack([result["noise"]["many"].double() for result in found])
    mu, sigma = torch.tensor(-1.0, dtype=torch.float64), torch.tensor(-0.5, dtype=torch.float64).exp()
    scale = float(variance(mu, sigma)) ** 0.5
    number = many[0].numel()
    off = (many.mean() - float(mean(mu, sigma))) / scale
    correlation = ((many[0] - many.mean()) * (many[1] - many.mean())).mean() / scale**2
    # Five standard errors of each: 1/√n of a mean, and of a correlation of independent numbers.
    assert abs(off) < 5 / (2 * number) ** 0.5
    assert abs(correlation) < 5 / number**0.5


def in_one_process(*, uneven: bool) -> dict[str, Tensor]:
    """Both halves of each minibatch in one process; the mean of the halves' means is what DDP averages."""
    model = checks.expected(checks.network())
    optimizer = torch.optim.SGD(parameter_groups(model, 0.1))
    for halves in zip(*checks.halves(uneven=uneven), strict=True):
        optimizer.zero_grad()
        misfit = torch.stack([cross_entropy(model(x), y) for x, y in halves]).mean()
        elbo_loss(misfit, model, num_samples=checks.SAMPLES).backward()
        optimizer.step()
    return checks.state(model)


@pytest.mark.parametrize("case", ["even", "uneven"])
def test_two_ranks_learn_what_one_process_learns_from_twice_the_batch(found: Found, case: str) -> None:
    alone = in_one_process(uneven=case == "uneven")
    start = checks.state(checks.network())
    for result in found:
        for name, value in result[case].items():
            torch.testing.assert_close(value, alone[name], rtol=1e-6, atol=1e-6)
    assert any((alone[name] - start[name]).abs().max() > 1e-2 for name in alone if name.endswith("mu"))


def test_ranks_with_different_numbers_of_minibatches_stay_together(found: Found) -> None:
    first, second = (result["uneven numbers"] for result in found)
    assert first["state"] == second["state"]
    assert first["history"] == second["history"]


def test_decisions_are_the_same_on_all_ranks(found: Found) -> None:
    first, second = (result["decisions"] for result in found)
    assert first["report"] == second["report"]
    assert all(first["masks"][name].equal(mask) for name, mask in second["masks"].items())
    assert 0 < sum(int(mask.sum()) for mask in first["masks"].values()) < 22


def test_noise_that_came_apart_is_named_on_all_ranks_and_nothing_is_pruned(found: Found) -> None:
    for result in (each["decisions"] for each in found):
        assert result["apart"].startswith("RanksDisagreeError: ")
        assert "but 2.noise.mu of rank 1 differs" in result["apart"]
        assert all(result["masks"][name].equal(mask) for name, mask in result["masks then"].items())


def test_what_deciding_raises_is_raised_on_all_ranks(found: Found) -> None:
    for result in (each["decisions"] for each in found):
        assert "ValueError: noise layer '2.noise' can't be judged" in result["unusable"]


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("example", "example_inputs of rank 1"),
        ("finish", "example_inputs of rank 1"),
        ("samples", "num_samples of rank 1"),
        ("schedule", "schedule of rank 1"),
        ("wrapper", "doesn't hold this Sequential"),
    ],
)
def test_what_differs_between_ranks_is_an_error_on_all_and_no_hang(
    found: Found, what: str, named: str
) -> None:
    for result in found:
        assert named in result["differing"][what]


def test_a_run_that_shrinks_and_finetunes_ends_in_one_network_on_all_ranks(found: Found) -> None:
    first, second = (result["run"] for result in found)
    assert first["finished"] == second["finished"]
    assert first["average"] == second["average"]
    assert first["history"] == second["history"]
    assert first["statistics"] != second["statistics"]  # those of each rank's own minibatches
    assert first["widths"][-1] < 12
    assert f"Linear(in_features=6, out_features={first['widths'][-1]}" in first["plain"]


def test_a_resumed_run_goes_on_as_it_would_have(found: Found) -> None:
    for result in found:
        for name in ("finished", "average", "history", "last"):
            assert result["resumed"][name] == result["run"][name]


@pytest.mark.parametrize("way", ["within", "without"])
def test_wrapped_models_answer_as_the_plain_one(found: Found, way: str) -> None:
    for result in found:
        assert result["wrapped"][way] == result["wrapped"]["plain"]


def test_a_wrapper_made_anew_keeps_its_arguments_and_hooks(found: Found) -> None:
    first, second = (result["remade"] for result in found)
    assert first["arguments"] == (True, True, 3 * 2**20, 1)
    assert first["gradient"] == second["gradient"]


def test_a_wrapper_that_cant_be_made_anew_is_refused_at_once(found: Found) -> None:
    for result in found:
        assert "powerSGD_hook keeps state of parameters that are replaced" in result["remade"]["stateful"]
        assert result["remade"]["without"] == ""
