"""The script of the guide under torchrun: it ends in one plain network, also if a rank is killed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.bindings.distributed.launching import ROOT, torchrun

SCRIPT = ROOT / "docs" / "guides" / "several_machines.py"
KILLED = Path(__file__).with_name("killed.py")


def networks(told: str) -> dict[str, str]:
    """Width and fingerprint of the network in which each rank ended."""
    return dict(re.findall(r"rank (\d): (\S*→\S* \w{16})", told))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return networks(torchrun(SCRIPT, "--checkpoints", tmp_path_factory.mktemp("whole")).stdout)


def test_the_script_ends_in_one_smaller_network_on_all_ranks(whole: dict[str, str]) -> None:
    assert whole["0"] == whole["1"]
    first, *hidden, last = map(int, whole["0"].split()[0].split("→"))
    assert (first, last) == (20, 4)
    assert all(width < 64 for width in hidden)


def test_a_run_whose_rank_is_killed_in_a_step_ends_as_it_would_have(
    whole: dict[str, str], tmp_path: Path
) -> None:
    killed = torchrun(KILLED, SCRIPT, "--checkpoints", tmp_path, must_end=False)
    assert killed.returncode != 0
    assert not networks(killed.stdout)
    told = torchrun(SCRIPT, "--checkpoints", tmp_path).stdout
    assert "rank 0 goes on after epoch 6" in told
    assert networks(told) == whole


def test_the_divided_script_ends_in_one_smaller_network_too(tmp_path: Path) -> None:
    found = networks(torchrun(SCRIPT, "--fully-shard", "--checkpoints", tmp_path).stdout)
    assert found["0"] == found["1"]
    assert not found["0"].startswith("20→64→64→4")
