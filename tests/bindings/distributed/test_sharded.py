"""Processes train one network that ``fully_shard`` divided among them (FSDP2, gloo, CPU)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from bmrs_torch import elbo_loss, kl_divergence, parameter_groups
from tests.bindings.distributed import checks_sharded as checks
from tests.bindings.distributed.launching import run_on_ranks

FILE = Path(checks.__file__)

Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def found(folder: Path) -> Found:
    return on_ranks(2, folder)


@pytest.fixture(scope="module")
def on_four(folder: Path, found: Found) -> Found:
    """After those on two, whose checkpoint they load."""
    assert isinstance(found[0]["stopped"], dict), found[0]["stopped"]
    return on_ranks(4, folder)


def on_ranks(number: int, folder: Path) -> Found:
    (folder / str(number)).mkdir()
    return run_on_ranks(FILE, number, folder / str(number))


@pytest.fixture(scope="module")
def alone() -> dict[str, Tensor]:
    """The same minibatches in one process."""
    model = checks.expected(checks.network())
    optimizer = torch.optim.SGD(parameter_groups(model, 0.1))
    for x, y in checks.batches():
        optimizer.zero_grad()
        elbo_loss(cross_entropy(model(x), y), model, num_samples=checks.SAMPLES).backward()
        optimizer.step()
    kl = kl_divergence(model).detach()
    return {**model.state_dict(), "kl": kl, "of the copy": kl}


@pytest.mark.parametrize("how", ["as one", "by layers", "kept gathered"])
def test_divided_networks_learn_what_one_process_learns(
    found: Found, alone: dict[str, Tensor], how: str
) -> None:
    """The divergence counts once, whether its parameters lie in pieces or are gathered at that moment."""
    for result in found:
        for name, value in result[how].items():
            torch.testing.assert_close(value, alone[name], rtol=1e-6, atol=1e-6)
    assert (alone["0.noise.mu"] != 0).any()


@pytest.mark.parametrize("how", ["by layers", "in two copies"])
def test_so_do_those_with_fewer_structures_than_processes_and_those_in_copies(
    on_four: Found, alone: dict[str, Tensor], how: str
) -> None:
    for result in on_four:
        for name, value in result[how].items():
            torch.testing.assert_close(value, alone[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("by", ["noise", "weights", "gradients", "coupled", "budget"])
def test_decisions_are_those_about_the_whole_network_on_all_ranks(found: Found, by: str) -> None:
    for result in (each["decisions"] for each in found):
        assert result[f"{by} FSDPSequential"] == result[f"{by} Sequential"]
        assert result[f"{by} network"] == found[0]["decisions"][f"{by} network"]
        assert result[f"{by} scores"] == found[0]["decisions"][f"{by} scores"]
        assert result[f"{by} Sequential"][0] > 0


def test_a_run_ends_in_one_plain_network_on_all_ranks_and_the_noise_learns_no_more(found: Found) -> None:
    first, second = (result["run"] for result in found)
    assert first["finished"] == second["finished"]
    assert first["history"] == second["history"]
    assert "FSDP" not in first["plain"]
    assert "Linear(in_features=6, out_features=9," in first["plain"]
    assert [entry["phase"] for entry in first["history"]] == ["pruning"] * 3 + ["finetuning"]
    assert first["history"][-1]["moved"]["mu_max"] == 0
    assert first["history"][-2]["moved"]["mu_max"] > 0


def test_a_resumed_run_goes_on_as_it_would_have(found: Found) -> None:
    for result in found:
        assert result["resumed"]["history"] == result["run"]["history"]
        assert result["resumed"]["finished"] == result["run"]["finished"]


def test_a_network_divided_on_the_meta_device_is_pruned_as_any(found: Found) -> None:
    for result in (each["begun without values"] for each in found):
        assert result == found[0]["begun without values"]
        assert "Linear(in_features=6, out_features=9," in result["plain"]


@pytest.mark.parametrize("how", ["resumed", "resumed by DistributedDataParallel"])
def test_a_checkpoint_loads_on_another_number_of_ranks(on_four: Found, found: Found, how: str) -> None:
    saved = found[0]["stopped"]
    for result in on_four:
        assert result[how]["whole"] == saved["whole"]
        assert result[how]["history then"] == saved["history"]
        assert result[how]["finished"] == on_four[0][how]["finished"]


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("shrink", "shrink=True can't be had with a model that fully_shard divided"),
        ("others", "others= can't be had with a model that fully_shard divided"),
        ("optimizer", "can't be made smaller together with an optimizer"),
        ("insert", "before fully_shard divides it"),
        ("FSDP1", "FullyShardedDataParallel keeps its parameters in pieces without a shape"),
    ],
)
def test_what_cant_be_done_with_a_divided_network_says_what_to_do(found: Found, what: str, told: str) -> None:
    for result in found:
        assert told in result["refusals"][what]
